//! The configuration as a whole: flags, environment and file, and the output of `config check`.

use std::path::Path;

use crate::GATEWAY;
use crate::harness::command::{Ended, program, run};

fn check(more: &[&str], set: &[(&str, &str)]) -> Ended {
    run(program(GATEWAY, &[&["config", "check"], more].concat()).envs(set.iter().copied()))
}

/// The problems, each of which is on its own line.
fn problems(ended: &Ended) -> Vec<&str> {
    ended.err.lines().filter_map(|line| line.strip_prefix("- ")).collect()
}

fn file(folder: &Path, text: &str) -> String {
    let path = folder.join("gateway.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_good_configuration_is_good() {
    let ended = check(&[], &[]);
    assert!(ended.code == Some(0) && ended.out.contains("is valid"), "{ended:?}");
}

#[test]
fn all_problems_are_told_at_once() {
    let set = [
        ("GW_GRPC_ADDR", "nonsense"),
        ("GW_MAX_STREAMS", "many"),
        ("GW_MAX_BUFFERED_BYTES", "1KiB"),
        ("GW_TLS_CERT", "/nowhere/cert.pem"),
        ("GW_API_KEYS", "/nowhere/keys"),
        ("GW_JWT_SECRET_FILE", "/nowhere/secret"),
        ("NATS_CA", "/nowhere/ca.pem"),
        ("NATS_CREDS", "/nowhere/creds"),
        ("GW_HTTP_ADRR", "127.0.0.1:1"),
        ("OTEL_TRACES_EXPORTER", "jaeger"),
        ("RUST_LOG", "=====loud"),
    ];
    let ended = check(&[], &set);
    let found = problems(&ended);
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    for (name, _) in set {
        let told = found.iter().filter(|problem| problem.contains(name)).count();
        assert!(told > 0, "{name}: {}", ended.err);
    }
    for words in
        ["did you mean GW_HTTP_ADDR?", "/nowhere/keys", "/nowhere/ca.pem", "GW_TLS_KEY", "GW_JWT_ISSUER"]
    {
        assert!(found.iter().any(|problem| problem.contains(words)), "{words}: {}", ended.err);
    }
}

#[test]
fn a_file_that_should_have_a_certificate_and_has_none_is_refused_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "# no certificate\n");
    let ended = run(program(GATEWAY, &["serve"])
        .envs([("NATS_CA", path.as_str()), ("GW_HTTP_ADDR", "127.0.0.1:0")])
        .env("GW_GRPC_ADDR", "127.0.0.1:0"));
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("NATS_CA") && ended.err.contains(&path), "{}", ended.err);
}

#[test]
fn a_misspelt_variable_ends_the_start_and_one_without_the_prefix_is_warned_of() {
    let ended = run(program(GATEWAY, &["serve"]).env("GW_MAX_INFLIGHT", "9"));
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(
        ended.err.contains("GW_MAX_INFLIGHT") && ended.err.contains("GW_MAX_IN_FLIGHT?"),
        "{}",
        ended.err
    );
    let ended =
        check(&[], &[("MAX_INFLIGHT", "9"), ("GRPC_ADR", "127.0.0.1:1"), ("GW_CLIENT_TOKEN", "hush")]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.err.contains("GW_MAX_IN_FLIGHT?") && ended.err.contains("GW_GRPC_ADDR?"), "{}", ended.err);
}

