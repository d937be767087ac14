//! Retries: against a server with scripted replies, and of the pauses alone.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use contract::OrderReason;
use contract::orders::v1::server::order_service_server::{OrderService, OrderServiceServer};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic_types::{ErrorDetails, StatusExt as _};
use wire::{ErrorReason, Reason};

use super::*;

impl Reach {
    fn at(addr: String) -> Reach {
        Reach { addr, connections: 2, deadline: 5, connect_timeout: 5, access: ClientOptions::default() }
    }
}

/// Replies with the given statuses, one for each call, and with an order from then on.
#[derive(Default)]
struct Script {
    statuses: Mutex<VecDeque<Status>>,
    asked: Mutex<Vec<String>>,
}

struct Answers(Arc<Script>);

#[tonic::async_trait]
impl OrderService for Answers {
    type WatchOrdersStream = Pin<Box<dyn Stream<Item = Result<orders::WatchOrdersResponse, Status>> + Send>>;

    async fn create_order(
        &self,
        request: Request<orders::CreateOrderRequest>,
    ) -> Result<Response<orders::CreateOrderResponse>, Status> {
        self.0.asked.lock().push(request.into_inner().request_id);
        if let Some(status) = self.0.statuses.lock().pop_front() {
            return Err(status);
        }
        let order = orders::Order { order_id: "the order".to_owned(), ..Default::default() };
        Ok(Response::new(orders::CreateOrderResponse { order: Some(order) }))
    }

    async fn get_order(
        &self,
        _: Request<orders::GetOrderRequest>,
    ) -> Result<Response<orders::GetOrderResponse>, Status> {
        Ok(Response::new(orders::GetOrderResponse::default()))
    }

    async fn list_orders(
        &self,
        _: Request<orders::ListOrdersRequest>,
    ) -> Result<Response<orders::ListOrdersResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn update_order_status(
        &self,
        _: Request<orders::UpdateOrderStatusRequest>,
    ) -> Result<Response<orders::UpdateOrderStatusResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn watch_orders(
        &self,
        _: Request<orders::WatchOrdersRequest>,
    ) -> Result<Response<Self::WatchOrdersStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

fn status(reason: impl ErrorReason, retry: Option<Duration>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason.name(), wire::failure::DOMAIN, []);
    details.set_retry_info(retry);
    Status::with_error_details(reason.code(), "as told", details)
}

async fn open(statuses: impl IntoIterator<Item = Status>) -> (Arc<Script>, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = format!("http://{}", listener.local_addr().unwrap());
    let statuses = Mutex::new(statuses.into_iter().collect());
    let script = Arc::new(Script { statuses, ..Script::default() });
    let service = OrderServiceServer::new(Answers(Arc::clone(&script)));
    let served = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(served.serve_with_incoming(TcpListenerStream::new(listener)));
    (script, Server::new(&Reach::at(addr)).unwrap())
}

async fn create(server: &Server, budget: Duration) -> Result<orders::Order, GivenUp> {
    let request = orders::CreateOrderRequest { request_id: "mine".to_owned(), ..Default::default() };
    server.create(&request, budget).await
}

const ENOUGH: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_call_is_repeated_under_its_request_id_until_it_is_answered() {
    let expired = status(OrderReason::ReservationExpired, None);
    let troubles = [status(Reason::OutcomeUnknown, None), expired, status(Reason::Timeout, None)];
    let (script, server) = open(troubles).await;
    let order = create(&server, ENOUGH).await.unwrap();
    assert_eq!(order.order_id, "the order");
    assert_eq!(*script.asked.lock(), ["mine"; 4]);
    assert_eq!(server.repeats().values().sum::<u64>(), 3);
}

#[tokio::test]
async fn a_refusal_after_a_lost_answer_is_unsure() {
    let refusal = || status(OrderReason::InsufficientStock, None);
    let (_, server) = open([refusal(), status(Reason::OutcomeUnknown, None), refusal()]).await;
    assert!(!create(&server, ENOUGH).await.unwrap_err().unsure);
    let second = create(&server, ENOUGH).await.unwrap_err();
    assert!(second.unsure && second.last.verdict() == Verdict::Refused);
}

#[tokio::test]
async fn the_wait_that_the_server_asks_for_is_kept() {
    let asked = Duration::from_millis(400);
    let (_, server) = open([status(Reason::Overloaded, Some(asked))]).await;
    let start = Instant::now();
    create(&server, ENOUGH).await.unwrap();
    assert!(start.elapsed() >= asked);
}

#[tokio::test]
async fn a_call_is_given_up_when_its_budget_cannot_hold_another_attempt() {
    let (script, server) = open([status(Reason::Overloaded, Some(Duration::MAX))]).await;
    let start = Instant::now();
    let given_up = create(&server, ENOUGH).await.unwrap_err();
    assert!(given_up.unsure && start.elapsed() < ENOUGH);
    assert_eq!(script.asked.lock().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_until_the_budget_ends() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let server = Server::new(&Reach::at(format!("http://{port}"))).unwrap();
    let given_up = create(&server, Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(given_up.last.verdict(), Verdict::Repeat);
    assert!(server.repeats().keys().all(|kind| kind.ends_with("TRANSPORT")), "{:?}", server.repeats());
}

#[tokio::test]
async fn an_answer_without_its_order_is_a_fault_of_the_server() {
    let (_, server) = open([]).await;
    let given_up = server.order("any").await.unwrap_err();
    assert_eq!(given_up.last.verdict(), Verdict::Failed);
}

#[tokio::test]
async fn an_unimplemented_call_is_not_repeated() {
    let (_, server) = open([]).await;
    let given_up = server.orders("").await.unwrap_err();
    assert_eq!((given_up.last.kind(), given_up.unsure), (format!("{:?}", Code::Unimplemented), false));
}

#[test]
fn an_address_that_cannot_be_used_is_refused_at_once() {
    for addr in ["ftp://127.0.0.1:50051", "127.0.0.1", "http://ann@127.0.0.1:50051", "not a url"] {
        assert!(Server::new(&Reach::at(addr.to_owned())).is_err(), "{addr}");
    }
}

#[test]
fn pauses_grow_to_a_limit_and_are_never_shorter_than_half_of_it() {
    assert_eq!(pause(0, None, 0.0), FIRST_PAUSE / 2);
    assert_eq!(pause(0, None, 1.0), FIRST_PAUSE);
    assert_eq!(pause(u32::MAX, None, 1.0), LONGEST_PAUSE);
}

#[test]
fn the_server_is_not_asked_again_before_it_wants_to_be() {
    let asked = Duration::from_secs(7);
    assert_eq!(pause(3, Some(asked), 0.0), asked);
    assert!(pause(3, Some(asked), 1.0) > asked);
}

#[test]
fn a_page_that_names_itself_ends_the_reading() {
    assert!(next_page("a", "a".to_owned()).is_err());
    assert_eq!(next_page("a", "b".to_owned()).unwrap().as_deref(), Some("b"));
    assert_eq!(next_page("a", String::new()).unwrap(), None);
}
