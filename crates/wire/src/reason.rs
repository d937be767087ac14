//! Reasons: the stable names by which callers branch on a failure, each with its status code. The gateway's own are here, a
//! closed set; a domain declares its own with [`reasons!`](crate::reasons), and the gateway passes them through.

use tonic::Code;

/// The domain of the reasons that this system gives.
pub const DOMAIN: &str = "orders.gateway";

/// A reason that a failure can be made with.
pub trait ErrorReason: Copy {
    /// The name, as in google.rpc.ErrorInfo.
    fn name(self) -> &'static str;

    /// The status code.
    fn code(self) -> Code;
}

/// Declares an enum of reasons: variant, name on the wire, status code.
#[macro_export]
macro_rules! reasons {
    ($(#[$of:meta])* $enum:ident { $($(#[$doc:meta])* $name:ident = $text:literal => $code:ident;)* }) => {
        $(#[$of])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $enum { $($(#[$doc])* $name,)* }

        impl $enum {
            /// Every reason.
            pub const ALL: &[$enum] = &[$($enum::$name,)*];
            /// Their names.
            pub const NAMES: &[&str] = &[$($text,)*];

            /// The name, as in google.rpc.ErrorInfo.
            pub const fn name(self) -> &'static str {
                match self { $($enum::$name => $text,)* }
            }

            /// The status code.
            pub const fn code(self) -> $crate::failure::Code {
                match self { $($enum::$name => $crate::failure::Code::$code,)* }
            }
        }

        impl $crate::ErrorReason for $enum {
            fn name(self) -> &'static str {
                self.name()
            }

            fn code(self) -> $crate::failure::Code {
                self.code()
            }
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

reasons! {
    /// Why a call failed, whatever the service. Stable: clients branch on the name.
    Reason {
        /// Fields are missing or malformed; BadRequest lists them all.
        InvalidRequest = "INVALID_REQUEST" => InvalidArgument;
        /// Concurrent changes prevented this one: repeat.
        Contention = "CONTENTION" => Aborted;
        /// The caller is unknown: no credential, or an invalid one.
        Unauthenticated = "UNAUTHENTICATED" => Unauthenticated;
        /// The caller is known and may not do this.
        PermissionDenied = "PERMISSION_DENIED" => PermissionDenied;
        /// The keys that verify tokens have not been fetched yet.
        KeysUnavailable = "KEYS_UNAVAILABLE" => Unavailable;
        /// The caller has used up its share of a limit, or its rate limit.
        QuotaExceeded = "QUOTA_EXCEEDED" => ResourceExhausted;
        /// The last message of the subject has another sequence than the caller expects: read it, and decide anew.
        SequenceConflict = "SEQUENCE_CONFLICT" => Aborted;
        /// A service stopped in the middle of a stream, without its end.
        StreamSilent = "STREAM_SILENT" => Unavailable;
        /// Messages of a stream are missing.
        StreamGap = "STREAM_GAP" => DataLoss;
        /// The caller reads more slowly than a stream's messages come.
        SlowClient = "SLOW_CLIENT" => ResourceExhausted;
        /// The stream that a token belongs to is gone, or has lost what is behind it.
        PositionLost = "POSITION_LOST" => OutOfRange;
        /// There is no such thing.
        NotFound = "NOT_FOUND" => NotFound;
        /// No responders on the subject; nothing was delivered.
        NoResponders = "NO_RESPONDERS" => Unavailable;
        /// A stream captures the subject and would answer in the service's place; nothing was sent.
        SubjectCaptured = "SUBJECT_CAPTURED" => Unavailable;
        /// There is no connection to NATS.
        NatsDisconnected = "NATS_DISCONNECTED" => Unavailable;
        /// The stream is missing or has no leader.
        StorageUnavailable = "STORAGE_UNAVAILABLE" => Unavailable;
        /// A storage limit of JetStream is reached.
        StorageFull = "STORAGE_FULL" => ResourceExhausted;
        /// It may or may not have happened: repeat with the same request_id.
        OutcomeUnknown = "OUTCOME_UNKNOWN" => Unavailable;
        /// The process is shutting down: call another one.
        Draining = "DRAINING" => Unavailable;
        /// No answer in time.
        Timeout = "TIMEOUT" => DeadlineExceeded;
        /// The caller's own deadline passed.
        Deadline = "DEADLINE" => DeadlineExceeded;
        /// No service here has such an rpc.
        UnknownRpc = "UNKNOWN_RPC" => Unimplemented;
        /// The rest of a request did not arrive in time.
        RequestIncomplete = "REQUEST_INCOMPLETE" => Cancelled;
        /// A request's messages are compressed in an unsupported way; `grpc-accept-encoding` lists the supported ones.
        UnsupportedEncoding = "UNSUPPORTED_ENCODING" => Unimplemented;
        /// A request or reply is over the size limit.
        PayloadTooLarge = "PAYLOAD_TOO_LARGE" => ResourceExhausted;
        /// A concurrency limit is reached.
        Overloaded = "OVERLOADED" => ResourceExhausted;
        /// A service behind the gateway sent an answer that the contract does not allow.
        ContractViolation = "CONTRACT_VIOLATION" => Internal;
        /// The gateway's NATS user has no permission for the subject.
        GatewayNotPermitted = "GATEWAY_NOT_PERMITTED" => Internal;
        /// An internal error.
        Internal = "INTERNAL" => Internal;
    }
}

/// The reason as a metric label: one of the gateway's, or one of those that its domain declares; a closed set, whatever
/// services behind the gateway send.
pub fn label(declared: &[&'static str], domain: &str, reason: &str) -> &'static str {
    let known = Reason::NAMES.iter().chain(declared).find(|known| **known == reason);
    known.filter(|_| domain == DOMAIN).copied().unwrap_or("OTHER")
}
