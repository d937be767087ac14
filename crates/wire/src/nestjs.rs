//! The envelope of NestJS (`@nestjs/microservices`, NATS transport), from both sides: a request is
//! `{"pattern","data","id"}`, a reply is `{"id","response","isDisposed"}` or `{"id","err","isDisposed"}`. A request
//! without an envelope passes unchanged.

use std::borrow::Cow;

use memchr::memmem;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::failure::{Code, Delivered, Failure};

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "pattern")]
    _pattern: &'a RawValue,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    id: &'a RawValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    id: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    err: Option<Rejection<'a>>,
    is_disposed: bool,
}

/// An error like that of an `RpcException` with an object.
#[derive(Serialize)]
struct Rejection<'a> {
    status: &'static str,
    message: &'a str,
    reason: &'a str,
    details: &'a RawValue,
}

/// A call as a client writes it. Each call has its own reply inbox, so any id will do; without an id there is no reply.
#[derive(Serialize)]
struct Call<'a> {
    pattern: &'a str,
    data: &'a RawValue,
    id: &'static str,
}

/// An event as a client writes it.
#[derive(Serialize)]
struct Event<'a> {
    pattern: &'a str,
    data: &'a RawValue,
}

/// An event as a subscriber reads it.
#[derive(Deserialize)]
struct Published<'a> {
    #[serde(borrow, rename = "pattern")]
    _pattern: &'a RawValue,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// A reply as a client reads it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    err: Option<&'a RawValue>,
    /// Whether it is the last reply. Not on those before the last.
    is_disposed: Option<bool>,
    /// Every envelope has this field or the one before, and hardly anything else has both a response and an id.
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

impl<'a> Answer<'a> {
    fn read(bytes: &'a [u8]) -> Option<Answer<'a>> {
        let answer: Answer<'_> = serde_json::from_slice(bytes).ok()?;
        let told = answer.response.is_some() || answer.err.is_some();
        (answer.is_disposed.is_some() || (answer.id.is_some() && told)).then_some(answer)
    }
}

/// An error as a client reads it, if it is not a string.
#[derive(Deserialize)]
struct Refusal<'a> {
    #[serde(default, borrow)]
    message: Cow<'a, str>,
    #[serde(borrow)]
    details: Option<&'a RawValue>,
}

/// A request to a NestJS service: the pattern is the subject. `None` for a payload that is not JSON.
pub fn call(subject: &str, payload: &[u8]) -> Option<Vec<u8>> {
    let data = serde_json::from_slice(payload).ok()?;
    serde_json::to_vec(&Call { pattern: subject, data, id: "1" }).ok()
}

/// An event for a NestJS service: the pattern is the subject. `None` for a payload that is not JSON.
pub fn event(subject: &str, payload: &[u8]) -> Option<Vec<u8>> {
    let data = serde_json::from_slice(payload).ok()?;
    serde_json::to_vec(&Event { pattern: subject, data }).ok()
}

/// The answer of a NestJS service: the reply's payload, or its error, which says that the request was delivered unless
/// the service says otherwise. `None` if it is not an envelope. Of several replies the first counts, as for a client of
/// NestJS that takes one value.
pub fn answer(bytes: &[u8]) -> Option<Result<Vec<u8>, Failure>> {
    // A handler that returns nothing has no `response`.
    part(bytes).map(|part| part.map(|(payload, _)| payload.unwrap_or_else(|| b"{}".to_vec())))
}

/// One of several replies of a NestJS service: its payload, if it has one, and whether it is the last. `None` if it is
/// not an envelope.
#[expect(clippy::type_complexity, reason = "a payload, and whether it is the last")]
pub fn part(bytes: &[u8]) -> Option<Result<(Option<Vec<u8>>, bool), Failure>> {
    let answer = Answer::read(bytes)?;
    Some(match answer.err {
        Some(err) if err.get() != "null" => Err(refusal(err.get())),
        _ => {
            let payload = answer.response.map(|response| response.get().as_bytes().to_vec());
            Ok((payload, answer.is_disposed == Some(true)))
        }
    })
}

/// `RpcException` gives a string or an object; NestJS replaces any other exception by "Internal server error".
fn refusal(err: &str) -> Failure {
    let text = serde_json::from_str::<String>(err).ok();
    let object = serde_json::from_str::<Refusal<'_>>(err).ok();
    if let Some(details) = object.as_ref().and_then(|refusal| refusal.details) {
        return Failure::from_service(500, "", details.get().as_bytes());
    }
    let message = text.or(object.map(|refusal| refusal.message.into_owned())).unwrap_or_default();
    let hidden = message == "Internal server error";
    Failure {
        code: if hidden { Code::Internal } else { Code::Unknown },
        reason: Cow::Borrowed("NEST_EXCEPTION"),
        domain: Cow::Borrowed("nats.service"),
        message,
        delivered: Some(Delivered::Yes),
        metadata: std::collections::BTreeMap::new(),
        details: Vec::new(),
        response: None,
        cause: None,
    }
}

