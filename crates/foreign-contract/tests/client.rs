//! A client that knows the contract by its descriptors, and writes messages as JSON.

use serde_json::Value;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use transcode::{Codec as _, JsonCodec, Repetition};

use crate::codec;

/// A client of the gateway at this address.
pub struct Client(pub Channel);

impl Client {
    pub async fn of(gateway: &foreign_contract::Gateway) -> Client {
        let address = format!("http://{}", gateway.address);
        Client(Endpoint::from_shared(address).unwrap().connect().await.unwrap())
    }

    /// Calls `service/rpc` of the package, and returns the reply.
    pub async fn call(
        &self,
        rpc: &str,
        request: Value,
        metadata: &[(&'static str, &str)],
    ) -> Result<Value, Status> {
        let catalog = foreign_contract::catalog().unwrap();
        let path = format!("/example.library.{rpc}");
        let known = catalog.rpc(&path).unwrap();
        let message = |name: &str| {
            let message = catalog.descriptors()[0].get_message_by_name(name).unwrap();
            JsonCodec::new(message.clone(), message, Repetition::Never)
        };
        let request = message(&known.input).reply(&serde_json::to_vec(&request).unwrap()).unwrap();
        let reply = codec::ask(&self.0, &path, request.into(), metadata).await?;
        Ok(serde_json::from_slice(&message(&known.output).request(&reply).unwrap()).unwrap())
    }
}
