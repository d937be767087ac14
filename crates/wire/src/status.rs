//! The encoding of a failure by a NATS service: google.rpc.Status as JSON in the body, and the number that ADR-32
//! requires in a header. Also decodes errors of services that send only the ADR-32 headers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::{Code, DELIVERED, Detail, Failure, Violation};
use crate::{Delivered, FieldViolation};

#[derive(Serialize, Deserialize)]
struct Status {
    code: i32,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Vec<Any>,
}

/// The details that we know; others are skipped.
#[derive(Serialize, Deserialize)]
#[serde(tag = "@type")]
enum Any {
    #[serde(rename = "type.googleapis.com/google.rpc.ErrorInfo")]
    ErrorInfo {
        reason: String,
        domain: String,
        #[serde(default)]
        metadata: BTreeMap<String, String>,
    },
    #[serde(rename = "type.googleapis.com/google.rpc.BadRequest", rename_all = "camelCase")]
    BadRequest { field_violations: Vec<BadField> },
    #[serde(rename = "type.googleapis.com/google.rpc.PreconditionFailure")]
    PreconditionFailure { violations: Vec<PreconditionViolation> },
    #[serde(rename = "type.googleapis.com/google.rpc.ResourceInfo", rename_all = "camelCase")]
    ResourceInfo { resource_type: String, resource_name: String },
    #[serde(rename = "type.googleapis.com/google.rpc.RetryInfo", rename_all = "camelCase")]
    RetryInfo { retry_delay: String },
    #[serde(rename = "type.googleapis.com/google.rpc.QuotaFailure")]
    QuotaFailure { violations: Vec<QuotaViolation> },
    #[serde(other)]
    Unknown,
}

#[derive(Serialize, Deserialize)]
struct BadField {
    field: String,
    description: String,
}

#[derive(Serialize, Deserialize)]
struct PreconditionViolation {
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    description: String,
}

#[derive(Serialize, Deserialize)]
struct QuotaViolation {
    subject: String,
    description: String,
}

impl Failure {
    /// The reply's body.
    pub fn to_json(&self) -> Vec<u8> {
        let info = Any::ErrorInfo {
            reason: self.reason.to_string(),
            domain: self.domain.to_string(),
            metadata: self.told(),
        };
        let details = std::iter::once(info).chain(self.details.iter().cloned().map(Any::from)).collect();
        let status = Status { code: self.code as i32, message: self.message.clone(), details };
        serde_json::to_vec(&status).unwrap_or_default()
    }

    /// The failure in a service's answer: the body if it is a Status, else the ADR-32 headers.
    pub fn from_service(number: u16, text: &str, body: &[u8]) -> Failure {
        match serde_json::from_slice::<Status>(body) {
            Ok(status) if status.code != 0 => Failure::from_status(status),
            _ => Failure {
                code: code_of(number),
                reason: Cow::Owned(format!("SERVICE_ERROR_{number}")),
                domain: Cow::Borrowed("nats.service"),
                message: text.to_owned(),
                delivered: Some(Delivered::Yes),
                metadata: BTreeMap::new(),
                details: Vec::new(),
                response: None,
                cause: None,
            },
        }
    }

    fn from_status(status: Status) -> Failure {
        let mut failure = Failure {
            code: Code::from_i32(status.code),
            reason: Cow::Borrowed("UNSPECIFIED"),
            domain: Cow::Borrowed("nats.service"),
            message: status.message,
            delivered: Some(Delivered::Yes),
            metadata: BTreeMap::new(),
            details: Vec::new(),
            response: None,
            cause: None,
        };
        for any in status.details {
            match any {
                Any::ErrorInfo { reason, domain, mut metadata } => {
                    failure.reason = Cow::Owned(reason);
                    failure.domain = Cow::Owned(domain);
                    let delivered = metadata.remove(DELIVERED).map(|text| Delivered::parse(&text));
                    failure.delivered = delivered.or(failure.delivered);
                    failure.metadata.extend(metadata);
                }
                other => failure.details.extend(Detail::try_from(other)),
            }
        }
        failure
    }

    /// The number that ADR-32 requires: the HTTP status nearest in meaning.
    pub fn number(&self) -> u16 {
        match self.code {
            Code::InvalidArgument | Code::OutOfRange => 400,
            Code::Unauthenticated => 401,
            Code::PermissionDenied => 403,
            Code::NotFound => 404,
            Code::AlreadyExists | Code::Aborted => 409,
            Code::FailedPrecondition => 412,
            Code::ResourceExhausted => 429,
            Code::Cancelled => 499,
            Code::Unimplemented => 501,
            Code::Unavailable => 503,
            Code::DeadlineExceeded => 504,
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => 500,
        }
    }
}

fn code_of(number: u16) -> Code {
    match number {
        400 | 422 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::Aborted,
        412 => Code::FailedPrecondition,
        408 | 504 => Code::DeadlineExceeded,
        413 | 429 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        402 | 405..=407 | 410 | 411 | 414..=421 | 423..=428 | 430..=498 => Code::FailedPrecondition,
        _ => Code::Internal,
    }
}

impl From<Detail> for Any {
    fn from(detail: Detail) -> Any {
        match detail {
            Detail::BadRequest(faults) => Any::BadRequest {
                field_violations: faults
                    .into_iter()
                    .map(|fault| BadField { field: fault.field, description: fault.description })
                    .collect(),
            },
            Detail::Precondition(violations) => Any::PreconditionFailure {
                violations: violations
                    .into_iter()
                    .map(|v| PreconditionViolation {
                        kind: v.kind,
                        subject: v.subject,
                        description: v.description,
                    })
                    .collect(),
            },
            Detail::Resource { kind, name } => Any::ResourceInfo { resource_type: kind, resource_name: name },
            Detail::Retry(delay) => Any::RetryInfo { retry_delay: format!("{}s", delay.as_secs_f64()) },
            Detail::Quota { subject, description } => {
                Any::QuotaFailure { violations: vec![QuotaViolation { subject, description }] }
            }
        }
    }
}

impl TryFrom<Any> for Detail {
    type Error = ();

    fn try_from(any: Any) -> Result<Detail, ()> {
        Ok(match any {
            Any::BadRequest { field_violations } => Detail::BadRequest(
                field_violations.into_iter().map(|v| FieldViolation::new(v.field, v.description)).collect(),
            ),
            Any::PreconditionFailure { violations } => Detail::Precondition(
                violations
                    .into_iter()
                    .map(|v| Violation { kind: v.kind, subject: v.subject, description: v.description })
                    .collect(),
            ),
            Any::ResourceInfo { resource_type, resource_name } => {
                Detail::Resource { kind: resource_type, name: resource_name }
            }
            Any::RetryInfo { retry_delay } => {
                let seconds = retry_delay.trim_end_matches('s').parse().map_err(|_| ())?;
                Detail::Retry(Duration::try_from_secs_f64(seconds).map_err(|_| ())?)
            }
            Any::QuotaFailure { violations } => {
                let violation = violations.into_iter().next().ok_or(())?;
                Detail::Quota { subject: violation.subject, description: violation.description }
            }
            Any::ErrorInfo { .. } | Any::Unknown => return Err(()),
        })
    }
}
