//! Benchmarks of the parts without I/O: the stock's rules, the ledger's encoding, parsing a request, and writing a
//! reply. Each request has three products, as in `loadtest compare`.

use std::hint::black_box;
use std::time::Duration;

use bridge::call::CallContext;
use contract::Item;
use contract::OrderReason;
use contract::inventory::v1::{Item as Wish, ItemAvailability};
use contract::orders::v1::{CheckInventoryRequest, CheckInventoryResponse, CreateOrderRequest};
use contract::route::Routed;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use inventory_worker::stock::{Command, Draft, Entry, Stock};
use order_streams::entry;
use order_streams::order::Moment;
use orders::order::event;
use orders::order::request::NewOrder;
use prost::Message as _;
use tokio::time::Instant;
use uuid::Uuid;
use wire::{Failure, nestjs};

/// Products in stock, and open reservations.
const PRODUCTS: u32 = 10_000;
const RESERVATIONS: u32 = 10_000;
/// Commands in a full batch of the ledger.
const BATCH: u32 = 256;

fn product(number: u32) -> String {
    format!("P-{:05}", number % PRODUCTS)
}

fn items(number: u32) -> Vec<Item> {
    (0..3).map(|line| Item { product: product(number * 3 + line).into(), quantity: 1 }).collect()
}

fn reserve(number: u32) -> Command {
    Command::Reserve { order: Uuid::new_v4(), items: items(number), expires_at: Some(900_000) }
}

/// The ledger entry that a batch of commands produces.
fn entry(stock: &Stock, commands: &[Command]) -> Entry {
    let mut draft = Draft::over(stock, 1);
    for command in commands {
        draft.decide(command).expect("there is enough of everything");
    }
    Entry { worker: Uuid::new_v4(), batch: 1, previous: None, at: 1, facts: draft.facts() }
}

fn stock() -> Stock {
    let mut stock = Stock::default();
    let counted = (0..PRODUCTS).map(|number| (product(number).into(), 1_000_000)).collect();
    let reserved: Vec<Command> = (0..RESERVATIONS).map(reserve).collect();
    for commands in [vec![Command::Count(counted)], reserved] {
        let entry = Entry { previous: stock.last_entry(), ..entry(&stock, &commands) };
        stock.apply(stock.sequence() + 1, &entry).expect("the rules let it through");
    }
    stock
}

fn rules(criterion: &mut Criterion) {
    let stock = stock();
    let batch: Vec<Command> = (0..BATCH).map(reserve).collect();
    let next = Entry { previous: stock.last_entry(), ..entry(&stock, &batch) };
    let mut group = criterion.benchmark_group("rules");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    group.bench_function("decide 256 reservations", |bench| {
        bench.iter(|| {
            let mut draft = Draft::over(&stock, 1);
            for command in &batch {
                let _ = black_box(draft.decide(black_box(command)));
            }
            draft.facts()
        });
    });
    group.bench_function("apply 256 reservations", |bench| {
        let fresh = || stock.clone();
        bench.iter_batched_ref(
            fresh,
            |stock| stock.apply(stock.sequence() + 1, &next),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn ledger(criterion: &mut Criterion) {
    let stock = stock();
    let mut group = criterion.benchmark_group("ledger");
    for size in [1, BATCH] {
        let entry = entry(&stock, &(0..size).map(reserve).collect::<Vec<_>>());
        let bytes = serde_json::to_vec(&entry).expect("an entry can be written");
        group.throughput(Throughput::Elements(u64::from(size)));
        group.bench_function(format!("encode an entry of {size}"), |bench| {
            bench.iter(|| serde_json::to_vec(black_box(&entry)));
        });
        group.bench_function(format!("decode an entry of {size}"), |bench| {
            bench.iter(|| serde_json::from_slice::<Entry>(black_box(&bytes)));
        });
    }
    let snapshot = stock.to_snapshot().expect("a snapshot can be written");
    group.throughput(Throughput::Bytes(snapshot.len() as u64));
    group.bench_function("write a snapshot of 10,000 reservations", |bench| {
        bench.iter(|| stock.to_snapshot())
    });
    group.bench_function("read a snapshot of 10,000 reservations", |bench| {
        bench.iter(|| Stock::from_snapshot(black_box(&snapshot)));
    });
    group.finish();
}

fn wishes() -> Vec<Wish> {
    items(0).into_iter().map(|item| Wish { product_id: item.product.into(), quantity: 1 }).collect()
}

fn create() -> CreateOrderRequest {
    CreateOrderRequest {
        customer_id: "customer-1".to_owned(),
        request_id: "request-1".to_owned(),
        items: wishes(),
    }
}

fn parse(criterion: &mut Criterion) {
    let check = CheckInventoryRequest { items: wishes() };
    let proto = check.encode_to_vec();
    let json = check.to_payload().expect("a request can be written");
    let nested = nestjs::call(CheckInventoryRequest::ROUTE.subject, &json).expect("it is JSON");
    let create = create();
    let mut group = criterion.benchmark_group("parse");
    group.bench_function("a request: protobuf to JSON", |bench| {
        bench.iter(|| (CheckInventoryRequest::ROUTE.request)(black_box(&proto)));
    });
    group.bench_function("a request: JSON to its message", |bench| {
        bench.iter(|| CheckInventoryRequest::from_payload(nestjs::payload(black_box(&json))));
    });
    group.bench_function("a request: NestJS envelope to its message", |bench| {
        bench.iter(|| CheckInventoryRequest::from_payload(nestjs::payload(black_box(&nested))));
    });
    group.bench_function("an order: checked against all limits", |bench| {
        bench.iter_batched(|| create.clone(), |create| NewOrder::parse(create, ""), BatchSize::SmallInput);
    });
    group.finish();
}

fn mapping(criterion: &mut Criterion) {
    let available = |wish: Wish| ItemAvailability { product_id: wish.product_id, requested: 1, available: 9 };
    let reply =
        CheckInventoryResponse { available: true, items: wishes().into_iter().map(available).collect() };
    let json = CheckInventoryRequest::reply_to_payload(&reply).expect("a reply can be written");
    let short = (0..3).map(|number| (product(number), "3 wanted, 1 left".to_owned()));
    let failure = contract::reason::stock(OrderReason::InsufficientStock, short);
    let refusal = failure.to_json();
    let order = NewOrder::parse(create(), "").expect("it keeps to the limits");
    let body = order.placed(Moment::now());
    let call = CallContext::until(Instant::now());
    let event = event::created(&body, &call).expect("an event can be written");
    let headers = event.header_map();
    let stored = || entry::Entry::parse(7, &event.subject, Some(&headers), &event.payload);
    let mut group = criterion.benchmark_group("mapping");
    group.bench_function("a reply: JSON to protobuf", |bench| {
        bench.iter(|| (CheckInventoryRequest::ROUTE.reply)(black_box(&json)));
    });
    group.bench_function("a refusal: JSON to a status", |bench| {
        bench.iter(|| server::status(Failure::from_service(409, "", black_box(&refusal))));
    });
    group.bench_function("an order: to its event", |bench| {
        bench.iter(|| event::created(black_box(&body), &call));
    });
    group.bench_function("an event: to its order", |bench| {
        bench.iter(|| entry::body(body.id, black_box(&event.payload)));
    });
    group.bench_function("an event: to its index entry", |bench| {
        bench.iter(|| stored().and_then(|entry| entry.mark()))
    });
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = pure; config = short(); targets = rules, ledger, parse, mapping }
criterion_main!(pure);
