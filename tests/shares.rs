//! Quotas of a caller: no caller can take all of a shared resource, and calls that are still processed count.

use futures_util::future::join_all;
use serde_json::json;
use server::config::access::Access;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::harness::auth::{AuthGateway, request};
use crate::harness::codec::ask;
use crate::harness::http::get;
use crate::harness::issuer::Issuer;
use crate::harness::proxy::Proxy;
use crate::harness::status::{assert_failure, assert_retryable};
use crate::harness::system::{System, new_order, reason, until};

const LIST: &str = "/orders.v1.OrderService/ListOrders";
const CREATE: &str = "/orders.v1.OrderService/CreateOrder";
const ADJUST: &str = "/inventory.v1.InventoryService/AdjustStock";
const CHECK: &str = "/orders.v1.OrderService/CheckInventory";

/// A gateway with authentication, for Ann and Bob.
struct Counter {
    _system: System,
    guarded: AuthGateway,
    issuer: Issuer,
}

impl Counter {
    /// With a proxy between NATS and the gateway, or between NATS and the workers.
    async fn open(in_flight: u32, of_workers: bool) -> (Counter, Proxy) {
        let mut system = System::builder().workers(0).gateways(0).start().await;
        let proxy = Proxy::to(system.nats.port()).await;
        let through = nats::Options::at(proxy.url());
        if of_workers {
            system.worker.nats.connection = through;
        } else {
            system.gateway.nats = through;
        }
        system.add_worker().await;
        system.add_gateway().await;
        system.adjust("lamp", 1_000).await.unwrap();
        let issuer = Issuer::new();
        let access = Access { caller_in_flight: in_flight, ..issuer.access() };
        let guarded = AuthGateway::start(&system, access).await;
        (Counter { _system: system, guarded, issuer }, proxy)
    }

    /// This many calls of a caller, each in a task.
    fn calls(&self, who: &str, path: &'static str, count: usize) -> Vec<JoinHandle<Result<(), Status>>> {
        let bearer = format!("Bearer {}", self.issuer.with(json!({"sub": who})));
        let call = |_| {
            let (channel, bearer) = (self.guarded.channel.clone(), bearer.clone());
            tokio::spawn(async move {
                ask(&channel, path, request(path, "ann", ""), &[("authorization", &bearer)]).await.map(drop)
            })
        };
        (0..count).map(call).collect()
    }

    /// The calls of an rpc that are in flight at the gateway.
    async fn in_flight(&self, path: &str) -> usize {
        self.metric(&format!("gateway_calls_in_flight{{method=\"{}\"}}", &path[1..])).await
    }

    /// A metric of the gateway; 0 if it does not exist yet.
    async fn metric(&self, name: &str) -> usize {
        let page = get(self.guarded.gateway.http_addr(), "/metrics").await;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

#[tokio::test]
async fn lists_of_one_caller_leave_room_for_everybodys() {
    let (counter, proxy) = Counter::open(512, false).await;
    proxy.hold();
    let anns = counter.calls("ann", LIST, 200);
    let refused = async || anns.iter().filter(|call| call.is_finished()).count();
    until("most of Ann's are refused", async || refused().await >= 120).await;
    let bobs = counter.calls("bob", LIST, 20);
    let open = |calls: &[JoinHandle<_>]| calls.iter().filter(|call| !call.is_finished()).count();
    until("all that is not refused has arrived", async || {
        counter.in_flight(LIST).await == open(&anns) + open(&bobs)
    })
    .await;
    assert!(open(&bobs) == 20, "Bob's wait while Ann's are in flight");
    proxy.restore();
    for answer in join_all(bobs).await {
        answer.unwrap().expect("Bob's list");
    }
    let answers = join_all(anns).await.into_iter().map(Result::unwrap);
    let refused: Vec<Status> = answers.filter_map(Result::err).collect();
    let failure =
        assert_failure(Err::<(), _>(refused[0].clone()), Code::ResourceExhausted, "QUOTA_EXCEEDED", "no");
    assert_retryable(&failure);
    assert!(refused.iter().all(|status| reason(status) == "QUOTA_EXCEEDED"), "{refused:?}");
}

/// Makes calls that their client cancels, one after the other. Returns how many of them were sent to the workers.
async fn left(path: &'static str, route: &str) -> usize {
    let (counter, proxy) = Counter::open(4, true).await;
    proxy.hold();
    for _ in 0..10 {
        let calls = counter.calls("ann", path, 2);
        let open = || calls.iter().filter(|call| !call.is_finished()).count();
        until("they have arrived or were refused", async || counter.in_flight(path).await == open()).await;
        calls.iter().for_each(JoinHandle::abort);
        until("the gateway knows that they were left", async || counter.in_flight(path).await == 0).await;
    }
    let last = join_all(counter.calls("ann", path, 1)).await.remove(0).unwrap();
    assert_failure(last, Code::ResourceExhausted, "QUOTA_EXCEEDED", "no");
    // What is sent again without a reply is the same call.
    let [attempts, hedges, retries] = ["attempts", "hedges", "retries"]
        .map(|what| format!("gateway_route_{what}_total{{route=\"{route}\"}}"));
    let sent =
        counter.metric(&attempts).await - counter.metric(&hedges).await - counter.metric(&retries).await;
    proxy.restore();
    let again = async || {
        let answer = join_all(counter.calls("ann", path, 1)).await.remove(0).unwrap();
        answer.is_ok()
    };
    until("there is room again", again).await;
    sent
}

#[tokio::test]
async fn orders_that_their_client_left_count_for_the_caller_until_they_are_done() {
    let reserved = left(CREATE, "reserve_inventory").await;
    assert!((1..=4).contains(&reserved), "{reserved} reservations of a caller who may have 4 calls");
}

#[tokio::test]
async fn passed_calls_that_their_client_left_count_for_the_caller_until_they_are_answered() {
    let checked = left(CHECK, "check_inventory").await;
    assert!((1..=4).contains(&checked), "{checked} checks of a caller who may have 4 calls");
}

#[tokio::test]
async fn of_what_is_kept_one_caller_leaves_half_of_what_is_free_to_others() {
    let system = System::builder()
        .each_worker(|worker| {
            worker.nats.max_adjustments = 8;
            worker.nats.max_products = 9;
            worker.nats.max_reservations = 6;
        })
        .stock("lamp", 1_000)
        .start()
        .await;
    let issuer = Issuer::new();
    let guarded = AuthGateway::start(&system, issuer.access()).await;
    let [ann, bob] = ["ann", "bob"].map(|who| issuer.with(json!({"sub": who})));
    let filled = async |path: &str, token: &str| {
        let mut done = 0;
        loop {
            match guarded.call(path, request(path, "ann", ""), token).await {
                Ok(_) => done += 1,
                Err(status) => return (done, reason(&status)),
            }
        }
    };
    let past = |done| (done, "QUOTA_EXCEEDED".to_owned());
    // The first adjustment, which created the lamp, was of an anonymous caller.
    assert_eq!(filled(ADJUST, &ann).await, past(3));
    assert_eq!(filled(ADJUST, &bob).await, past(2));
    assert_eq!(filled(CREATE, &ann).await, past(3));
    assert_eq!(filled(CREATE, &bob).await, past(1));
    system.adjust("lamp", 1).await.expect("anonymous callers have no quota");
    let again = system.place(&new_order("lamp", 1)).await;
    again.expect("anonymous callers have no quota");
}
