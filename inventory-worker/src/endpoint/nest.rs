//! The envelope of NestJS: `{"pattern","data","id"}` in, `{"id","response","isDisposed"}` or `{"id","err",
//! "isDisposed"}` out. A payload that is no envelope passes unchanged.

use contract::Failure;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

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

/// As an `RpcException` with an object.
#[derive(Serialize)]
struct Rejection<'a> {
    status: &'static str,
    message: &'a str,
    reason: &'a str,
    details: &'a RawValue,
}

/// What a request asks with, out of its envelope if it has one.
pub fn payload(bytes: &[u8]) -> &[u8] {
    envelope(bytes).map_or(bytes, |envelope| envelope.data.get().as_bytes())
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
    // An object that begins like one; arrays and our own requests are not parsed twice.
    let begins = bytes.trim_ascii_start().first() == Some(&b'{');
    let named = bytes.windows(9).any(|window| window == b"\"pattern\"");
    if begins && named { serde_json::from_slice(bytes).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_opened_and_answered_in_kind() {
        let request = br#"{"pattern":"check_inventory","data":[{"productId":"lamp","quantity":1}],"id":"7"}"#;
        assert_eq!(payload(request), br#"[{"productId":"lamp","quantity":1}]"#);
        let answer = reply(request, &Ok(br#"{"available":true}"#.to_vec())).unwrap();
        assert_eq!(answer, br#"{"id":"7","response":{"available":true},"isDisposed":true}"#);
    }

    #[test]
    fn a_refusal_in_an_envelope_is_an_err() {
        let request = br#"{"pattern":"x","data":{},"id":"7"}"#;
        let refusal = Err(Failure::new(contract::Reason::NotFound, "no such thing"));
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
}
