//! Properties that hold for any bytes from NATS that the contract decodes: NestJS envelopes, errors of services,
//! payloads of routes. Run by the fuzzers in fuzz/, and on their corpus in every test run.

use serde_json::value::RawValue;

use crate::inventory::v1::{
    AdjustStockRequest, GetStockRequest, ListReservationsRequest, ListStockRequest, RedeliverEventRequest,
    ReleaseInventoryRequest, ReserveInventoryRequest, SettleReservationRequest,
};
use crate::orders::v1::CheckInventoryRequest;
use crate::route::{ALL, Routed};
use wire::{Failure, Reason, nestjs};

/// An envelope, or none: its content is unchanged, and a request in an envelope is answered in one.
///
/// # Panics
///
/// If a property does not hold.
pub fn envelope(data: &[u8]) {
    let payload = nestjs::payload(data);
    let refusal = Failure::new(Reason::NotFound, "no such thing");
    let (answered, refused) =
        (nestjs::reply(data, &Ok(b"{\"n\":[1]}".to_vec())), nestjs::reply(data, &Err(refusal.clone())));
    assert_eq!(answered.is_some(), refused.is_some(), "a reply and an error take the same form");
    match (&answered, &refused) {
        (Some(answered), Some(refused)) => {
            assert!(data.windows(payload.len().max(1)).any(|part| part == payload), "the data as they came");
            assert_eq!(id(answered), id(data), "an answer is for its call");
            assert_eq!(nestjs::answer(answered).map(Result::ok), Some(Some(b"{\"n\":[1]}".to_vec())));
            let read = nestjs::answer(refused).and_then(Result::err).expect("a refusal is read as one");
            assert!(read.is(Reason::NotFound) && read.message == refusal.message);
        }
        _ => assert_eq!(payload, data, "without an envelope nothing is changed"),
    }
    if let Some(call) = nestjs::call("check_inventory", data) {
        let sent = json(data).expect("only JSON is sent").get().as_bytes();
        assert_eq!(nestjs::payload(&call), sent, "a service gets the payload unchanged");
    }
    match nestjs::answer(data) {
        Some(Ok(answer)) => assert!(json(&answer).is_some(), "an answer is JSON"),
        Some(Err(failure)) => refused_well(&failure),
        None => {}
    }
}

/// The id of an envelope, as it is written there.
fn id(envelope: &[u8]) -> &str {
    #[derive(serde::Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
    }
    serde_json::from_slice::<Envelope<'_>>(envelope).expect("an envelope has an id").id.get()
}

fn json(bytes: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}

/// An error by its number, its text and its body: never a success, and unchanged when it is passed on.
///
/// # Panics
///
/// If a property does not hold.
pub fn refusal(number: u16, text: &str, body: &[u8]) -> Failure {
    let failure = Failure::from_service(number, text, body);
    refused_well(&failure);
    failure
}

fn refused_well(failure: &Failure) {
    assert_ne!(failure.code as i32, 0, "a refusal is no success");
    assert!((400..600).contains(&failure.number()), "ADR-32 has no such number");
    assert!(failure.delivered.is_some(), "an error tells whether the work was done");
    let passed_on = Failure::from_service(500, "", &failure.to_json());
    assert_eq!(passed_on.to_json(), failure.to_json(), "a refusal says the same to the next");
}

/// A payload of any route, in either direction: a decoded payload can be encoded, and decodes to the same message.
///
/// # Panics
///
/// If a property does not hold.
pub fn payload(data: &[u8]) {
    let checks = [
        recoded::<CheckInventoryRequest>,
        recoded::<GetStockRequest>,
        recoded::<ListStockRequest>,
        recoded::<AdjustStockRequest>,
        recoded::<ReserveInventoryRequest>,
        recoded::<ReleaseInventoryRequest>,
        recoded::<RedeliverEventRequest>,
        recoded::<ListReservationsRequest>,
        recoded::<SettleReservationRequest>,
    ];
    assert_eq!(checks.len(), ALL.len(), "every route is here");
    checks.iter().for_each(|check| check(data));
}

fn recoded<R: Routed + PartialEq>(data: &[u8])
where
    R::Reply: PartialEq,
{
    for mismatch in [R::from_payload(data).err(), R::reply_from_payload(data).err()].into_iter().flatten() {
        let text = mismatch.to_string();
        assert!(text.len() < 8_192 && !text.contains(char::is_control), "a codec error fits a log line");
    }
    if let Ok(request) = R::from_payload(data) {
        let again = request.to_payload().expect("a request that was read can be written");
        assert!(R::from_payload(&again).is_ok_and(|read| read == request), "{}", R::ROUTE.path);
    }
    if let Ok(reply) = R::reply_from_payload(data) {
        let again = R::reply_to_payload(&reply).expect("a reply that was read can be written");
        assert!(R::reply_from_payload(&again).is_ok_and(|read| read == reply), "{}", R::ROUTE.path);
    }
    // A call that is passed through: the protobuf encoding of both.
    if let Ok(request) = R::decode(data) {
        let payload = (R::ROUTE.request)(data).expect("a message that was read can be written");
        assert!(R::from_payload(&payload).is_ok_and(|read| read == request), "{}", R::ROUTE.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_fuzzers_found_and_began_with_still_holds() {
        crate::replay::each("envelope", envelope);
        crate::replay::each("payload", payload);
    }
}
