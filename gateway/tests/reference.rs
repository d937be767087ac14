//! Documents that are generated from the definitions of the flags.

use clap::CommandFactory as _;
use gateway::commands::Cli;

use crate::GATEWAY;
use crate::harness::command::{program, run};

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");

#[test]
fn the_reference_of_the_configuration_is_that_of_the_flags() {
    let wanted = cli::reference::markdown(vec![Cli::command(), inventory_worker::config::Cli::command()]);
    let found = std::fs::read_to_string(REFERENCE).unwrap_or_default();
    if found != wanted {
        let made = concat!(env!("CARGO_TARGET_TMPDIR"), "/configuration.md");
        std::fs::write(made, wanted).unwrap();
        panic!("docs/configuration.md is not current: cp {made} docs/");
    }
}

#[test]
fn completions_and_manual_pages_are_of_all_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = run(&mut program(GATEWAY, &["completions", shell]));
        assert!(ended.code == Some(0) && ended.out.contains("dead-letters"), "{shell}: {}", ended.err);
    }
    let page = run(&mut program(GATEWAY, &["man"]));
    assert!(page.code == Some(0) && page.out.contains(".TH gateway") && page.out.contains("GW_GRPC_ADDR"));
    let folder = tempfile::tempdir().unwrap();
    let ended = run(program(GATEWAY, &["man"]).arg(folder.path()));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(folder.path().join("gateway-config-check.1").exists());
}
