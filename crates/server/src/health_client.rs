//! The health client of `gateway healthcheck`. Must not be used for serving.

use std::net::SocketAddr;
use std::time::Duration;

use tonic::Status;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::client::{ClientOptions, Connection, Target};

/// Timeout of a call.
const ANSWER: Duration = Duration::from_secs(20);

/// A connection to a gateway.
pub struct GatewayClient {
    connection: Connection,
    target: Target,
}

impl GatewayClient {
    /// Connects to a loopback address, without TLS.
    ///
    /// # Errors
    /// If the connection fails; the error says what to change.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<GatewayClient> {
        GatewayClient::reach(ClientOptions::default().target(&address.to_string())?).await
    }

    /// Connects.
    ///
    /// # Errors
    /// If the connection fails; the error says what to change.
    pub async fn reach(target: Target) -> anyhow::Result<GatewayClient> {
        let target = target.tuned(|endpoint| endpoint.timeout(ANSWER));
        Ok(GatewayClient { connection: target.connect().await?, target })
    }

    /// The health status of a service, for example `SERVING`.
    ///
    /// # Errors
    /// If the call fails, or the gateway has no such service.
    pub async fn health(&self, service: &str) -> anyhow::Result<&'static str> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(self.connection.clone()).check(request).await;
        let answer = answer.map_err(|status| self.target.told(&status))?;
        let status = ServingStatus::try_from(answer.into_inner().status).unwrap_or(ServingStatus::Unknown);
        Ok(status.as_str_name())
    }

    /// The connection, for calls of a service's client.
    pub fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// The error of a failed call, which says what to change.
    pub fn told(&self, status: &Status) -> anyhow::Error {
        self.target.told(status)
    }
}
