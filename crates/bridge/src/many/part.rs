//! One reply of a stream of replies: a message, its end, or both. Must not know the messages before it, but for their
//! numbers.

use async_nats::Message;
use bytes::Bytes;
use catalog::Route;
use wire::{Delivered, Failure, Reason, header, nestjs};

use crate::reply::{Reply, refused, text};

/// What a reply is.
#[derive(Debug)]
pub(super) struct Part {
    /// Its message.
    pub(super) payload: Option<Bytes>,
    /// How the stream ends with it, if it does.
    pub(super) end: Option<Result<(), Failure>>,
}

/// Checks the numbers of the messages, where a service gives them.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    last: Option<u64>,
}

impl Part {
    /// Reads a reply. The marks of an end are those of ADR-47 (an empty message without headers), of protoc-gen-nats-micro
    /// (a header), of NestJS (`isDisposed`), and the error of ADR-32.
    pub(super) fn read(route: &Route, nest: bool, message: Message) -> Part {
        if let Some(code) = text(&message, header::SERVICE_ERROR_CODE) {
            let words = text(&message, header::SERVICE_ERROR).unwrap_or_default();
            let failure = Failure::from_service(code.parse().unwrap_or(500), words, &message.payload);
            let Reply::Refusal(error) = refused(route, failure) else { return Part::last(Ok(())) };
            return Part::last(Err(error.failure));
        }
        if nest {
            return match nestjs::part(&message.payload) {
                Some(Ok((payload, last))) => {
                    Part { payload: payload.map(Bytes::from), end: last.then_some(Ok(())) }
                }
                Some(Err(failure)) => match refused(route, failure) {
                    Reply::Refusal(error) => Part::last(Err(error.failure)),
                    Reply::Answer(_) | Reply::Nonsense => Part::last(Ok(())),
                },
                None => Part::last(Err(no_envelope(route))),
            };
        }
        let bare = message.headers.as_ref().is_none_or(async_nats::HeaderMap::is_empty);
        let ends = text(&message, header::STREAM_END).is_some_and(|end| end.eq_ignore_ascii_case("true"));
        match message.payload.is_empty() {
            true if bare || ends => Part::last(Ok(())),
            _ => Part { payload: Some(message.payload), end: ends.then_some(Ok(())) },
        }
    }

    fn last(end: Result<(), Failure>) -> Part {
        Part { payload: None, end: Some(end) }
    }
}

impl Numbers {
    /// Checks the number of a message that has one.
    pub(super) fn check(&mut self, message: &Message) -> Result<(), Failure> {
        let Some(number) = text(message, header::STREAM_SEQ).and_then(|number| number.parse::<u64>().ok())
        else {
            return Ok(());
        };
        match self.last.replace(number) {
            Some(last) if last.checked_add(1) != Some(number) => {
                let missing = format!("after message {last} of the stream comes {number}");
                Err(Failure::new(Reason::StreamGap, missing).delivered(Delivered::Yes))
            }
            _ => Ok(()),
        }
    }

    /// Whether the service gives numbers.
    pub(super) fn are_given(&self) -> bool {
        self.last.is_some()
    }
}

fn no_envelope(route: &Route) -> Failure {
    let message = format!("a reply of the service for {} is not one of NestJS", route.rpc);
    Failure::new(Reason::ContractViolation, message).delivered(Delivered::Yes)
}
