//! Names of environment variables: those of our own making begin with GW_, and the names that they had before are read
//! still. Must never know what a value means.

use std::collections::BTreeMap;

use clap::builder::Resettable;
use clap::{Arg, Command};

use crate::leaf::edit;

/// What the names of our own variables begin with. Not `GATEWAY_`: Kubernetes injects variables with that prefix for a
/// Service called gateway.
pub const PREFIX: &str = "GW_";

/// The names that our variables had before they had a prefix.
const OLD: &str = "API_KEYS AUTH_MAX_STALE BAGGAGE_KEYS BATCH CALLER_IN_FLIGHT CALLER_RATE CONSOLE DATA_DIR \
    DRAIN_TIMEOUT EXPIRY_INTERVAL_MS GATEWAY_THREADS GRPC_ADDR HEALTH_ADDR HTTP_ADDR HTTP_HOSTS ID_HORIZON INSECURE \
    JWT_ALGORITHMS JWT_AUDIENCE JWT_CUSTOMER_CLAIM JWT_ISSUER JWT_JWKS JWT_JWKS_CA JWT_JWKS_REFRESH JWT_SCOPE_CLAIM \
    JWT_SECRET_FILE LOG_FORMAT MAX_ADJUSTMENTS MAX_BUFFERED_BYTES MAX_CONNECTIONS MAX_CONNECTION_AGE \
    MAX_CONNECTION_AGE_GRACE MAX_CONNECTION_IDLE MAX_DELIVER MAX_HANDSHAKES MAX_HEADER_BYTES MAX_IN_FLIGHT \
    MAX_PRODUCTS MAX_REPLY_BYTES MAX_REQUEST_BYTES MAX_RESERVATIONS MAX_STREAMS MAX_WATCHES NATS_CONNECT_TIMEOUT_MS \
    NATS_INBOX_PREFIX NATS_MONITOR_URL NATS_PASSWORD_FILE NATS_TOKEN_FILE NEST_SUBJECTS PROVISION REFLECTION \
    RESERVATION_TTL SNAPSHOT_EVERY STREAM_REPLICAS TLS_CERT TLS_CLIENTS TLS_CLIENT_AUTH TLS_CLIENT_CA \
    TLS_CLIENT_SCOPES TLS_KEY";

/// The old names.
pub fn old() -> impl Iterator<Item = &'static str> {
    OLD.split_whitespace()
}

/// The name of today of a variable that had this name.
pub fn renamed(old: &str) -> String {
    let name = match old {
        "GATEWAY_THREADS" => "THREADS",
        other => other.strip_suffix("_MS").unwrap_or(other),
    };
    format!("{PREFIX}{name}")
}

/// Those of our variables that never had another name. A program takes them from its flags; here are all, so that what
/// is meant for one program is no mistake for another; so is what a build takes.
const NEW: [&str; 4] = ["GW_CLIENT_API_KEY", "GW_CLIENT_TOKEN", "GW_COMMIT", "GW_CONFIG"];

/// Whether a name is one of ours, of whichever program.
pub fn is_ours(name: &str) -> bool {
    NEW.contains(&name) || old().any(|old| renamed(old) == name)
}

/// The variables of this process, or what a test has for them.
pub(crate) type Environment = BTreeMap<String, String>;

/// What is set, under which names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Variables that are set under their old names alone.
    old: BTreeMap<String, &'static str>,
    /// What is set under both, and differs.
    pub(crate) faults: Vec<String>,
}

impl Names {
    /// Looks at the old names. What is set and empty is not set.
    pub(crate) fn of(environment: &Environment) -> Names {
        let mut names = Names::default();
        let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        for old in old() {
            let (Some(before), new) = (set(old), renamed(old)) else { continue };
            match set(&new) {
                None => drop(names.old.insert(new, old)),
                Some(now) if now == before => {}
                Some(_) => names.faults.push(format!(
                    "{new} and {old}, its old name, are both set and differ: take one of them away"
                )),
            }
        }
        names
    }

    /// The name that a variable is set by.
    pub(crate) fn set_as<'a>(&self, name: &'a str) -> &'a str {
        self.old.get(name).copied().unwrap_or(name)
    }

    /// The name of today of a variable that is set by this one.
    pub(crate) fn today(&self, name: &str) -> String {
        let found = self.old.iter().find(|(_, old)| **old == name);
        found.map_or_else(|| name.to_owned(), |(new, _)| new.clone())
    }

    /// The command with the variables that are set: under the old name where that one is, and without those that are
    /// empty. Values of variables are in no help: some are secret.
    pub(crate) fn apply(&self, command: Command, environment: &Environment) -> Command {
        edit(command, &|arg| self.variable(arg.hide_env_values(true), environment))
    }

    fn variable(&self, arg: Arg, environment: &Environment) -> Arg {
        let Some(name) = arg.get_env().map(|name| name.to_string_lossy().into_owned()) else { return arg };
        match (self.old.get(&name), environment.get(&name)) {
            (Some(old), _) => arg.env(*old),
            (None, Some(empty)) if empty.is_empty() => arg.env(Resettable::Reset),
            _ => arg,
        }
    }

    /// What to say of old names of these variables, which a command reads.
    pub(crate) fn warnings(&self, read: impl Fn(&str) -> bool) -> Vec<String> {
        let old = self.old.iter().filter(|(new, _)| read(new));
        old.map(|(new, old)| format!("{old} is the old name of {new}, and is read for now: rename it"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(set: &[(&str, &str)]) -> Names {
        Names::of(&set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn names_of_today_have_the_prefix_and_no_unit() {
        assert_eq!(renamed("GRPC_ADDR"), "GW_GRPC_ADDR");
        assert_eq!(renamed("GATEWAY_THREADS"), "GW_THREADS");
        assert_eq!(renamed("EXPIRY_INTERVAL_MS"), "GW_EXPIRY_INTERVAL");
        assert_eq!(old().count(), 60);
    }

    #[test]
    fn an_old_name_is_warned_of_where_it_is_read_and_the_new_one_is_not_set() {
        let set = names(&[("GRPC_ADDR", "a"), ("HTTP_ADDR", ""), ("BATCH", "1"), ("GW_BATCH", "1")]);
        assert!(set.faults.is_empty(), "{set:?}");
        let [warning] = &set.warnings(|_| true)[..] else { panic!("{set:?}") };
        assert!(warning.contains("GRPC_ADDR") && warning.contains("GW_GRPC_ADDR"), "{warning}");
        assert!(set.warnings(|_| false).is_empty());
    }

    #[test]
    fn two_names_with_different_values_are_refused_by_both() {
        let set = names(&[("GATEWAY_THREADS", "1"), ("GW_THREADS", "2")]);
        let [fault] = &set.faults[..] else { panic!("{set:?}") };
        assert!(fault.contains("GATEWAY_THREADS") && fault.contains("GW_THREADS"), "{fault}");
    }
}
