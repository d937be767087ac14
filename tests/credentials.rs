//! Ways to authenticate to a nats-server, each against a server that requires it.

use std::path::PathBuf;

use local_nats::Server;
use nats::{Connection, Options};
use tempfile::TempDir;

use crate::harness::system::until;

/// A key pair for these tests alone.
const SEED: &str = "SUANQDPB2RUOE4ETUA26CNX7FUKE5ZZKFCQIIW63OX225F2CO7UEXTM7ZY";

async fn server(config: &str) -> Server {
    let options = local_nats::Options { config: Some(config.to_owned()), ..Default::default() };
    tokio::task::spawn_blocking(|| Server::with(options)).await.unwrap().expect("a nats-server")
}

fn file(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

/// Whether the server accepts the options after a change.
async fn connects(nats: &Server, change: impl FnOnce(&mut Options)) -> Result<(), String> {
    let mut options = Options::at(nats.url());
    change(&mut options);
    Connection::connect(&options, "a test").await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_seed_in_a_file_says_who_we_are() {
    let public = nkeys::KeyPair::from_seed(SEED).unwrap().public_key();
    let nats = server(&format!("authorization {{ users: [ {{ nkey: {public} }} ] }}")).await;
    let (_folder, path) = file(&format!("# the gateway's\n{SEED}\n{public}\n"));
    connects(&nats, |options| options.nkey = Some(path)).await.unwrap();
    let (_folder, path) = file(&nkeys::KeyPair::new_user().seed().unwrap());
    let refused = connects(&nats, |options| options.nkey = Some(path)).await.unwrap_err();
    assert!(refused.contains("authorization violation") && refused.contains("NATS_NKEY"), "{refused}");
}

#[tokio::test]
async fn a_token_says_who_we_are_from_a_file_or_the_environment() {
    let nats = server("authorization { token: \"hush\" }").await;
    let (_folder, path) = file("hush\n");
    connects(&nats, |options| options.token_file = Some(path)).await.unwrap();
    connects(&nats, |options| options.token = Some("hush".to_owned().into())).await.unwrap();
    connects(&nats, |options| options.token = Some("hash".to_owned().into())).await.unwrap_err();
    connects(&nats, |_| {}).await.unwrap_err();
}

#[tokio::test]
async fn a_password_may_be_in_a_file() {
    let nats = server("authorization { users: [ { user: ann, password: \"hush hush\" } ] }").await;
    let (_folder, path) = file("hush hush\n");
    let by = |path| {
        move |options: &mut Options| {
            (options.user, options.password_file) = (Some("ann".to_owned()), Some(path))
        }
    };
    connects(&nats, by(path)).await.unwrap();
    let (_folder, path) = file("hush");
    connects(&nats, by(path)).await.unwrap_err();
}

#[tokio::test]
async fn a_password_that_changed_in_its_file_is_the_one_of_the_next_connection() {
    let users = |password| format!("authorization {{ users: [ {{ user: ann, password: {password} }} ] }}");
    let (mut old, new) = (server(&users("old")).await, server(&users("new")).await);
    let (_folder, path) = file("old");
    let mut options = Options::at(format!("{},{}", old.url(), new.url()));
    (options.user, options.password_file) = (Some("ann".to_owned()), Some(path.clone()));
    // The library starts at any of the servers, and gives up at one that rejects its credentials.
    let mut link = Connection::connect(&options, "a test").await;
    while link.is_err() {
        link = Connection::connect(&options, "a test").await;
    }
    let link = link.unwrap();
    old.kill();
    until("it is told why", async || link.absence().contains("authorization violation")).await;
    std::fs::write(&path, "new").unwrap();
    until("it is let in", async || link.connected()).await;
    assert_eq!(link.absence(), "not connected to NATS");
}

#[tokio::test]
async fn two_ways_at_once_are_refused_before_anything_is_sent() {
    let nats = server("authorization { token: \"hush\" }").await;
    let refused = connects(&nats, |options| {
        options.token = Some("hush".to_owned().into());
        options.user = Some("ann".to_owned());
    });
    let refused = refused.await.unwrap_err();
    assert!(refused.contains("NATS_USER and NATS_TOKEN both authenticate us"), "{refused}");
}
