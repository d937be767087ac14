//! A client for a gateway: the health check of `gateway healthcheck`, and what `gateway dev` asks. Must never be part
//! of serving.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use contract::inventory::v1::inventory_service_client::InventoryServiceClient;
use contract::inventory::v1::{AdjustStockRequest, AdjustStockResponse};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(20);

/// A connection to a gateway.
pub struct Probe {
    channel: Channel,
}

impl Probe {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Probe> {
        let endpoint =
            Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(CONNECT).timeout(ANSWER);
        let channel = endpoint.connect().await.with_context(|| format!("cannot connect to {address}"))?;
        Ok(Probe { channel })
    }

    /// A service's health, as in `SERVING`.
    pub async fn health(&self, service: &str) -> anyhow::Result<&'static str> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(self.channel.clone()).check(request).await.map_err(words)?;
        let status = ServingStatus::try_from(answer.into_inner().status).unwrap_or(ServingStatus::Unknown);
        Ok(status.as_str_name())
    }

    /// Adjusts stock.
    pub async fn adjust(&self, request: AdjustStockRequest) -> anyhow::Result<AdjustStockResponse> {
        let mut client = InventoryServiceClient::new(self.channel.clone());
        Ok(client.adjust_stock(request).await.map_err(words)?.into_inner())
    }
}

fn words(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{:?}: {}", status.code(), status.message())
}
