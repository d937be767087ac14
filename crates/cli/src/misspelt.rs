//! Finds misspelt environment variables, which nobody reads: with our prefix they are errors, without it they may be
//! somebody else's. Must not read values, except to recognize the variables of Kubernetes.

use std::collections::BTreeSet;

use strsim::osa_distance;

use crate::variables::{Environment, PREFIX, is_ours, old, renamed};

/// Names this short resemble too many others.
const SHORT: usize = 6;
/// Up to this many extra letters count as an ending, as in GRPC_ADDRESS.
const ENDING: usize = 3;

/// Errors and warnings.
#[derive(Debug, Default)]
pub(crate) struct Misspelt {
    /// Unknown variables with our prefix.
    pub(crate) faults: Vec<String>,
    /// Variables that resemble one that we read.
    pub(crate) warnings: Vec<String>,
}

impl Misspelt {
    /// Checks all names. `read` are those that the program reads.
    pub(crate) fn of(environment: &Environment, read: &BTreeSet<String>) -> Misspelt {
        let mut found = Misspelt::default();
        let known = |name: &str| read.contains(name) || is_ours(name) || old().any(|old| old == name);
        let set = environment.iter().filter(|(name, value)| !value.is_empty() && !known(name));
        for (name, _) in set.filter(|(name, value)| !of_kubernetes(name, value)) {
            if name.starts_with(PREFIX) {
                let meant = meant(name, read).map(|meant| format!("; did you mean {meant}?"));
                found.faults.push(format!("unknown variable {name}{}", meant.unwrap_or_default()));
            } else if let Some(meant) = resembled(name, read) {
                found.warnings.push(format!("{name} is not read; did you mean {meant}?"));
            }
        }
        found
    }
}

/// The most similar name with our prefix, if one is similar enough.
fn meant(name: &str, read: &BTreeSet<String>) -> Option<String> {
    let rest = name.strip_prefix(PREFIX)?;
    let ours = read.iter().filter(|name| name.starts_with(PREFIX)).map(|name| (name.clone(), name.clone()));
    let old = old().map(|old| (format!("{PREFIX}{old}"), renamed(old)));
    // As in GW_NATS_URL for NATS_URL.
    let others = read.iter().map(|other| (format!("{PREFIX}{other}"), other.clone()));
    let all = ours.chain(old).chain(others);
    let near = all.map(|(spelt, meant)| (osa_distance(&spelt, name), meant)).min()?;
    let extended = read.iter().find(|other| other.starts_with(PREFIX) && (name.starts_with(*other)));
    (near.0 <= 2.max(rest.len() / 3)).then_some(near.1).or_else(|| extended.cloned())
}

/// The known name that a name without our prefix closely resembles.
fn resembled(name: &str, read: &BTreeSet<String>) -> Option<String> {
    let others =
        read.iter().filter(|name| !name.starts_with(PREFIX)).map(|name| (name.clone(), name.clone()));
    let all = old().map(|old| (old.to_owned(), renamed(old))).chain(others);
    let near = |spelt: &str| {
        // OpenTelemetry has many names that are nearly the same.
        let most = if spelt.len() < 10 || spelt.starts_with("OTEL_") { 1 } else { 2 };
        let ending = name.strip_prefix(spelt).is_some_and(|ending| ending.len() <= ENDING);
        let distance = osa_distance(spelt, name);
        (spelt.len() >= SHORT && (distance <= most || ending)).then_some(distance)
    };
    all.filter_map(|(spelt, meant)| Some((near(&spelt)?, meant))).min().map(|(_, meant)| meant)
}

/// Whether this is one of the variables that Kubernetes injects for a Service, as `NAME_PORT_80_TCP_ADDR`.
fn of_kubernetes(name: &str, value: &str) -> bool {
    let address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && address)
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
            name.split_once("_PORT_").is_some_and(|(_, rest)| {
                rest.starts_with(|c: char| c.is_ascii_digit()) && rest.contains(protocol)
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn misspelt(names: &[&str]) -> Misspelt {
        let read =
            ["GW_GRPC_ADDR", "GW_MAX_IN_FLIGHT", "NATS_URL", "NATS_CERT", "RUST_LOG"].map(str::to_owned);
        let environment = names.iter().map(|name| ((*name).to_owned(), "tcp://10.0.0.1:1".to_owned()));
        Misspelt::of(&environment.collect(), &read.into_iter().collect())
    }

    #[test]
    fn a_name_with_our_prefix_that_nobody_knows_is_a_fault_with_the_nearest_name() {
        for (wrong, meant) in [
            ("GW_GRPC_ADR", "GW_GRPC_ADDR"),
            ("GW_GRPC_ADDRESS", "GW_GRPC_ADDR"),
            ("GW_MAX_INFLIGHT", "GW_MAX_IN_FLIGHT"),
            ("GW_GATEWAY_THREADS", "GW_THREADS"),
            ("GW_NATS_URL", "NATS_URL"),
        ] {
            let found = misspelt(&[wrong]);
            let [fault] = &found.faults[..] else { panic!("{wrong}: {found:?}") };
            assert!(fault.contains(&format!("did you mean {meant}?")), "{fault}");
        }
        let nothing = misspelt(&["GW_COLOUR_OF_THE_SKY"]);
        assert!(!nothing.faults[0].contains("did you mean"), "{nothing:?}");
    }

    #[test]
    fn a_name_without_the_prefix_that_resembles_one_is_warned_of() {
        for (wrong, meant) in [
            ("GRPC_ADR", "GW_GRPC_ADDR"),
            ("GRPC_ADDRESS", "GW_GRPC_ADDR"),
            ("MAX_INFLIGHT", "GW_MAX_IN_FLIGHT"),
            ("NATS_URLS", "NATS_URL"),
        ] {
            let found = misspelt(&[wrong]);
            assert!(found.faults.is_empty() && found.warnings[0].contains(meant), "{wrong}: {found:?}");
        }
    }

    #[test]
    fn what_is_known_or_not_ours_is_not_told_of() {
        let names = [
            "GRPC_ADDR",
            "GW_BATCH",
            "GW_CONFIG",
            "NATS_URL",
            "PATH",
            "HOME",
            "LANG",
            "NATS_CONTEXT",
            "PATCH",
        ];
        let kubernetes =
            ["GW_SERVICE_HOST", "GW_SERVICE_PORT_GRPC", "GW_PORT", "GW_PORT_50051_TCP_ADDR", "NATS_PORT"];
        let found = misspelt(&[&names[..], &kubernetes].concat());
        assert!(found.faults.is_empty() && found.warnings.is_empty(), "{found:?}");
    }
}
