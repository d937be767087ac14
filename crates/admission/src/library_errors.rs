//! Replaces errors that the gRPC library creates itself by ours: with a reason, and the code that the contract
//! promises. Must not change an error of ours.

use tonic::body::Body;
use tonic::{Code, Status};
use wire::{Delivered, Failure, Reason};

use crate::status;

/// Replaces the library's own error in a response.
pub(crate) fn explained(response: http::Response<Body>) -> http::Response<Body> {
    let headers = response.headers();
    // The library's errors have no details; ours always do.
    if !headers.contains_key(Status::GRPC_STATUS) || headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return response;
    }
    match Status::from_header_map(headers).as_ref().and_then(explain) {
        Some(failure) => status(failure).into_http(),
        None => response,
    }
}

/// The failure for an error of the library.
fn explain(error: &Status) -> Option<Failure> {
    let message = error.message();
    let failure = match error.code() {
        Code::OutOfRange | Code::ResourceExhausted => {
            let mut numbers =
                message.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
            let failure = Failure::new(Reason::PayloadTooLarge, message);
            match (numbers.next(), numbers.next()) {
                (Some(size), Some(limit)) => failure.with("size", size).with("limit", limit),
                _ => failure,
            }
        }
        Code::Internal => {
            Failure::new(Reason::InvalidRequest, format!("the message cannot be read: {message}"))
        }
        Code::Unimplemented if message.is_empty() => Failure::new(Reason::UnknownRpc, "there is no such rpc"),
        _ => return None,
    };
    Some(failure.delivered(Delivered::No))
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    fn told(error: Status) -> Status {
        Status::from_header_map(explained(error.into_http()).headers()).unwrap()
    }

    fn reason(status: &Status) -> String {
        status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
    }

    #[test]
    fn the_librarys_errors_get_our_codes_and_reasons() {
        let large = "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes";
        let cases = [
            (Status::out_of_range(large), Code::ResourceExhausted, "PAYLOAD_TOO_LARGE"),
            (Status::internal("failed to decode Protobuf message"), Code::InvalidArgument, "INVALID_REQUEST"),
            (Status::unimplemented(""), Code::Unimplemented, "UNKNOWN_RPC"),
        ];
        for (error, code, expected) in cases {
            let told = told(error);
            assert_eq!((told.code(), reason(&told).as_str()), (code, expected));
        }
        let info = told(Status::out_of_range(large)).get_details_error_info().unwrap();
        assert_eq!((info.metadata["size"].as_str(), info.metadata["limit"].as_str()), ("9", "4"));
    }

    #[test]
    fn our_own_errors_stay_as_they_are() {
        let ours = status(Failure::new(Reason::ContractViolation, "x"));
        assert_eq!(reason(&told(ours)), "CONTRACT_VIOLATION");
        assert_eq!(told(Status::unavailable("x")).message(), "x");
        assert!(explained(http::Response::new(Body::empty())).headers().is_empty());
    }
}
