//! Error messages for clients of a gateway: what failed, and what to change. Must not repeat a credential.

use std::error::Error;
use std::time::Duration;

use http::Uri;
use tonic::{Code, Status};

/// The error of a connection that failed.
pub(super) fn unreachable(uri: &Uri, error: &dyn Error) -> anyhow::Error {
    let chain = chain(error);
    anyhow::anyhow!("cannot connect to {uri}: {chain}{}", advice(uri, &chain))
}

/// The error of a call that was not answered in time.
pub fn silent(uri: &Uri, limit: Duration) -> anyhow::Error {
    anyhow::anyhow!(
        "no answer from {uri} within {limit:?}: something accepts connections there, but does not answer. \
         Either the gateway hangs (or is stopped), or it is not a gateway: check the port"
    )
}

/// The error of a call that failed. `known`: whether credentials were sent.
pub(super) fn failed(uri: &Uri, status: &Status, known: bool) -> anyhow::Error {
    let (code, message) = (status.code(), status.message());
    if let Some(source) = status.source() {
        let chain = chain(source);
        return anyhow::anyhow!("the call to {uri} failed: {chain}{}", advice(uri, &chain));
    }
    let advice = match code {
        Code::Unauthenticated if known => {
            ". Credentials were sent, but this gateway does not know the key, token or certificate"
        }
        Code::Unauthenticated => {
            ". Give credentials: --api-key-file, --token-file, or --cert and --key, whichever the gateway accepts"
        }
        Code::PermissionDenied => {
            ". The credential is valid, but lacks the scope: grant the scope, or use another credential"
        }
        Code::Unimplemented => ". The gRPC server there has no such service: check the port",
        // Proxies and HTTP servers.
        Code::Unknown | Code::Internal
            if message.contains("grpc-status") || message.contains("content-type") =>
        {
            ". The server there is not a gRPC server: check the port"
        }
        _ => "",
    };
    anyhow::anyhow!("{uri} answered {code:?}: {message}{advice}")
}

/// What to change, derived from the libraries' error texts.
fn advice(uri: &Uri, chain: &str) -> String {
    let has = |words: &[&str]| words.iter().any(|word| chain.contains(word));
    let tls = uri.scheme_str() == Some("https");
    let advice = if has(&["UnknownIssuer", "BadSignature"]) {
        "the CA that signed the gateway's certificate is not trusted: give its certificate with --cacert FILE"
    } else if has(&["NotValidForName", "not valid for name"]) {
        "the gateway's certificate is for another name: use that name in the address, or give it with --authority NAME"
    } else if has(&["certificate expired", "Expired", "NotValidYet"]) {
        "the gateway's certificate is not valid now: renew it, or check the clocks"
    } else if has(&["CertificateRequired", "HandshakeFailure"]) {
        "the gateway requires a client certificate: --cert FILE --key FILE"
    } else if has(&["UnknownCA", "BadCertificate", "CertificateUnknown", "AccessDenied", "DecryptError"]) {
        "the gateway rejected the client certificate (--cert): it must be signed by a CA in GW_TLS_CLIENT_CA"
    } else if has(&["InvalidContentType", "corrupt message"]) {
        "there is no TLS at that port: write http://, or give another port"
    } else if has(&["onnection refused"]) {
        "nothing listens there: is the gateway running, and is it this port?"
    } else if has(&["dns error", "failed to lookup", "Name or service not known"]) {
        "the host name has no address"
    } else if has(&["timed out", "timeout", "deadline has elapsed"])
        || (has(&["operation was canceled"]) && !has(&["connection closed"]))
    {
        "no answer in time: a firewall, another port, or a gateway that hangs"
    } else if tls {
        "the TLS handshake failed: does the port use TLS, and does it require a client certificate (--cert, --key)?"
    } else {
        "the server there does not speak HTTP/2 without TLS: if it uses TLS, write https:// (and --cacert); if it is the HTTP port, give the gRPC port (50051)"
    };
    format!(". {}{}", advice[..1].to_uppercase(), &advice[1..])
}

/// An error with its chain of causes, each once.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_that_ends_a_wait_is_told_as_no_answer() {
        let uri = Uri::from_static("https://127.0.0.1:1");
        for text in [
            "transport error: TLS handshake timeout",
            "deadline has elapsed",
            "connection timed out",
            "operation was canceled",
        ] {
            let told = unreachable(&uri, &std::io::Error::other(text)).to_string();
            assert!(told.to_lowercase().contains("no answer"), "{told}");
        }
    }
}
