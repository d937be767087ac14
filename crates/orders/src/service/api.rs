//! The order service over gRPC: converts requests, replies and statuses. Must not decide anything about an order.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use admission::{HeldUntilSent, answer};
use contract::orders::v1 as pb;
use contract::orders::v1::server::order_service_server::{self, OrderService, OrderServiceServer};
use contract::route::Repeat;
use futures_util::{Stream, StreamExt};
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};
use wire::Failure;

use crate::feed::Feed;
use crate::service::Orders;
use server::call_metrics::CallIds;
use server::grpc::{CodedService, Sizes};
use server::{call_of, leaving};

/// The budget of a call whose caller sets no deadline: four attempts of 5 s.
const BUDGET: Duration = Duration::from_secs(20);

/// The order rpcs that are implemented in the gateway.
#[derive(Clone)]
pub struct OrderApi {
    /// The domain.
    pub orders: Orders,
    /// The source of watches.
    pub feed: Arc<Feed>,
}

/// The service's full name.
pub const SERVICE: &str = order_service_server::SERVICE_NAME;

impl CodedService for OrderApi {
    fn add_to(&self, routes: &mut RoutesBuilder, sizes: Sizes) {
        let service = OrderServiceServer::new(self.clone())
            .max_decoding_message_size(sizes.request)
            .max_encoding_message_size(sizes.reply);
        routes.add_service(service);
    }
}

#[tonic::async_trait]
impl OrderService for OrderApi {
    async fn create_order(
        &self,
        request: Request<pb::CreateOrderRequest>,
    ) -> Result<Response<pb::CreateOrderResponse>, Status> {
        let (call, failed) = (call_of(&request, BUDGET), failed(&request));
        let request_id = CallIds::wanted().then(|| request.get_ref().request_id.clone());
        let order = self.orders.create(request.into_inner(), call).await.map_err(failed)?;
        Ok(about(order, request_id, |order| pb::CreateOrderResponse { order }))
    }

    async fn get_order(
        &self,
        request: Request<pb::GetOrderRequest>,
    ) -> Result<Response<pb::GetOrderResponse>, Status> {
        let (call, failed) = (call_of(&request, BUDGET), failed(&request));
        let order = self.orders.get(request.into_inner(), call).await.map_err(failed)?;
        Ok(about(order, None, |order| pb::GetOrderResponse { order }))
    }

    async fn list_orders(
        &self,
        request: Request<pb::ListOrdersRequest>,
    ) -> Result<Response<pb::ListOrdersResponse>, Status> {
        let (call, failed) = (call_of(&request, BUDGET), failed(&request));
        let (page, place) = self.orders.list(request.into_inner(), call).await.map_err(failed)?;
        let mut response = Response::new(page);
        // The permit is held until the client has read the page.
        response.extensions_mut().insert(HeldUntilSent::new(place));
        Ok(response)
    }

    async fn update_order_status(
        &self,
        request: Request<pb::UpdateOrderStatusRequest>,
    ) -> Result<Response<pb::UpdateOrderStatusResponse>, Status> {
        let (call, failed) = (call_of(&request, BUDGET), failed(&request));
        let order = self.orders.update(request.into_inner(), call).await.map_err(failed)?;
        Ok(about(order, None, |order| pb::UpdateOrderStatusResponse { order }))
    }

    type WatchOrdersStream = Pin<Box<dyn Stream<Item = Result<pb::WatchOrdersResponse, Status>> + Send>>;

    async fn watch_orders(
        &self,
        request: Request<pb::WatchOrdersRequest>,
    ) -> Result<Response<Self::WatchOrdersStream>, Status> {
        let (call, failed) = (call_of(&request, BUDGET), failed(&request));
        let leave = leaving(&request);
        let (whose, from, place) = self.orders.follow(request.into_inner(), call).await.map_err(failed)?;
        let changes = self.feed.watch_until(Box::pin(leave), whose, from, place).map_err(failed)?;
        Ok(Response::new(Box::pin(changes.map(move |change| change.map_err(failed)))))
    }
}

/// A response with an order, and its ids for the log.
fn about<T>(
    order: pb::Order,
    request_id: Option<String>,
    reply: impl FnOnce(Option<pb::Order>) -> T,
) -> Response<T> {
    let known = CallIds::wanted().then(|| CallIds::order(&order.order_id, request_id));
    let mut response = Response::new(reply(Some(order)));
    known.into_iter().for_each(|known| drop(response.extensions_mut().insert(known)));
    response
}

/// Converts failures of a call into statuses, which tell client libraries whether to retry.
fn failed<R: Repeat>(request: &Request<R>) -> impl Fn(Failure) -> Status + Copy + Send + use<R> {
    let repeatable = request.get_ref().repeatable();
    move |failure| answer(failure, repeatable)
}
