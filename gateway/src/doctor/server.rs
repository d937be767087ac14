//! The server that we are connected to, against what the gateway needs: its version, JetStream, payload limit and clock.
//! Must not look at a route but for its kind.

use catalog::{Kind, Route, Subscription};
use nats::clock::SKEW;
use nats::streams;

use super::diagnosis::{Diagnosis, Place};
use super::examination::Examination;

pub(super) fn check(exam: &Examination) -> Diagnosis {
    let mut found = Diagnosis::default();
    version(exam, &mut found);
    jetstream(exam, &mut found);
    payload(exam, &mut found);
    clock(exam, &mut found);
    found
}

/// Whether a route needs a stream.
fn is_stored(route: &Route) -> bool {
    matches!(route.kind, Kind::EmitDurable(_) | Kind::Subscribe(Subscription { stream: Some(_), .. }))
}

/// Whether calls need JetStream.
fn needs_jetstream(exam: &Examination) -> bool {
    exam.orders || exam.routes().any(|route| is_stored(route))
}

fn version(exam: &Examination, found: &mut Diagnosis) {
    let Err(old) = streams::check_version(&exam.link) else { return };
    let cure = "upgrade the servers, one after the other";
    if needs_jetstream(exam) {
        found.error("version", Place::default(), old, cure);
    } else {
        found.warning("version", Place::default(), old, cure);
    }
}

fn jetstream(exam: &Examination, found: &mut Diagnosis) {
    match &exam.jetstream {
        Ok(true) => {}
        Ok(false) if needs_jetstream(exam) => {
            let problem = "JetStream is not enabled for the account, but what is served needs streams";
            let cure =
                "set `jetstream: enabled` in the account, and `jetstream {}` in the servers' configuration";
            found.error("jetstream", Place::default(), problem, cure);
        }
        Ok(false) => {}
        Err(why) => found.not_looked_at("jetstream", Place::default(), format!("$JS.API.INFO: {why}")),
    }
}

fn payload(exam: &Examination, found: &mut Diagnosis) {
    let most = exam.link.client().server_info().max_payload;
    if most < exam.max_request_bytes {
        let problem = format!(
            "the server takes messages of at most {most} bytes (max_payload), and the gateway requests of {} \
             (GW_MAX_REQUEST_BYTES): larger ones than the server takes fail",
            exam.max_request_bytes
        );
        let cure = format!("set GW_MAX_REQUEST_BYTES={most}, or raise max_payload of all servers");
        found.warning("payload", Place::default(), problem, cure);
    }
}

fn clock(exam: &Examination, found: &mut Diagnosis) {
    let place = Place::default;
    let Some(skew) = exam.skew else {
        return found.not_looked_at(
            "clock",
            place(),
            "the server does not say what time it is ($SYS.REQ.USER.INFO)",
        );
    };
    let limit = SKEW + skew.error;
    if skew.apart > limit {
        let side = if skew.ahead { "ahead of" } else { "behind" };
        let problem = format!("this machine's clock is {:.1?} {side} the server's", skew.apart);
        found.warning("clock", place(), problem, "check NTP on both");
    }
}
