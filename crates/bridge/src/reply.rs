//! Interprets a reply: an answer, or a refusal. Must not depend on the request.

use async_nats::Message;
use async_nats::header::HeaderValue;
use bytes::Bytes;
use catalog::Route;
use wire::failure::Code;
use wire::header;
use wire::{Delivered, Failure, ResponseMetadata, nestjs};

/// Maximum size of a JetStream acknowledgement, in bytes: the name of a stream has at most 255.
const ACKNOWLEDGEMENT: usize = 1_024;

/// A failed attempt, and whether it may be retried.
pub(super) struct AttemptError {
    pub(super) failure: Failure,
    pub(super) again: bool,
    /// Whether a retry adds no load, because the request was lost with its connection.
    pub(super) free: bool,
}

impl AttemptError {
    /// A failure without a retry.
    pub(super) fn last(failure: Failure) -> AttemptError {
        AttemptError { failure, again: false, free: false }
    }

    /// The same, with the trailers of the service's reply.
    pub(super) fn with(mut self, metadata: Option<Box<ResponseMetadata>>) -> AttemptError {
        self.failure.response = metadata;
        self
    }

    /// The same, if another request of the attempt may still be executed.
    pub(super) fn beside_another(mut self) -> AttemptError {
        if self.failure.certainty() == Delivered::No {
            self.failure = self.failure.delivered(Delivered::Unknown);
        }
        self
    }
}

/// A reply.
pub(super) enum Reply {
    /// An answer with its payload.
    Answer(Bytes),
    /// A refusal by the service.
    Refusal(AttemptError),
    /// Not a valid reply of a service of this kind.
    Nonsense,
}

/// Parses a reply; that of a NestJS service is in its envelope, with or without the headers of a refusal.
pub(super) fn read(route: &Route, nestjs: bool, message: Message) -> Reply {
    let opened = if nestjs { nestjs::answer(&message.payload) } else { None };
    match opened {
        Some(Ok(payload)) => return Reply::Answer(payload.into()),
        Some(Err(failure)) => return refused(route, failure),
        None => {}
    }
    match text(&message, header::SERVICE_ERROR_CODE) {
        Some(number) => {
            let words = text(&message, header::SERVICE_ERROR).unwrap_or_default();
            // An invalid number is still a refusal: 500.
            refused(route, Failure::from_service(number.parse().unwrap_or(500), words, &message.payload))
        }
        None if nestjs => Reply::Nonsense,
        None => Reply::Answer(message.payload),
    }
}

/// A header of a reply.
pub(super) fn text<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(HeaderValue::as_str)
}

/// A refusal is final, unless the service is unavailable and a retry is harmless, or it considered the request too
/// late.
pub(super) fn refused(route: &Route, failure: Failure) -> Reply {
    // Whoever answers has the request. That nothing was done is believed of services of this project alone.
    let failure = if route.trusted { failure } else { failure.delivered(Delivered::Yes) };
    let harmless = route.repeatable || failure.certainty() == Delivered::No;
    let again = (failure.code == Code::Unavailable && harmless) || late(&failure);
    Reply::Refusal(AttemptError { again, failure, free: false })
}

/// Whether a service reports that a request arrived too late, and that it did not begin with it.
pub(super) fn late(failure: &Failure) -> bool {
    failure.code == Code::DeadlineExceeded && failure.certainty() == Delivered::No
}

/// Whether this is a JetStream acknowledgement, an object with a stream name and a sequence, which no service replies.
pub(super) fn is_acknowledgement(payload: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Acknowledgement {
        stream: String,
        seq: u64,
    }
    // The server writes these two fields, and few others.
    payload.len() < ACKNOWLEDGEMENT
        && serde_json::from_slice::<Acknowledgement>(payload)
            .is_ok_and(|ack| !ack.stream.is_empty() && ack.seq < u64::MAX)
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use wire::Reason;

    use super::*;

    fn message(headers: Option<HeaderMap>, body: Vec<u8>) -> Message {
        Message {
            subject: "reply".into(),
            reply: None,
            payload: body.into(),
            headers,
            status: None,
            description: None,
            length: 0,
        }
    }

    fn route() -> Route {
        Route::clone(&crate::tests::contract().routes()[0])
    }

    fn refusal(number: &str) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(header::SERVICE_ERROR_CODE, number);
        headers.insert(header::SERVICE_ERROR, "no");
        Some(headers)
    }

    fn error(nestjs: bool, repeatable: bool, message: Message) -> AttemptError {
        match read(&Route { repeatable, ..route() }, nestjs, message) {
            Reply::Refusal(error) => error,
            Reply::Answer(_) | Reply::Nonsense => panic!("no refusal"),
        }
    }

    fn refused(number: &str, body: Vec<u8>, repeatable: bool) -> AttemptError {
        error(false, repeatable, message(refusal(number), body))
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
    fn what_was_too_late_to_begin_is_repeated_and_what_took_too_long_is_not() {
        let late = Failure::new(Reason::Timeout, "late");
        assert!(!refused("504", late.to_json(), true).again);
        assert!(!refused("504", late.clone().delivered(Delivered::Unknown).to_json(), true).again);
        assert!(refused("504", late.delivered(Delivered::No).to_json(), false).again);
    }

    #[test]
    fn a_service_of_somebody_else_cannot_make_a_request_be_sent_again() {
        let strange = Route { trusted: false, repeatable: false, ..route() };
        for reason in [Reason::Draining, Reason::Timeout] {
            let claim = Failure::new(reason, "not begun").delivered(Delivered::No);
            let number = if reason == Reason::Timeout { "504" } else { "503" };
            let Reply::Refusal(error) = read(&strange, false, message(refusal(number), claim.to_json()))
            else {
                panic!("no refusal");
            };
            assert_eq!((error.again, error.failure.certainty()), (false, Delivered::Yes));
        }
    }

    #[test]
    fn a_number_that_is_none_is_a_refusal_all_the_same() {
        assert_eq!(refused("soon", Vec::new(), true).failure.code, Code::Internal);
    }

    #[test]
    fn of_a_nest_service_the_envelope_is_opened_first() {
        let request = nestjs::call("x", b"{}").unwrap();
        let away = Failure::new(Reason::StorageUnavailable, "away");
        let enveloped = nestjs::reply(&request, &Err(away)).unwrap();
        let away = error(true, true, message(refusal("503"), enveloped));
        assert!(away.failure.is(Reason::StorageUnavailable) && away.again, "{}", away.failure);
        let plain = error(true, true, message(refusal("404"), Vec::new()));
        assert_eq!(plain.failure.code, Code::NotFound);
        let exception = br#"{"id":"1","err":"sold out","isDisposed":true}"#;
        let exception = error(true, true, message(None, exception.to_vec()));
        assert!(exception.failure.message == "sold out" && !exception.again);
        assert!(matches!(read(&route(), true, message(None, b"[]".to_vec())), Reply::Nonsense));
        let answer = nestjs::reply(&request, &Ok(b"[1]".to_vec())).unwrap();
        assert!(
            matches!(read(&route(), true, message(None, answer)), Reply::Answer(payload) if payload == "[1]")
        );
    }
}
