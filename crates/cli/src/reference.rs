//! Generates the configuration reference from the definitions of the flags. Must not add anything to them.

use std::fmt::Write as _;

use clap::{Arg, Command};

use crate::leaf::{key, variable};
use crate::variables::{old, renamed};

/// The part that applies to all programs.
const HEAD: &str = "# Configuration\n\n\
    Generated from the definitions of the flags; a test compares the two. `gateway --help` and `inventory-worker --help` show the same.\n\n\
    - A flag overrides its environment variable, the variable overrides the file, and the file overrides the default. An empty variable counts as unset.\n\
    - The file is TOML (`--config FILE`, `GW_CONFIG`): one key per flag, with `_` for `-`, as in `grpc_addr = \"127.0.0.1:50051\"`; lists as `[\"a\", \"b\"]`. Unknown keys are refused with their line.\n\
    - Durations have units: `250ms`, `20s`, `15m`, `24h`; so do sizes: `64KiB`, `1MiB`. A bare number is in the old unit: bytes, seconds, hours for `GW_ID_HORIZON`, milliseconds for `GW_EXPIRY_INTERVAL` and `GW_NATS_CONNECT_TIMEOUT`.\n\
    - Our own variables begin with `GW_`; an unknown one is refused, with the most similar known name. Those of the nats CLI and of OpenTelemetry keep their names.\n\
    - `gateway config check` and `inventory-worker config check` list all faults without serving or connecting, and exit with 1 if there are any; with `--print` they print the effective settings and their sources.\n\
    - `NATS_PASSWORD` and `NATS_TOKEN` are secrets, and have neither a flag nor a key.\n";

/// The reference of these programs, as Markdown.
pub fn markdown(programs: Vec<Command>) -> String {
    let mut text = HEAD.to_owned();
    for mut program in programs {
        program.build();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n## {}\n\n| flag, key | variable | default | |\n|---|---|---|---|\n",
            program.get_name()
        );
        program.get_arguments().filter_map(row).for_each(|row| text.push_str(&row));
    }
    text.push_str(
        "\n## Old names\n\nThey still work, with a warning in the log.\n\n| name | old name |\n|---|---|\n",
    );
    for old in old() {
        let _ = writeln!(text, "| `{}` | `{old}` |", renamed(old));
    }
    text
}

fn row(arg: &Arg) -> Option<String> {
    let (variable, _) = (variable(arg)?, key(arg)?);
    let names = arg.get_value_names().filter(|_| arg.get_action().takes_values()).unwrap_or_default();
    let names: Vec<String> = names.iter().map(|name| format!(" {}", name.replace('|', "\\|"))).collect();
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let hidden = arg.get_possible_values();
    let possible: Vec<&str> = hidden.iter().map(clap::builder::PossibleValue::get_name).collect();
    let possible = match possible.is_empty() || !arg.get_action().takes_values() {
        true => String::new(),
        false => format!(": {}", possible.join(", ")),
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let flag = arg.get_long()?;
    Some(format!(
        "| `--{flag}`{} | `{variable}` | {} | {help}{possible} |\n",
        names.concat(),
        defaults.join(",")
    ))
}
