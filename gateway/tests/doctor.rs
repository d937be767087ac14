//! `gateway doctor`: its exit code, and what it prints.

use serde_json::Value;

use crate::GATEWAY;
use crate::harness::command::{Ended, program, run};

const BOOKSTORE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/books.proto");

/// `gateway doctor` for the bookstore, with these arguments.
fn doctor(nats: &local_nats::Server, arguments: &[&str]) -> Ended {
    run(program(GATEWAY, &["doctor", "--proto", BOOKSTORE, "--nats-url", &nats.url()]).args(arguments))
}

#[test]
fn the_exit_code_is_1_for_an_error_and_0_for_a_warning_and_for_what_is_not_known() {
    let config = Some("max_payload: 65536".to_owned());
    let nats = local_nats::Server::with(local_nats::Options { config, ..Default::default() }).unwrap();
    let warned = doctor(&nats, &[]);
    assert_eq!(warned.code, Some(0), "{warned:?}");
    let lines: Vec<_> = warned.out.lines().collect();
    assert!(
        lines[0].starts_with("warning: payload: ") && lines[1].starts_with("not looked at: responders: ")
    );
    assert_eq!(lines[2..], ["1 finding: 0 errors, 1 warning; 1 thing not looked at"]);
    let failed = doctor(&nats, &["--nats-monitor-url", &nats.monitor_url()]);
    assert_eq!((failed.code, failed.err.as_str()), (Some(1), "error: 1 error must be cured\n"), "{failed:?}");
}

#[test]
fn as_json_it_is_one_object() {
    let nats = local_nats::Server::start().unwrap();
    let ended = doctor(&nats, &["--json", "--nats-monitor-url", &nats.monitor_url()]);
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    let finding = &told["findings"][0];
    assert_eq!((ended.code, &told["errors"], &told["routes"]), (Some(1), &1.into(), &1.into()));
    assert_eq!((&finding["check"], &finding["severity"]), (&"responders".into(), &"error".into()));
    assert_eq!(
        (&finding["route"], &finding["subject"]),
        (&"bookstore.v1.Books/GetBook".into(), &"books.get".into())
    );
    assert!(finding["cure"].as_str().unwrap().contains("start the service"), "{finding}");
}

#[test]
fn without_a_server_it_says_so_in_time() {
    let arguments = ["doctor", "--within=5", "--proto", BOOKSTORE, "--nats-url=nats://127.0.0.1:1"];
    let ended = run(&mut program(GATEWAY, &arguments));
    assert!(ended.code == Some(1) && ended.err.contains("cannot connect to NATS"), "{ended:?}");
}
