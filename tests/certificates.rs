//! The metrics that tell when the certificates in use expire.

use rcgen::date_time_ymd;
use server::config::tls::ClientAuth;

use crate::harness::http::get;
use crate::harness::system::until;
use crate::harness::tls::TlsSystem;

/// The first second of 2050 and of 2040, in unix time. A certificate is still valid in the second it names.
const ENDS: [(i32, &str); 2] = [(2050, "2524608001"), (2040, "2208988801")];

#[tokio::test]
async fn a_scrape_tells_when_the_certificates_in_use_end_and_follows_a_new_file() {
    let tls = TlsSystem::start(Some(ClientAuth::Optional), |_, _| {}).await;
    let address = tls.system.gateways[0].http_addr();
    let told = async |certificate: &str, ends: &str| {
        let line =
            format!("tls_certificate_not_after_timestamp_seconds{{certificate=\"{certificate}\"}} {ends}");
        get(address, "/metrics").await.lines().any(|found| found == line)
    };
    assert!(!get(address, "/metrics").await.contains(r#"certificate="none""#));
    for (year, ends) in ENDS {
        let pair = tls.authority.sign(&["localhost"], |params| params.not_after = date_time_ymd(year, 1, 1));
        pair.write(tls.folder.path());
        until("the new certificate is in use", async || told("server", ends).await).await;
    }
    let authority =
        crate::harness::pki::Authority::with(|params| params.not_after = date_time_ymd(2040, 1, 1));
    std::fs::write(tls.folder.path().join("clients.crt"), authority.pem()).unwrap();
    until("the new authority is in use", async || told("client_ca", ENDS[1].1).await).await;
}
