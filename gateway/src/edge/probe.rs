//! A client for a gateway: the health check of `gateway healthcheck`, and what `gateway dev` asks. Must never be part
//! of serving.

use std::net::SocketAddr;
use std::time::Duration;

use contract::inventory::v1::inventory_service_client::InventoryServiceClient;
use contract::inventory::v1::{AdjustStockRequest, AdjustStockResponse};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::client::{ClientOptions, Connection, Target};

/// What a call may take, if whoever makes it does not say less.
const ANSWER: Duration = Duration::from_secs(20);

/// A connection to a gateway.
pub struct Probe {
    connection: Connection,
    target: Target,
}

impl Probe {
    /// Connects to an address of this machine, without TLS.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Probe> {
        Probe::reach(ClientOptions::default().target(&address.to_string())?).await
    }

    /// Connects.
    pub async fn reach(target: Target) -> anyhow::Result<Probe> {
        let target = target.tuned(|endpoint| endpoint.timeout(ANSWER));
        Ok(Probe { connection: target.connect().await?, target })
    }

    /// A service's health, as in `SERVING`.
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
