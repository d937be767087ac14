//! https: whom the client trusts, and what it says where it does not.

use http::Uri;
use rcgen::date_time_ymd;

use super::server::{Authority, Server};
use super::{LIMITS, assert_failed, get, ok, plain};
use crate::{Client, HttpErrorKind, Limits, Proxies, Trust};

/// The variable that errors name.
const CA: &str = "EXAMPLE_CA";

/// A client that trusts this authority alone.
pub(super) fn trusting(authority: &Authority) -> Client {
    trusting_within(LIMITS, authority)
}

pub(super) fn trusting_within(limits: Limits, authority: &Authority) -> Client {
    let trust = Trust::of(Some(authority.pem().as_bytes()), CA).unwrap();
    Client::new(trust, limits).with_proxies(Proxies::of(|_| None))
}

fn secure(server: &Server) -> String {
    format!("https://localhost:{}/keys", server.address.port())
}

#[tokio::test]
async fn a_server_whose_certificate_the_given_ca_signed_is_trusted() {
    let ours = Authority::new();
    let mut server = Server::open_tls(ours.acceptor("localhost", |_| {}), ok(2, b"{}")).await;
    assert_eq!(trusting(&ours).fetch(get(secure(&server))).await.unwrap(), "{}");
    assert!(server.request().await.starts_with("GET /keys HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_refused_with_what_to_change() {
    let (ours, other) = (Authority::new(), Authority::new());
    let expired = |params: &mut rcgen::CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    };
    for (acceptor, word) in [
        (other.acceptor("localhost", |_| {}), CA),
        (ours.acceptor("elsewhere", |_| {}), "a name that is in the certificate"),
        (ours.acceptor("localhost", expired), "renewed"),
    ] {
        let server = Server::open_tls(acceptor, ok(2, b"{}")).await;
        let refused = trusting(&ours).fetch(get(secure(&server))).await;
        assert_failed(refused, HttpErrorKind::Tls, &["is not trusted", word]);
    }
}

#[tokio::test]
async fn http_where_https_is_meant_and_the_other_way_round_is_said() {
    let ours = Authority::new();
    let server = Server::open(ok(2, b"{}")).await;
    let failed = trusting(&ours).fetch(get(secure(&server))).await;
    drop(server);
    assert_failed(failed, HttpErrorKind::Tls, &["must begin with http://"]);
    let server = Server::open_tls(ours.acceptor("localhost", |_| {}), ok(2, b"{}")).await;
    let failed = plain(LIMITS).fetch(get(server.url("/"))).await;
    assert_failed(failed, HttpErrorKind::Malformed, &["https:// if the port uses TLS"]);
}

#[test]
fn a_file_without_a_valid_ca_certificate_is_refused_by_its_variable() {
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for text in ["", "nothing of the kind\n", broken] {
        let refused = Trust::of(Some(text.as_bytes()), CA).unwrap_err().to_string();
        assert!(refused.contains(CA), "{refused}");
    }
}

#[test]
fn https_can_be_used_with_ca_certificates_alone() {
    let url = Uri::from_static("https://127.0.0.1:1/");
    trusting(&Authority::new()).check(&url).unwrap();
    assert_failed(plain(LIMITS).check(&url), HttpErrorKind::Setting, &["CA certificates"]);
}
