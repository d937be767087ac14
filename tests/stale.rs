//! Access files that cannot be read or have invalid lines: revoked credentials stay revoked.

use std::path::PathBuf;
use std::time::Duration;

use server::auth::apikey;
use server::config::access::Access;
use server::config::tls::ClientAuth;
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::harness::auth::{AuthGateway, request};
use crate::harness::codec::ask;
use crate::harness::http::get;
use crate::harness::issuer::{Issuer, Sign};
use crate::harness::status::{assert_failure, assert_retryable};
use crate::harness::system::{System, until};
use crate::harness::tls::{TlsSystem, list};

const CHECK: &str = "/orders.v1.OrderService/CheckInventory";

/// A list of API keys.
struct Keys {
    folder: TempDir,
    file: PathBuf,
}

impl Keys {
    fn new() -> Keys {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        Keys { folder, file }
    }

    fn write(&self, lines: &[&str]) {
        let next = self.folder.path().join("next");
        std::fs::write(&next, lines.join("\n")).unwrap();
        std::fs::rename(&next, &self.file).unwrap();
    }

    fn access(&self, max_stale: u64) -> Access {
        Access {
            api_keys: Some(self.file.clone()),
            auth_max_stale: Duration::from_secs(max_stale),
            ..Access::default()
        }
    }
}

fn made(name: &str) -> (String, String) {
    let new = apikey::new(&orders::served::contract(), name, &["inventory.check".to_owned()], None).unwrap();
    (new.key.to_string(), new.line)
}

async fn check(guarded: &AuthGateway, name: &'static str, value: &str) -> Result<(), Status> {
    ask(&guarded.channel, CHECK, request(CHECK, "", ""), &[(name, value)]).await.map(drop)
}

fn refused(answer: &Result<(), Status>, code: Code) -> bool {
    answer.as_ref().is_err_and(|status| status.code() == code)
}

#[tokio::test]
async fn a_bad_line_keeps_no_key_alive_that_was_taken_off_the_list() {
    let system = System::builder().start().await;
    let keys = Keys::new();
    let ((one, first), (two, second), (bad, third)) = (made("one"), made("two"), made("bad"));
    keys.write(&[&first, &second, &third]);
    let guarded = AuthGateway::start(&system, keys.access(600)).await;
    for key in [&one, &two, &bad] {
        check(&guarded, "x-api-key", key).await.unwrap();
    }
    keys.write(&["nonsense", &second, &third.replace("inventory.check", "inventory.chek")]);
    for gone in [&one, &bad] {
        let is_gone = async || refused(&check(&guarded, "x-api-key", gone).await, Code::Unauthenticated);
        until("the key is gone", is_gone).await;
    }
    check(&guarded, "x-api-key", &two).await.unwrap();
    // Also the last key of a list, if the rest is a comment or invalid.
    for rest in ["# nobody", "nonsense"] {
        keys.write(&[rest]);
        let is_gone = async || refused(&check(&guarded, "x-api-key", &two).await, Code::Unauthenticated);
        until("the last key is gone", is_gone).await;
        keys.write(&[&second]);
        until("it is back", async || check(&guarded, "x-api-key", &two).await.is_ok()).await;
    }
}

#[tokio::test]
async fn keys_whose_list_cannot_be_read_are_good_for_a_while_and_then_no_longer() {
    let system = System::builder().start().await;
    let keys = Keys::new();
    let (key, line) = made("till");
    keys.write(&[&line]);
    let guarded = AuthGateway::start(&system, keys.access(4)).await;
    check(&guarded, "x-api-key", &key).await.unwrap();
    // A missing list, and one that is not text.
    for nonsense in [None, Some("nonsense\0")] {
        std::fs::remove_file(&keys.file).unwrap();
        if let Some(text) = nonsense {
            keys.write(&[text]);
        }
        check(&guarded, "x-api-key", &key).await.unwrap();
        let closed = async || refused(&check(&guarded, "x-api-key", &key).await, Code::Unavailable);
        until("nobody is let in", closed).await;
        let failure = check(&guarded, "x-api-key", &key).await;
        assert_retryable(&assert_failure(failure, Code::Unavailable, "KEYS_UNAVAILABLE", "no"));
        keys.write(&[&line]);
        until("it is read again", async || check(&guarded, "x-api-key", &key).await.is_ok()).await;
    }
}

#[tokio::test]
async fn tokens_whose_keys_cannot_be_read_are_good_for_a_while_and_then_no_longer() {
    let system = System::builder().start().await;
    for (sign, kid) in [(Sign::Es256, "ec"), (Sign::Hs256, "any")] {
        let issuer = Issuer::new();
        let access = Access { auth_max_stale: Duration::from_secs(3), ..issuer.access() };
        let guarded = AuthGateway::start(&system, access.clone()).await;
        let secret = matches!(sign, Sign::Hs256);
        let bearer = format!("Bearer {}", issuer.token(|token| token.sign(sign, kid)));
        check(&guarded, "authorization", &bearer).await.unwrap();
        let jwks = access.jwt_jwks.map(|place| match place {
            server::config::access::Place::File(path) => path,
            server::config::access::Place::Url(url) => panic!("{url}"),
        });
        let file = if secret { access.jwt_secret_file } else { jwks };
        std::fs::remove_file(file.unwrap()).unwrap();
        let closed = async || refused(&check(&guarded, "authorization", &bearer).await, Code::Unavailable);
        until("nobody is let in", closed).await;
    }
}

#[tokio::test]
async fn certificates_whose_authority_or_list_cannot_be_read_are_good_for_a_while_and_a_figure_says_how_long()
{
    let name = "spiffe://here/system";
    for file in ["clients.crt", "names"] {
        let tls = TlsSystem::start(Some(ClientAuth::Required), |config, folder| {
            let names = folder.join("names");
            std::fs::write(&names, format!("{name} orders.read\n")).unwrap();
            config.access = Access {
                tls_clients: Some(names),
                auth_max_stale: Duration::from_secs(4),
                ..Access::default()
            };
        })
        .await;
        let channel = tls.connect(Some(&tls.clients.client(name))).await.unwrap();
        list(channel.clone()).await.unwrap();
        std::fs::remove_file(tls.folder.path().join(file)).unwrap();
        let closed = async || refused(&list(channel.clone()).await, Code::Unavailable);
        until("nobody is let in", closed).await;
        let page = get(tls.system.gateways[0].http_addr(), "/metrics").await;
        let source = if file == "names" { "tls_clients" } else { "tls_client_ca" };
        let line = format!("gateway_auth_age_seconds{{source=\"{source}\"}} ");
        let age: f64 = page.lines().find_map(|found| found.strip_prefix(&line)).unwrap().parse().unwrap();
        assert!(age > 4.0, "{age}");
        assert!(page.contains(&format!("gateway_auth_age_limit_seconds{{source=\"{source}\"}} 5")), "{page}");
    }
}
