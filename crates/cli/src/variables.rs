//! Names of environment variables: our own begin with GW_, and their old names still work. Must not depend on the
//! meaning of values.

use std::collections::BTreeMap;

use clap::builder::Resettable;
use clap::{Arg, Command};

use crate::leaf::edit;

/// The prefix of our own variables. Not `GATEWAY_`: Kubernetes injects variables with that prefix for a Service named
/// gateway.
pub(crate) const PREFIX: &str = "GW_";

/// The old names of our variables, without a prefix.
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
pub(crate) fn old() -> impl Iterator<Item = &'static str> {
    OLD.split_whitespace()
}

/// The current name of a variable with this old name.
pub(crate) fn renamed(old: &str) -> String {
    let name = match old {
        "GATEWAY_THREADS" => "THREADS",
        other => other.strip_suffix("_MS").unwrap_or(other),
    };
    format!("{PREFIX}{name}")
}

/// Variables of ours that have no old name. A program knows them from its flags; here are those of all programs, so
/// that a variable for one program is not an error in another; likewise the variable of a build.
const NEW: [&str; 13] = [
    "GW_ALLOW_ANONYMOUS",
    "GW_ALLOW_BREAKING",
    "GW_CATALOG_ALLOW",
    "GW_CATALOG_BUCKET",
    "GW_CLIENT_API_KEY",
    "GW_CLIENT_TOKEN",
    "GW_COMMIT",
    "GW_CONFIG",
    "GW_DESCRIPTOR_SET",
    "GW_ORDERS",
    "GW_PROTO",
    "GW_PROTO_PATH",
    "GW_READY_ON",
];

/// Whether a name is one of ours, of any program.
pub fn is_ours(name: &str) -> bool {
    NEW.contains(&name) || old().any(|old| renamed(old) == name)
}

/// The variables of this process, or those of a test.
pub(crate) type Environment = BTreeMap<String, String>;

/// The names under which variables are set.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Variables that are set under their old names alone.
    old: BTreeMap<String, &'static str>,
    /// Faults: variables set under both names with different values.
    pub(crate) faults: Vec<String>,
}

impl Names {
    /// Checks the old names. An empty variable counts as unset.
    pub(crate) fn of(environment: &Environment) -> Names {
        let mut names = Names::default();
        let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        for old in old() {
            let (Some(before), new) = (set(old), renamed(old)) else { continue };
            match set(&new) {
                None => drop(names.old.insert(new, old)),
                Some(now) if now == before => {}
                Some(_) => names.faults.push(format!(
                    "{new} and its old name {old} are both set, with different values: unset one of them"
                )),
            }
        }
        names
    }

    /// The name under which a variable is set.
    pub(crate) fn set_as<'a>(&self, name: &'a str) -> &'a str {
        self.old.get(name).copied().unwrap_or(name)
    }

    /// The current name of a variable that is set under this name.
    pub(crate) fn today(&self, name: &str) -> String {
        let found = self.old.iter().find(|(_, old)| **old == name);
        found.map_or_else(|| name.to_owned(), |(new, _)| new.clone())
    }

    /// The command with the variables that are set: under the old name if that one is set, and without empty ones. Help
    /// does not show the variables' values, because some are secret.
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

    /// The warnings about old names, for the variables that a command reads.
    pub(crate) fn warnings(&self, read: impl Fn(&str) -> bool) -> Vec<String> {
        let old = self.old.iter().filter(|(new, _)| read(new));
        old.map(|(new, old)| format!("{old} is the old name of {new} and still works: rename it")).collect()
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
