//! Whether the gateway may listen on non-loopback addresses as it is configured. Must not look at more than flags.

use anyhow::bail;
use server::Current;
use server::security::{self, TlsAndAuth, Upkeep};

use super::Serve;

impl Serve {
    /// Reads the files of TLS and authentication, and returns the tasks that keep them up to date.
    pub(crate) async fn open_security(&self, current: &Current) -> anyhow::Result<(TlsAndAuth, Upkeep)> {
        self.check_exposure()?;
        self.warn_of_exposed_secrets();
        // The limit of handshakes is divided among the threads, at least one each.
        let handshakes = (self.limits.max_handshakes as usize).div_ceil(self.thread_count());
        security::open(&self.access, &self.tls, handshakes, current).await
    }

    /// Refuses non-loopback addresses without TLS or without authentication, unless `--insecure` is given.
    pub(crate) fn check_exposure(&self) -> anyhow::Result<()> {
        if !self.http_addr.ip().to_canonical().is_loopback() {
            tracing::info!(
                http = %self.http_addr,
                console = self.console(),
                "other machines can read the metrics without credentials (GW_HTTP_ADDR)"
            );
        }
        let mut missing = Vec::new();
        if self.tls.tls_cert.is_none() {
            missing.push("TLS is not configured (GW_TLS_CERT, GW_TLS_KEY)");
        }
        if !self.access.required() {
            missing.push("callers are not authenticated (GW_JWT_JWKS, GW_JWT_SECRET_FILE, GW_API_KEYS, or GW_TLS_CLIENTS or GW_TLS_CLIENT_SCOPES with GW_TLS_CLIENT_CA)");
        }
        let exposed = !self.grpc_addr.ip().to_canonical().is_loopback();
        if !exposed || missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", and ");
        if self.access.insecure {
            tracing::warn!(grpc = %self.grpc_addr, "other machines can connect although {missing}");
            return Ok(());
        }
        bail!(
            "other machines can connect to {}, but {missing}. Configure what is missing, listen on 127.0.0.1 \
             only (GW_GRPC_ADDR), or allow it with --insecure (GW_INSECURE=true)",
            self.grpc_addr
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(address: &str, change: impl FnOnce(&mut Serve)) -> Result<(), String> {
        let mut config = Serve::at("nats://127.0.0.1:4222");
        config.grpc_addr = address.parse().unwrap();
        change(&mut config);
        config.check_exposure().map_err(|error| error.to_string())
    }

    fn tls(config: &mut Serve) {
        config.tls.tls_cert = Some("cert.pem".into());
    }

    fn keys(config: &mut Serve) {
        config.access.api_keys = Some("keys".into());
    }

    #[test]
    fn other_machines_are_served_with_tls_and_known_callers_or_on_purpose() {
        for loopback in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            serve(loopback, |_| {}).unwrap();
        }
        for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[2001:db8::1]:1"] {
            let nothing = serve(open, |_| {}).unwrap_err();
            assert!(nothing.contains("GW_TLS_CERT") && nothing.contains("GW_API_KEYS"), "{nothing}");
            assert!(nothing.contains("--insecure") && nothing.contains("GW_GRPC_ADDR"), "{nothing}");
            let half = serve(open, tls).unwrap_err();
            assert!(!half.contains("GW_TLS_CERT") && half.contains("GW_API_KEYS"), "{half}");
            let half = serve(open, keys).unwrap_err();
            assert!(half.contains("GW_TLS_CERT") && !half.contains("GW_API_KEYS"), "{half}");
            serve(open, |config| (tls(config), keys(config)).0).unwrap();
            serve(open, |config| config.access.insecure = true).unwrap();
        }
    }
}
