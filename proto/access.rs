//! Access: which scope each rpc requires of its caller. Generated from the `access` options in the protos at build
//! time. An rpc without a rule is denied to everybody.

/// What an rpc requires of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The rpc's path in HTTP/2: `/service/rpc`.
    pub path: &'static str,
    /// The required scope.
    pub scope: &'static str,
    /// Whether the rpc is streaming, so that a call may last long.
    pub streams: bool,
}

/// The rule of a path, if it has one.
pub fn rule(path: &str) -> Option<&'static Rule> {
    let place = RULES.binary_search_by(|rule| rule.path.cmp(path)).ok()?;
    RULES.get(place)
}

/// The scope of this name, if any rule requires it.
pub fn scope(name: &str) -> Option<&'static str> {
    RULES.iter().map(|rule| rule.scope).find(|scope| *scope == name)
}

/// Every scope that a rule requires, once.
pub fn scopes() -> Vec<&'static str> {
    let mut scopes: Vec<_> = RULES.iter().map(|rule| rule.scope).collect();
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

include!(concat!(env!("OUT_DIR"), "/access.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_found_by_its_path_and_nothing_else_is() {
        for rule in RULES {
            assert_eq!(super::rule(rule.path), Some(rule));
            assert_eq!(scope(rule.scope), Some(rule.scope));
            for near in [&rule.path[1..], &rule.path.to_lowercase(), &format!("{}/", rule.path)] {
                assert_eq!(super::rule(near), None, "{near}");
            }
        }
        assert_eq!((super::rule(""), scope("")), (None, None));
    }
}
