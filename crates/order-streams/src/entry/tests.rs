//! The parser against every kind of entry and every kind of damage, and against what `event` writes.

use proptest::prelude::*;

use super::*;
use crate::event::Event;
use crate::order::Moment;

/// An order as it is stored, to the byte.
const PAYLOAD: &str = concat!(
    r#"{"orderId":"00000000-0000-0000-0000-000000000009","customerId":"Zoë & Co.","#,
    r#""items":[{"productId":"lamp","quantity":2}],"status":"ORDER_STATUS_SHIPPED","statusReason":"gone","#,
    r#""etag":"","createTime":"2026-11-24T18:00:00.000005+00:00","updateTime":"2026-11-24T18:00:01+00:00"}"#
);
const ID: Uuid = Uuid::from_u128(9);

fn order_of(customer: &str) -> OrderBody {
    let item = Item { product: "lamp".into(), quantity: 1 };
    OrderBody::new(ID, customer.into(), vec![item], Moment::now())
}

/// An entry with its own memory.
struct Stored {
    subject: String,
    headers: HeaderMap,
    payload: Vec<u8>,
}

impl Stored {
    /// The event that moved an order which was created at 4 to SHIPPED.
    fn shipped() -> Stored {
        Stored::from(Event::updated(&body(ID, PAYLOAD.as_bytes()).unwrap(), 4, []).unwrap())
    }

    fn at(&self, sequence: u64) -> Result<Entry<'_>, DamagedEntry> {
        Entry::parse(sequence, &self.subject, Some(&self.headers), &self.payload)
    }

    /// How each reader sees it at sequence 9: the index, the orders, the workers' consumer, the workers' reconcile.
    fn damage(&self) -> [Option<EntryDamage>; 4] {
        let entry = match self.at(9) {
            Ok(entry) => entry,
            Err(damaged) => return [(); 4].map(|()| Some(damaged.damage.clone())),
        };
        let of = |damaged: DamagedEntry| {
            assert_eq!((damaged.sequence, damaged.order), (9, Some(ID)));
            damaged.damage
        };
        let (mark, last) = (entry.mark().err().map(of), entry.last().err().map(of));
        [mark, last, entry.content().err().map(of), entry.items().err().map(of)]
    }
}

impl From<Event> for Stored {
    fn from(event: Event) -> Stored {
        Stored { headers: event.header_map(), subject: event.subject, payload: event.payload }
    }
}

#[test]
fn each_kind_of_entry_is_read_back_as_it_was_written() {
    let created = Stored::from(Event::created(&order_of("Ann"), []).unwrap());
    let entry = created.at(4).unwrap();
    assert_eq!((entry.kind, entry.id, entry.first()), (EntryKind::Created, ID, Ok(4)));
    let Last::Order(order) = entry.last().unwrap() else { panic!("no order") };
    assert_eq!((order.first, order.last, &*order.body.customer), (4, 4, "Ann"));
    let shipped = order.body.step(Status::Shipped, "gone", Moment::now());
    let updated = Stored::from(Event::updated(&shipped, 4, []).unwrap());
    let entry = updated.at(9).unwrap();
    assert_eq!((entry.kind, entry.first()), (EntryKind::Updated, Ok(4)));
    assert_eq!(entry.last(), Ok(Last::Order(Order { body: shipped, first: 4, last: 9 })));
    let mark = entry.mark().unwrap().unwrap();
    assert_eq!((mark.kind, mark.status, mark.first), (EventKind::Updated, Status::Shipped, 4));
    let tombstone = Stored::from(Event::tombstone(ID));
    let entry = tombstone.at(9).unwrap();
    assert_eq!((entry.kind, entry.id), (EntryKind::Tombstone, ID));
    assert_eq!((entry.mark(), entry.last()), (Ok(None), Ok(Last::Tombstone(9))));
}

#[test]
fn a_tombstone_needs_nothing_but_its_subject() {
    let subject = format!("{TOMBSTONE}{ID}");
    for payload in [&b""[..], b"{}", b"\xff"] {
        let entry = Entry::parse(9, &subject, None, payload).unwrap();
        assert_eq!((entry.mark(), entry.last()), (Ok(None), Ok(Last::Tombstone(9))));
    }
}

