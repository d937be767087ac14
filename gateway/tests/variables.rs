//! Environment variables of flags.

use clap::CommandFactory as _;
use gateway::commands::Cli;

use crate::GATEWAY;
use crate::harness::command::{program, run};
use crate::harness::variables::{Ways, all_are_known, emptied, reads_an_old_name_and_refuses_two_values};
use crate::harness::version;

const CREDENTIALS: &str = "--nats-creds=/nowhere/creds";
const PREFIX: &str = "--nats-inbox-prefix=*";
/// Any free ports.
const PORTS: [&str; 2] = ["--grpc-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0"];
/// An address without a listener.
const NOBODY: &str = "127.0.0.1:1";

fn ways(names: &[&str]) -> Ways {
    let more: &[&str] = match names {
        [] | ["serve"] => &PORTS,
        ["provision"] | ["doctor"] | ["reconcile"] | ["dead-letters", "list"] | ["config", "check"] => &[],
        ["backup" | "restore"] => &["/nowhere/folder"],
        ["dead-letters", "show" | "replay"] => &["1"],
        ["dead-letters", "discard"] => &["1", "--why=test"],
        ["routes", "check" | "list" | "permissions"] => {
            return [vec!["/nowhere/a.proto"], vec!["/nowhere/a.binpb"]];
        }
        ["catalog", "create" | "list" | "status"] => &["--catalog-bucket=contracts"],
        ["catalog", "pull"] => &["books", "--catalog-bucket=contracts"],
        ["catalog", "push"] => &["books", "/nowhere/a.proto", "--catalog-bucket=contracts"],
        ["routes", "export"] => return [vec!["/dev/null/a"], vec!["/dev/null/b"]],
        ["man"] => return [vec![], vec![]],
        ["completions"] => return [vec!["bash"], vec!["zsh"]],
        ["healthcheck"] => return [vec!["--addr", NOBODY], vec!["--health-addr", NOBODY]],
        // Invalid names.
        ["keys", "new"] => return [vec!["?", "--scopes=a"], vec!["", "--scopes=a"]],
        // Addresses of another machine.
        ["dev"] => {
            let address = "192.0.2.1:1";
            return [vec!["--insecure", "--grpc-addr", address], vec!["--http-addr", address]];
        }
        ["worker"] => return [vec!["--nats-url=nats://127.0.0.1:1"], vec!["--nats-url=nonsense://"]],
        other => panic!("say how {other:?} is ended right after its arguments were read"),
    };
    [[more, &[CREDENTIALS]].concat(), [more, &[PREFIX]].concat()]
}

#[test]
fn a_variable_that_is_set_and_empty_is_not_set() {
    assert!(emptied(GATEWAY, Cli::command(), ways) > 40);
}

#[test]
fn a_bad_value_is_named_by_its_flag_and_its_variable() {
    for (variable, flag) in [
        ("GW_NATS_CONNECT_TIMEOUT", "--nats-connect-timeout"),
        ("GW_GRPC_ADDR", "--grpc-addr"),
        ("GW_PROVISION", "--provision"),
        ("GW_CONSOLE", "--console"),
        ("GW_INSECURE", "--insecure"),
        ("GW_JWT_ALGORITHMS", "--jwt-algorithms"),
        ("GW_LOG_FORMAT", "--log-format"),
    ] {
        let ended = run(program(GATEWAY, &["serve"]).env(variable, "maybe not"));
        let named = ended.err.contains(variable) && ended.err.contains(flag);
        assert!(ended.code == Some(2) && named && ended.err.contains("maybe not"), "{}", ended.err);
    }
}

#[test]
fn what_one_variable_needs_is_named_by_both_as_well() {
    let ended = run(program(GATEWAY, &["serve"]).env("GW_TLS_CERT", "cert.pem"));
    assert!(ended.err.contains("--tls-key") && ended.err.contains("GW_TLS_KEY"), "{}", ended.err);
}

#[test]
fn help_and_errors_show_no_secret_of_a_variable() {
    let secret = "https://ann:hush@example.com/";
    for arguments in [["serve", "--help"].as_slice(), &["serve"]] {
        let mut command = program(GATEWAY, arguments);
        for variable in ["NATS_URL", "GW_NATS_MONITOR_URL", "GW_JWT_JWKS", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
            command.env(variable, secret);
        }
        let ended = run(&mut command);
        assert!(!ended.out.contains("hush") && !ended.err.contains("hush"), "{ended:?}");
    }
}

#[test]
fn no_log_shows_the_password_in_a_url_and_as_an_argument_it_is_warned_of() {
    let config = r#"accounts { A { jetstream: enabled, users: [ { user: "ann", password: "hu@sh" } ] } }"#;
    let options = local_nats::Options { config: Some(config.to_owned()), ..Default::default() };
    let nats = local_nats::Server::with(options).unwrap();
    let url = nats.url().replace("nats://", "nats://ann:hu%40sh@");
    for (arguments, warned) in [(["--log=trace", "--replicas=1"], false), (["--nats-url", &url], true)] {
        let arguments = [["provision"].as_slice(), &arguments].concat();
        let ended = run(program(GATEWAY, &arguments).env("NATS_URL", &url));
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        let shown =
            [&ended.out, &ended.err].iter().any(|text| text.contains("hu%40sh") || text.contains("hu@sh"));
        assert!(!shown, "{ended:?}");
        assert_eq!(
            ended.err.contains("--nats-url has a URL with a user or a password"),
            warned,
            "{}",
            ended.err
        );
    }
}

#[test]
fn a_secret_that_everybody_may_read_is_warned_of_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let config = "authorization { users: [ { user: ann, password: hush } ] }".to_owned();
    let options = local_nats::Options { config: Some(config), ..Default::default() };
    let nats = local_nats::Server::with(options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, mode| {
        let path = folder.path().join(name);
        std::fs::write(&path, "hush").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    for (mode, warnings) in [(0o644, 2), (0o640, 0)] {
        let mut command = program(GATEWAY, &["serve", "--insecure", "--threads=4", "--tls-cert=/nowhere"]);
        command.args(PORTS);
        command.env("GW_JWT_SECRET_FILE", file("secret", mode)).env("GW_TLS_KEY", file("key", mode));
        // It exits because the secret is too short.
        let mut said = run(&mut command).err.matches("every user of this machine may read it").count();
        assert_eq!(said, warnings, "{mode:o}");
        let password = file("password", mode);
        let mut command = program(GATEWAY, &["provision"]);
        command.envs([("NATS_URL", nats.url()), ("NATS_USER", "ann".to_owned())]);
        let ended = run(command.env("GW_NATS_PASSWORD_FILE", password));
        said = ended.err.matches("every user of this machine may read it").count();
        assert_eq!((ended.code, said), (Some(0), warnings / 2), "{mode:o}: {}", ended.err);
    }
}

#[test]
fn the_old_name_of_a_variable_is_read_and_warned_of_and_two_values_are_refused() {
    reads_an_old_name_and_refuses_two_values(GATEWAY, &PORTS);
}

#[test]
fn the_version_has_the_commit() {
    version::says_its_version_and_commit(GATEWAY, "gateway");
}

#[test]
fn each_program_knows_the_variables_of_the_other() {
    all_are_known(&Cli::command());
}
