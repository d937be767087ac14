//! Users, passwords and tokens in NATS_URL, against servers that would use another account without them.

use local_nats::Server;
use nats::{Connection, Options};

use crate::harness::roles::by;

/// Clients without credentials are the guest, in a separate account.
const ACCOUNTS: &str = r#"
    accounts {
        ORDERS { jetstream: enabled, users: [ { user: "ann", password: "p@ss:/,%" } ] }
        GUESTS { jetstream: enabled, users: [ { user: "guest", password: "guest" } ] }
    }
    no_auth_user: "guest"
"#;
const ANN: &str = "ann:p%40ss%3A%2F%2C%25";

async fn server(config: &str) -> Server {
    let options = local_nats::Options { config: Some(config.to_owned()), ..Default::default() };
    tokio::task::spawn_blocking(|| Server::with(options)).await.unwrap().expect("a nats-server")
}

/// The server's URL with this login.
fn url(nats: &Server, login: &str) -> String {
    nats.url().replace("nats://", &format!("nats://{login}@"))
}

async fn connect(url: String) -> Result<Connection, String> {
    Connection::connect(&Options::at(url), "a test").await.map_err(|error| format!("{error} {error:?}"))
}

/// How many of our streams an account has.
async fn streams(link: &Connection) -> usize {
    let js = async_nats::jetstream::new(link.client().clone());
    let mut found = 0;
    for name in order_streams::ALL {
        found += usize::from(js.get_stream(name).await.is_ok());
    }
    found
}

#[tokio::test]
async fn streams_are_made_in_the_account_of_the_user_in_the_url() {
    let nats = server(ACCOUNTS).await;
    let ann = connect(url(&nats, ANN)).await.unwrap();
    order_streams::open(&ann, 1, true).await.unwrap();
    let guest = connect(nats.url()).await.unwrap();
    assert_eq!((streams(&ann).await, streams(&guest).await), (order_streams::ALL.len(), 0));
}

#[tokio::test]
async fn a_wrong_password_in_the_url_is_an_error_and_is_not_shown() {
    let nats = server(ACCOUNTS).await;
    let refused = connect(url(&nats, "ann:hush")).await.err().expect("a refusal");
    assert!(refused.contains("authorization violation") && !refused.contains("hush"), "{refused}");
}

#[tokio::test]
async fn a_token_in_the_url_is_used() {
    let nats = server("authorization { token: \"t@ken\" }").await;
    connect(url(&nats, "t%40ken")).await.unwrap();
    connect(url(&nats, "taken")).await.err().expect("a refusal");
}

#[tokio::test]
async fn every_server_of_the_url_has_the_same_user_or_none_is_asked() {
    let nats = server(ACCOUNTS).await;
    let nobody = format!("nats://{ANN}@127.0.0.1:1");
    connect(format!("{nobody},{}", url(&nats, ANN))).await.unwrap();
    for other in [url(&nats, "ann:hush"), nats.url()] {
        let refused = connect(format!("{nobody},{other}")).await.err().expect("a refusal");
        assert!(refused.contains("different users or tokens") && !refused.contains("hush"), "{refused}");
    }
}

#[tokio::test]
async fn a_user_in_the_url_and_one_elsewhere_are_refused_by_both_names() {
    let nats = server(ACCOUNTS).await;
    let options = by(Options::at(url(&nats, ANN)), "ann", "p@ss:/,%");
    let refused = Connection::connect(&options, "a test").await.err().expect("a refusal").to_string();
    assert!(refused.contains("NATS_USER") && refused.contains("NATS_URL"), "{refused}");
    assert!(!refused.contains("p@ss") && !refused.contains("p%40ss"), "{refused}");
}

#[tokio::test]
async fn a_scheme_that_is_not_spoken_is_refused_by_its_name() {
    for scheme in ["ws", "wss", "http"] {
        let refused = connect(format!("{scheme}://ann:hush@127.0.0.1:1")).await.err().expect("a refusal");
        let named = refused.contains(&format!("{scheme}://")) && refused.contains("NATS_URL");
        assert!(named && !refused.contains("hush"), "{refused}");
    }
}
