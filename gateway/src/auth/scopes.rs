//! The scopes that a caller has, as far as any rpc asks for them. Pure.

use contract::access;

/// Some of the scopes of the contract.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scopes(Box<[&'static str]>);

impl Scopes {
    /// Those that a token names. Tokens have scopes for others too: what is not known here grants nothing.
    pub(crate) fn of_token<'a>(names: impl IntoIterator<Item = &'a str>) -> Scopes {
        Scopes(names.into_iter().filter_map(access::scope).collect())
    }

    /// Those that a list of ours names. There, what is not known is a mistake.
    pub(crate) fn of_list<'a>(names: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Scopes> {
        let known = |name: &str| {
            access::scope(name).ok_or_else(|| {
                let all = access::scopes().join(", ");
                // A secret in the wrong place is not repeated.
                let plain = name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'.');
                let name = if plain { format!(" {name:?}") } else { String::new() };
                anyhow::anyhow!("there is no scope{name}, but {all}")
            })
        };
        names.into_iter().map(known).collect::<Result<_, _>>().map(Scopes)
    }

    /// Whether this is among them.
    pub(crate) fn have(&self, scope: &str) -> bool {
        self.0.contains(&scope)
    }
}

impl std::fmt::Display for Scopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(","))
    }
}
