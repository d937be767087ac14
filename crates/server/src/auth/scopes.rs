//! The scopes of a caller, limited to those that a rule of the catalog requires. Pure.

use std::sync::Arc;

use catalog::Catalog;

/// Stands for no scopes in a list: such callers may call what is for every authenticated caller.
const NONE: &str = "-";

/// Some of the scopes of a catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scopes(Box<[Arc<str>]>);

impl Scopes {
    /// The scopes of a token. Unknown scopes are ignored: tokens also have scopes for other services.
    pub(crate) fn of_token<'a>(catalog: &Catalog, names: impl IntoIterator<Item = &'a str>) -> Scopes {
        Scopes(names.into_iter().filter_map(|name| catalog.scope(name).cloned()).collect())
    }

    /// The scopes of an entry in our own lists: `-` for none. Unknown scopes are errors.
    pub(crate) fn of_list<'a>(
        catalog: &Catalog,
        names: impl IntoIterator<Item = &'a str>,
    ) -> anyhow::Result<Scopes> {
        let names: Vec<&str> = names.into_iter().collect();
        if names == [NONE] {
            return Ok(Scopes::default());
        }
        let known = |name: &str| {
            catalog.scope(name).cloned().ok_or_else(|| {
                let all = catalog.scopes().join(", ");
                // Do not repeat a value that may be a misplaced secret.
                let plain = name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'.');
                let name = if plain { format!(" {name:?}") } else { String::new() };
                anyhow::anyhow!(
                    "unknown scope{name}; the scopes of the contracts that are served here are {all}"
                )
            })
        };
        names.into_iter().map(known).collect::<Result<_, _>>().map(Scopes)
    }

    /// Whether the caller has this scope.
    pub(crate) fn have(&self, scope: &str) -> bool {
        self.0.iter().any(|own| &**own == scope)
    }
}

impl std::fmt::Display for Scopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.0 {
            [] => f.write_str(NONE),
            scopes => f.write_str(&scopes.join(",")),
        }
    }
}
