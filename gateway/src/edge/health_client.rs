//! The health client of `gateway healthcheck`, and the calls of `gateway dev`. Must not be used for serving.

use std::net::SocketAddr;
use std::time::Duration;

use contract::inventory::v1::inventory_service_client::InventoryServiceClient;
use contract::inventory::v1::{AdjustStockRequest, AdjustStockResponse};
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
    pub async fn connect(address: SocketAddr) -> anyhow::Result<GatewayClient> {
        GatewayClient::reach(ClientOptions::default().target(&address.to_string())?).await
    }

    /// Connects.
    pub async fn reach(target: Target) -> anyhow::Result<GatewayClient> {
        let target = target.tuned(|endpoint| endpoint.timeout(ANSWER));
        Ok(GatewayClient { connection: target.connect().await?, target })
    }

    /// The health status of a service, for example `SERVING`.
    pub async fn health(&self, service: &str) -> anyhow::Result<&'static str> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(self.connection.clone()).check(request).await;
        let answer = answer.map_err(|status| self.target.told(&status))?;
        let status = ServingStatus::try_from(answer.into_inner().status).unwrap_or(ServingStatus::Unknown);
        Ok(status.as_str_name())
    }

    /// Adjusts stock.
    pub async fn adjust(&self, request: AdjustStockRequest) -> anyhow::Result<AdjustStockResponse> {
        let mut client = InventoryServiceClient::new(self.connection.clone());
        let answer = client.adjust_stock(request).await;
        Ok(answer.map_err(|status| self.target.told(&status))?.into_inner())
    }
}
