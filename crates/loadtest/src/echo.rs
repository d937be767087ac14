//! The baseline for the gateway: a bare tonic server with the same rpc, on the runtime's defaults, that replies by
//! itself. It does what generated code would, with the same codec.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use contract::inventory::v1::ItemAvailability;
use contract::orders::v1::{CheckInventoryRequest, CheckInventoryResponse};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// Options of `loadtest echo`
#[derive(clap::Args)]
pub(crate) struct Echo {
    #[arg(long)]
    port: u16,
}

/// Serves until it is killed.
pub(crate) async fn run(options: Echo) -> anyhow::Result<bool> {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], options.port));
    Server::builder().add_service(Orders).serve(address).await?;
    Ok(true)
}

#[derive(Clone)]
struct Orders;

impl NamedService for Orders {
    const NAME: &'static str = "orders.v1.OrderService";
}

impl tower::Service<http::Request<Body>> for Orders {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let codec = ProstCodec::<CheckInventoryResponse, CheckInventoryRequest>::default();
        Box::pin(async move { Ok(Grpc::new(codec).unary(Answer, request).await) })
    }
}

struct Answer;

impl UnaryService<CheckInventoryRequest> for Answer {
    type Response = CheckInventoryResponse;
    type Future = Ready<Result<Response<CheckInventoryResponse>, Status>>;

    fn call(&mut self, request: Request<CheckInventoryRequest>) -> Self::Future {
        let items = request.into_inner().items.into_iter().map(|item| ItemAvailability {
            product_id: item.product_id,
            requested: item.quantity,
            available: item.quantity,
        });
        ready(Ok(Response::new(CheckInventoryResponse { available: true, items: items.collect() })))
    }
}
