//! What went wrong between a client and a gateway, in words that say what to change. Must never repeat a credential.

use std::error::Error;
use std::time::Duration;

use http::Uri;
use tonic::{Code, Status};

/// A connection that was not made.
pub(super) fn unreachable(uri: &Uri, error: &dyn Error) -> anyhow::Error {
    let chain = chain(error);
    anyhow::anyhow!("cannot connect to {uri}: {chain}{}", advice(uri, &chain))
}

/// Nothing was said in time.
pub fn silent(uri: &Uri, limit: Duration) -> anyhow::Error {
    anyhow::anyhow!(
        "no answer from {uri} within {limit:?}: something there accepts connections and says nothing. It is a gateway that hangs \
         (or is stopped), or no gateway at all: check the port"
    )
}

/// A call that failed. `known`: we said who we are.
pub(super) fn failed(uri: &Uri, status: &Status, known: bool) -> anyhow::Error {
    let (code, message) = (status.code(), status.message());
    if let Some(source) = status.source() {
        let chain = chain(source);
        return anyhow::anyhow!("the call to {uri} failed: {chain}{}", advice(uri, &chain));
    }
    let advice = match code {
        Code::Unauthenticated if known => {
            ". It was sent who we are: the key, token or certificate is not one that this gateway knows"
        }
        Code::Unauthenticated => {
            ". Say who we are: --api-key-file, --token-file, or --cert and --key, as the gateway is set up"
        }
        Code::PermissionDenied => {
            ". The credential is known, and may not do this: give it the scope, or take another"
        }
        Code::Unimplemented => ". A gRPC server answers there that has no such service: check the port",
        // Proxies and HTTP servers.
        Code::Unknown | Code::Internal
            if message.contains("grpc-status") || message.contains("content-type") =>
        {
            ". What answers there is no gRPC server: check the port"
        }
        _ => "",
    };
    anyhow::anyhow!("{uri} answered {code:?}: {message}{advice}")
}

/// What to change, by what the libraries say.
fn advice(uri: &Uri, chain: &str) -> String {
    let has = |words: &[&str]| words.iter().any(|word| chain.contains(word));
    let tls = uri.scheme_str() == Some("https");
    let advice = if has(&["UnknownIssuer", "BadSignature"]) {
        "the authority that signed the gateway's certificate is not known here: name its certificate with --cacert FILE"
    } else if has(&["NotValidForName", "not valid for name"]) {
        "the gateway's certificate is for another name: use that name in the address, or say it with --authority NAME"
    } else if has(&["certificate expired", "Expired", "NotValidYet"]) {
        "the gateway's certificate is not valid now: renew it, or look at the clocks"
    } else if has(&["CertificateRequired", "HandshakeFailure"]) {
        "the gateway wants a client certificate: --cert FILE --key FILE"
    } else if has(&["UnknownCA", "BadCertificate", "CertificateUnknown", "AccessDenied", "DecryptError"]) {
        "the gateway does not take our client certificate (--cert): its authority (GW_TLS_CLIENT_CA) has to have signed it"
    } else if has(&["InvalidContentType", "corrupt message"]) {
        "there is no TLS at that port: write http://, or give another port"
    } else if has(&["onnection refused"]) {
        "nothing listens there: is the gateway running, and is it this port?"
    } else if has(&["dns error", "failed to lookup", "Name or service not known"]) {
        "the name has no address"
    } else if has(&["timed out", "timeout", "deadline has elapsed"])
        || (has(&["operation was canceled"]) && !has(&["connection closed"]))
    {
        "nothing answers there in time: a firewall, another port, or a gateway that hangs"
    } else if tls {
        "TLS was not agreed on: is the port one with TLS, and do we have the client certificate that it wants (--cert, --key)?"
    } else {
        "what is there does not speak HTTP/2 without TLS: if it is TLS, write https:// (and --cacert); if it is the HTTP port, give the gRPC port (50051)"
    };
    format!(". {}{}", advice[..1].to_uppercase(), &advice[1..])
}

/// An error with its causes, each once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text.truncate(text.trim_end_matches('.').len());
    text
}