#[test]
fn a_flag_goes_before_a_variable_before_the_file_before_the_default_and_each_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let text = "max_watches = 5\nmax_streams = 6\nmax_in_flight = 7\nhttp_hosts = ['a', 'b']\ndrain_timeout = '2500ms'\n";
    let path = file(folder.path(), text);
    let set = [
        ("GW_CONFIG", path.as_str()),
        ("GW_MAX_STREAMS", "60"),
        ("MAX_IN_FLIGHT", "70"),
        ("NATS_TOKEN", "hush"),
    ];
    let set = [&set[..], &[("NATS_URL", "nats://ann:hush@one"), ("GW_MAX_REPLY_BYTES", "2097152")]].concat();
    let ended = check(&["--print", "--max-in-flight=700"], &set);
    for line in [
        "max_in_flight = 700  # flag --max-in-flight",
        "max_streams = 60  # environment GW_MAX_STREAMS",
        &format!("max_watches = 5  # file {path}, line 1"),
        &format!("http_hosts = [\"a\", \"b\"]  # file {path}, line 4"),
        &format!("drain_timeout = \"2s 500ms\"  # file {path}, line 5"),
        "max_reply_bytes = \"2MiB\"  # environment GW_MAX_REPLY_BYTES",
        "max_connection_age = \"1h\"  # default",
        "nats_url = \"nats://one\"  # environment NATS_URL",
    ] {
        assert!(ended.out.lines().any(|told| told == line), "{line}\n{}\n{}", ended.out, ended.err);
    }
    assert!(!ended.out.contains("hush") && !ended.err.contains("hush"), "{ended:?}");
}

#[test]
fn what_is_printed_is_a_file_that_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let printed = check(&["--print", "--max-watches=5", "--nest-subjects=a,b", "--insecure"], &[]);
    assert_eq!(printed.code, Some(0), "{}", printed.err);
    let again = check(&["--print", "--config", &file(folder.path(), &printed.out)], &[]);
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  # ").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(values(&printed.out), values(&again.out), "{}", again.err);
}

#[test]
fn what_is_wrong_in_the_file_is_told_with_its_line_and_ends_any_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "grpc_adr = '127.0.0.1:1'\nmax_streams = 'many'\n");
    for command in [&["config", "check"][..], &["serve"], &["provision"]] {
        let ended = run(&mut program(GATEWAY, &[command, &["--config", &path]].concat()));
        let code = if command.len() == 2 { 1 } else { 2 };
        assert_eq!(ended.code, Some(code), "{}", ended.err);
        assert!(
            ended.err.contains("line 1") && ended.err.contains("did you mean grpc_addr?"),
            "{}",
            ended.err
        );
        assert!(command == ["provision"] || ended.err.contains("line 2"), "{}", ended.err);
    }
    let missing = run(&mut program(GATEWAY, &["serve", "--config=/nowhere/gateway.toml"]));
    assert!(missing.code == Some(2) && missing.err.contains("/nowhere/gateway.toml"), "{}", missing.err);
}

#[test]
fn half_of_a_pair_from_the_file_and_the_other_from_the_environment_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "tls_cert = '/nowhere/cert.pem'\n");
    let ended = check(&["--config", &path], &[("GW_TLS_KEY", "/nowhere/key.pem")]);
    let [problem] = &problems(&ended)[..] else { panic!("{}", ended.err) };
    assert!(problem.contains("GW_TLS_CERT") && problem.contains("/nowhere/cert.pem"), "{problem}");
}

#[test]
fn durations_and_sizes_have_units_and_old_numbers_are_read() {
    let set =
        [("GW_DRAIN_TIMEOUT", "20"), ("GW_MAX_CONNECTION_AGE", "90m"), ("GW_MAX_REQUEST_BYTES", "512KiB")];
    let set = [&set[..], &[("NATS_CONNECT_TIMEOUT_MS", "250"), ("GW_AUTH_MAX_STALE", "0")]].concat();
    let ended = check(&["--print"], &set);
    for line in [
        "drain_timeout = \"20s\"  #",
        "max_connection_age = \"1h 30m\"  #",
        "max_request_bytes = \"512KiB\"  #",
        "nats_connect_timeout = \"250ms\"  # environment NATS_CONNECT_TIMEOUT_MS",
        "auth_max_stale = \"0s\"  #",
    ] {
        assert!(ended.out.contains(line), "{line}\n{}\n{}", ended.out, ended.err);
    }
    let bad = check(&[], &[("GW_DRAIN_TIMEOUT", "20 parsecs"), ("GW_MAX_REPLY_BYTES", "1 XiB")]);
    assert!(bad.err.contains("as in 20s") && bad.err.contains("as in 64KiB"), "{}", bad.err);
}
