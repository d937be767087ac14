//! The reference of a program's configuration, made of the definitions of its flags. Must never say what these do not.

use std::fmt::Write as _;

use clap::{Arg, Command};

use crate::leaf::{key, variable};
use crate::variables::{old, renamed};

/// What is said of all programs.
const HEAD: &str = "# Configuration\n\n\
    Made of the definitions of the flags; a test holds it to them. `gateway --help` and `inventory-worker --help` say the same.\n\n\
    - A flag goes before its environment variable, that before the file, that before the default. A variable that is set and empty is not set.\n\
    - The file is TOML (`--config FILE`, `GW_CONFIG`): one key per flag, with `_` for `-`, as in `grpc_addr = \"127.0.0.1:50051\"`; lists as `[\"a\", \"b\"]`. What is not known is refused with its line.\n\
    - Durations have units: `250ms`, `20s`, `15m`, `24h`; so have sizes: `64KiB`, `1MiB`. A bare number is in the unit of before: bytes, seconds, hours for `GW_ID_HORIZON`, milliseconds for `GW_EXPIRY_INTERVAL` and `GW_NATS_CONNECT_TIMEOUT`.\n\
    - Our own variables begin with `GW_`; one that begins so and is not known is refused with the nearest that is. Those of the nats CLI and of OpenTelemetry keep their names.\n\
    - `gateway config check` and `inventory-worker config check` list all that is wrong, without serving or connecting, and end with 1 if anything is; with `--print` they print what is in force and where it is from.\n\
    - `NATS_PASSWORD` and `NATS_TOKEN` are secrets, and have neither a flag nor a key.\n";

/// The reference of some programs, as Markdown.
pub fn markdown(programs: Vec<Command>) -> String {
    let mut text = HEAD.to_owned();
    for mut program in programs {
        program.build();
        // What cannot be written to a text is written to nothing.
        let _ = write!(
            text,
            "\n## {}\n\n| flag, key | variable | default | |\n|---|---|---|---|\n",
            program.get_name()
        );
        program.get_arguments().filter_map(row).for_each(|row| text.push_str(&row));
    }
    text.push_str("\n## Names of before\n\nThey are read still, with a warning in the log.\n\n| now | before |\n|---|---|\n");
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