/// The payload of a request, taken out of its envelope if it has one.
pub fn payload(bytes: &[u8]) -> &[u8] {
    envelope(bytes).map_or(bytes, |envelope| envelope.data.get().as_bytes())
}

/// The payload of an event, taken out of its envelope if it has one: unlike that of a request, it has no id.
pub fn event_payload(bytes: &[u8]) -> &[u8] {
    serde_json::from_slice::<Published<'_>>(bytes).map_or(bytes, |event| event.data.get().as_bytes())
}

/// The reply in its envelope, for a request that came in one.
pub fn reply(request: &[u8], result: &Result<Vec<u8>, Failure>) -> Option<Vec<u8>> {
    let envelope = envelope(request)?;
    let body = match result {
        Ok(payload) => payload.clone(),
        Err(failure) => failure.to_json(),
    };
    let body: &RawValue = serde_json::from_slice(&body).ok()?;
    let err = result.as_ref().err().map(|failure| Rejection {
        status: "error",
        message: &failure.message,
        reason: &failure.reason,
        details: body,
    });
    let response = result.is_ok().then_some(body);
    serde_json::to_vec(&Reply { id: envelope.id, response, err, is_disposed: true }).ok()
}

fn envelope(bytes: &[u8]) -> Option<Envelope<'_>> {
    // Only an object that looks like one is parsed, so that arrays and our own requests are not parsed twice.
    let begins = bytes.trim_ascii_start().first() == Some(&b'{');
    if begins && memmem::find(bytes, b"\"pattern\"").is_some() {
        serde_json::from_slice(bytes).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;

    #[test]
    fn an_envelope_is_opened_and_answered_in_kind() {
        let request = br#"{"pattern":"check_inventory","data":[{"productId":"lamp","quantity":1}],"id":"7"}"#;
        assert_eq!(payload(request), br#"[{"productId":"lamp","quantity":1}]"#);
        let answer = reply(request, &Ok(br#"{"available":true}"#.to_vec())).unwrap();
        assert_eq!(answer, br#"{"id":"7","response":{"available":true},"isDisposed":true}"#);
    }

    #[test]
    fn an_event_is_taken_out_of_its_envelope() {
        let event = event("books.new", br#"{"title":"b-7"}"#).unwrap();
        assert_eq!(event_payload(&event), br#"{"title":"b-7"}"#);
        for plain in [&b"[1]"[..], br#"{"title":"b-7"}"#, b"", b"\xff"] {
            assert_eq!(event_payload(plain), plain);
        }
    }

    #[test]
    fn a_refusal_in_an_envelope_is_an_err() {
        let request = br#"{"pattern":"x","data":{},"id":"7"}"#;
        let refusal = Err(Failure::new(Reason::NotFound, "no such thing"));
        let answer: serde_json::Value = serde_json::from_slice(&reply(request, &refusal).unwrap()).unwrap();
        assert_eq!(answer["err"]["status"], "error");
        assert_eq!(answer["err"]["reason"], "NOT_FOUND");
        assert!(answer.get("response").is_none());
    }

    #[test]
    fn plain_payloads_pass_unchanged() {
        for plain in [&b"[1]"[..], b"{\"orderId\":\"x\"}", b"", b"{\"pattern\":1}", b"\xff"] {
            assert_eq!(payload(plain), plain);
            assert!(reply(plain, &Ok(b"{}".to_vec())).is_none());
        }
    }

    #[test]
    fn a_client_understands_what_a_service_answers() {
        let request = call("check_inventory", b"[1]").unwrap();
        assert_eq!(request, br#"{"pattern":"check_inventory","data":[1],"id":"1"}"#);
        assert_eq!(payload(&request), b"[1]");
        let answered = reply(&request, &Ok(b"{\"available\":true}".to_vec())).unwrap();
        assert_eq!(answer(&answered).unwrap().unwrap(), b"{\"available\":true}");
        let refused = reply(&request, &Err(Failure::new(Reason::NotFound, "no such thing"))).unwrap();
        assert!(answer(&refused).unwrap().unwrap_err().is(Reason::NotFound));
        assert_eq!(answer(br#"{"id":"1","isDisposed":true}"#).unwrap().unwrap(), b"{}");
        assert!(answer(br#"{"available":true}"#).is_none() && answer(b"nonsense").is_none());
        assert!(call("x", b"nonsense").is_none());
    }

    #[test]
    fn exceptions_keep_their_text() {
        let of = |err: &str| {
            answer(format!(r#"{{"id":"1","err":{err},"isDisposed":true}}"#).as_bytes()).unwrap().unwrap_err()
        };
        let text = of(r#""sold out""#);
        assert_eq!((text.code, text.message.as_str()), (Code::Unknown, "sold out"));
        let object = of(r#"{"status":"error","message":"sold out"}"#);
        assert_eq!((object.code, object.message.as_str()), (Code::Unknown, "sold out"));
        assert_eq!(of(r#"{"status":"error","message":"Internal server error"}"#).code, Code::Internal);
    }
}