#[test]
fn what_is_read_is_written_again_to_the_byte() {
    let order = body(ID, PAYLOAD.as_bytes()).unwrap();
    let event = Event::updated(&order, 4, []).unwrap();
    assert_eq!(str::from_utf8(&event.payload), Ok(PAYLOAD));
    assert_eq!(event.subject, format!("orders.event.order_status_updated.{ID}"));
    let own: Vec<_> = event.headers.iter().filter(|(name, _)| *name != OPERATION_ID).collect();
    let header = |name, value: &str| (name, value.to_owned());
    let wanted = [
        header(ORDER_CUSTOMER, "Zo%C3%AB%20%26%20Co."),
        header(ORDER_STATUS, "ORDER_STATUS_SHIPPED"),
        header("Content-Type", "application/json"),
        header(ORDER_CREATED_SEQUENCE, "4"),
    ];
    assert!(own.into_iter().eq(&wanted), "{:?}", event.headers);
    let tombstone = Event::tombstone(ID);
    assert_eq!(tombstone.payload, format!(r#"{{"orderId":"{ID}"}}"#).into_bytes());
    assert_eq!(tombstone.subject, format!("orders.fence.expired.{ID}"));
    assert_eq!(tombstone.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [OPERATION_ID]);
}

#[test]
fn each_append_has_an_operation_of_its_own_which_is_read_back() {
    let events = [(); 2].map(|()| Event::tombstone(ID));
    assert_ne!(events[0].operation(), events[1].operation());
    for event in events {
        let operation = event.operation().to_owned();
        assert_eq!(Stored::from(event).at(1).unwrap().operation(), Some(&*operation));
    }
}

#[test]
fn a_subject_that_names_no_order_makes_the_whole_entry_unreadable() {
    let subjects = [
        "".to_owned(),
        "orders.event.order_created".to_owned(),
        "orders.event.order_created.x".to_owned(),
        format!("orders.other.order_created.{ID}"),
        format!("{UPDATED}{ID}.more"),
        format!("{UPDATED}{}", ID.simple()),
        format!("{UPDATED}{}", ID.urn()),
        format!("{UPDATED}{}", "0000000A-0000-0000-0000-000000000009"),
        format!("{TOMBSTONE}{}", ID.braced()),
    ];
    for subject in subjects {
        let stored = Stored { subject, ..Stored::shipped() };
        let damaged = stored.at(9).unwrap_err();
        assert_eq!((damaged.order, damaged.sequence, &damaged.subject), (None, 9, &stored.subject));
        assert_eq!(stored.damage(), [(); 4].map(|()| Some(EntryDamage::Subject(stored.subject.clone()))));
    }
}

#[test]
fn an_event_of_an_unknown_kind_has_content_and_is_no_event_for_the_index() {
    let stored = Stored { subject: format!("orders.event.order_noted.{ID}"), ..Stored::shipped() };
    let unknown = Some(EntryDamage::Kind("order_noted".to_owned()));
    assert_eq!(stored.at(9).unwrap().kind.name(), "order_noted");
    assert_eq!(stored.damage(), [unknown.clone(), unknown, None, None]);
}

#[test]
fn damaged_headers_hide_an_order_from_lists_and_not_from_the_stock() {
    let with = |name: &'static str, value: &str| {
        let mut headers = Stored::shipped().headers;
        headers.insert(name, value);
        headers
    };
    let without = |name: &str| {
        let shipped = Stored::shipped().headers;
        let others = shipped.iter().filter(|(own, _)| own.to_string() != name);
        others.map(|(own, values)| (own.clone(), values[0].clone())).collect::<HeaderMap>()
    };
    let headers = [
        (
            EntryDamage::Customer,
            vec![without(ORDER_CUSTOMER), with(ORDER_CUSTOMER, ""), with(ORDER_CUSTOMER, "%FF")],
        ),
        (EntryDamage::Status, vec![without(ORDER_STATUS), with(ORDER_STATUS, "ORDER_STATUS_UNSPECIFIED")]),
    ];
    for (damage, headers) in headers {
        for headers in headers {
            let stored = Stored { headers, ..Stored::shipped() };
            assert_eq!(stored.damage(), [Some(damage.clone()), None, None, None]);
        }
    }
    let mut firsts = vec![without(ORDER_CREATED_SEQUENCE)];
    firsts.extend(["", "0", "9", "10", "-1", "four"].map(|first| with(ORDER_CREATED_SEQUENCE, first)));
    for headers in firsts {
        let stored = Stored { headers, ..Stored::shipped() };
        assert_eq!(stored.damage(), [Some(EntryDamage::First), Some(EntryDamage::First), None, None]);
    }
}

#[test]
fn a_payload_that_is_no_order_is_one_for_nobody() {
    for payload in ["", "{", "[]", "{\"orderId\":7}", "\u{0}", r#"{"status":"ORDER_STATUS_LOST"}"#] {
        let [mark, others @ ..] = Stored { payload: payload.into(), ..Stored::shipped() }.damage();
        assert_eq!(mark, None);
        assert!(others.iter().all(|damage| matches!(damage, Some(EntryDamage::Payload(_)))), "{others:?}");
    }
    let stranger = "00000000-0000-0000-0000-00000000000a";
    for found in ["", "9", stranger] {
        let payload = PAYLOAD.replace(&ID.to_string(), found).into_bytes();
        let [mark, others @ ..] = Stored { payload, ..Stored::shipped() }.damage();
        let other = Some(EntryDamage::Other { named: ID, found: found.to_owned() });
        assert_eq!((mark, others), (None, [(); 3].map(|()| other.clone())));
    }
}

#[test]
fn an_order_beyond_the_limits_is_not_served_and_still_moves_its_stock() {
    let cases = [
        ("Zoë & Co.", "", false),
        ("gone", "a\\nb", false),
        ("2026-11-24T18:00:01", "2026-11-24T17:00:01", false),
        ("ORDER_STATUS_SHIPPED", "ORDER_STATUS_UNSPECIFIED", false),
        ("lamp", "", true),
        (r#""quantity":2"#, r#""quantity":0"#, true),
    ];
    for (good, bad, items) in cases {
        let payload = PAYLOAD.replacen(good, bad, 1).into_bytes();
        let [mark, last, content, all] = Stored { payload, ..Stored::shipped() }.damage();
        assert!(matches!(last, Some(EntryDamage::Order(_))), "{good}: {last:?}");
        assert_eq!((mark, content, all), (None, None, items.then_some(EntryDamage::Items)), "{good}");
    }
}

#[test]
fn an_error_repeats_no_more_than_the_beginning_of_an_entry() {
    let long = "x".repeat(700_000);
    let payload = PAYLOAD.replace(&ID.to_string(), &long).into_bytes();
    let damaged = Stored { payload, ..Stored::shipped() }.at(9).unwrap().content().unwrap_err();
    assert!(damaged.to_string().len() < 1_000);
    let stored = Stored { subject: format!("orders.event.{long}.{ID}"), ..Stored::shipped() };
    assert!(stored.damage().iter().flatten().all(|damage| damage.to_string().len() < 1_000));
}

proptest! {
    #[test]
    fn any_customer_survives_the_header(customer in "\\PC{1,128}") {
        let event = Event::created(&order_of(&customer), []).unwrap();
        let value = event.headers.iter().find(|(name, _)| *name == ORDER_CUSTOMER).unwrap();
        prop_assert!(value.1.bytes().all(|b| b.is_ascii_graphic()));
        let stored = Stored::from(event);
        let mark = stored.at(1).unwrap().mark().unwrap().unwrap();
        prop_assert_eq!(&*mark.customer, customer.as_str());
    }

    #[test]
    fn what_gateways_read_workers_read_the_same(
        subject in prop_oneof!["orders\\.event\\.[a-z_]{0,20}\\.[-0-9a-f]{0,36}", Just(format!("{CREATED}{ID}")), Just(format!("{UPDATED}{ID}"))],
        quantity in 0..3_u32,
        status in 0..9_i32,
        first in 0..12_u64,
    ) {
        let payload = PAYLOAD.replace(r#""quantity":2"#, &format!(r#""quantity":{quantity}"#));
        let payload = payload.replace(r#""ORDER_STATUS_SHIPPED""#, &status.to_string()).into_bytes();
        let mut stored = Stored { subject, payload, ..Stored::shipped() };
        stored.headers.insert(ORDER_CREATED_SEQUENCE, first.to_string());
        if let Ok(entry) = stored.at(9) && let Ok(Last::Order(order)) = entry.last() {
            prop_assert_eq!(entry.items().unwrap(), (order.body.status.to_pb(), order.body.items));
            prop_assert_eq!(entry.content().unwrap().order_id, entry.id.to_string());
        }
    }
}
