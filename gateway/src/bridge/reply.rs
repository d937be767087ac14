//! What a message that came back means: an answer, or a refusal. Must never know what was asked.

use async_nats::Message;
use async_nats::header::HeaderValue;
use bytes::Bytes;
use contract::failure::Code;
use contract::{Delivered, Failure, Route, header};

use super::Setback;

/// The reply's payload, or the refusal of the service behind.
pub(super) fn read(route: &Route, message: Message) -> Result<Bytes, Setback> {
    let text = |name| message.headers.as_ref()?.get(name).map(HeaderValue::as_str);
    let Some(number) = text(header::SERVICE_ERROR_CODE) else {
        return Ok(message.payload);
    };
    let words = text(header::SERVICE_ERROR).unwrap_or_default();
    // A number that is none is still a refusal: 500.
    let failure = Failure::from_service(number.parse().unwrap_or(500), words, &message.payload);
    let harmless = route.repeatable || delivered(&failure) == Some(Delivered::No.name());
    Err(Setback { again: failure.code == Code::Unavailable && harmless, failure })
}

/// What the failure says about `delivered`.
pub(super) fn delivered(failure: &Failure) -> Option<&str> {
    failure.metadata.get("delivered").map(String::as_str)
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use contract::Reason;
    use contract::route::ALL;

    use super::*;

    fn refused(number: &str, body: Vec<u8>, repeatable: bool) -> Setback {
        let mut headers = HeaderMap::new();
        headers.insert(header::SERVICE_ERROR_CODE, number);
        headers.insert(header::SERVICE_ERROR, "no");
        let message = Message {
            subject: "reply".into(),
            reply: None,
            payload: body.into(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        };
        read(&Route { repeatable, ..*ALL[0] }, message).err().unwrap()
    }

    #[test]
    fn a_refusal_keeps_its_reason_and_is_final_unless_unavailable() {
        let full = refused("429", Failure::new(Reason::Overloaded, "busy").to_json(), true);
        assert!(full.failure.is(Reason::Overloaded) && !full.again);
        let away = refused("503", Failure::new(Reason::StorageUnavailable, "away").to_json(), true);
        assert!(away.failure.is(Reason::StorageUnavailable) && away.again);
    }

    #[test]
    fn what_may_not_be_repeated_is_repeated_only_when_surely_not_done() {
        assert!(!refused("503", Vec::new(), false).again);
        let draining = Failure::new(Reason::Draining, "bye").delivered(Delivered::No);
        assert!(refused("503", draining.to_json(), false).again);
    }

    #[test]
    fn a_number_that_is_none_is_a_refusal_all_the_same() {
        assert_eq!(refused("soon", Vec::new(), true).failure.code, Code::Internal);
    }
}
