//! Whether our NATS user may do what the routes need, as the server says of it. Nothing is tried: a message on a route's
//! subject would be a call. Must not decide what a route needs.

use catalog::{Route, covers, overlap};
use nats::inspect::Permission;

use super::diagnosis::{Diagnosis, Place, Severity};
use super::examination::Examination;
use crate::permissions::Rights;

const CHECK: &str = "permissions";
const CONSUMERS: &str = "$JS.API.CONSUMER.";

/// What the user may do with a pattern of subjects.
#[derive(Debug, PartialEq, Eq)]
enum May {
    All,
    Some,
    None,
}

pub(super) fn check(exam: &Examination) -> Diagnosis {
    let mut found = Diagnosis::default();
    if exam.as_operator {
        let why = "this is not the gateway's user; run it as the gateway's, without --as-operator";
        found.not_looked_at(CHECK, Place::default(), why);
        return found;
    }
    let user = match &exam.user {
        Ok(user) => user,
        Err(why) => {
            let why = format!(
                "{why}: the user may not ask $SYS.REQ.USER.INFO, or the servers have no system account"
            );
            found.not_looked_at(CHECK, Place::default(), why);
            return found;
        }
    };
    let inbox = format!("{}.>", exam.inbox_prefix);
    let mut general = Rights::default();
    general.publish.push("$SRV.STATS".to_owned());
    general.subscribe.push(inbox.clone());
    let mut judge = |place: Place, route: Option<&Route>, rights: Rights| {
        for (act, permission, needed) in [
            ("publish to", &user.publish, rights.publish),
            ("subscribe to", &user.subscribe, rights.subscribe),
        ] {
            for subject in needed {
                let severity = severity(route, &subject);
                let how = match may(permission.as_ref(), &subject) {
                    May::All => continue,
                    May::Some => "may not always",
                    May::None => "may not",
                };
                let place = Place { subject: Some(subject.clone()), ..place.clone() };
                let problem = format!("the NATS user {:?} {how} {act} it", user.user);
                let cure = "allow it: `gateway routes permissions` prints what routes need, and deploy/nats/roles.conf has \
                            the order system's role";
                found.add(severity, CHECK, place, problem, cure);
            }
        }
    };
    judge(Place::default(), None, general);
    if exam.orders {
        judge(Place::default(), None, Rights::of_orders());
    }
    // Operators' commands call those for maintenance.
    for route in exam.routes().filter(|route| !route.maintenance) {
        let mut rights = Rights::default();
        rights.add_use(route, &inbox);
        judge(Place::of(route), Some(route), rights);
    }
    found
}

/// Calls fail without the route's own subject, the inbox and consumers. Without the rest they lose precision.
fn severity(route: Option<&Route>, subject: &str) -> Severity {
    let durable = route.is_some_and(|route| matches!(route.kind, catalog::Kind::EmitDurable(_)));
    let precise = (durable && subject.starts_with("$JS.API.")) || subject == bridge::CONTROL;
    if precise { Severity::Warning } else { Severity::Error }
}

/// What a permission says of a pattern. Entries with a queue group are for other subscriptions than the gateway's.
fn may(permission: Option<&Permission>, subject: &str) -> May {
    let Some(Permission { allow, deny }) = permission else { return May::All };
    let plain = |entry: &&String| !entry.contains(' ');
    let is_allowed = allow.is_empty() || allow.iter().filter(plain).any(|entry| covers(entry, subject));
    let is_allowed_in_part = allow.iter().filter(plain).any(|entry| overlap(entry, subject));
    if deny.iter().filter(plain).any(|entry| covers(entry, subject)) || !(is_allowed || is_allowed_in_part) {
        return May::None;
    }
    // The gateway's consumers have random names: that those of others are denied takes nothing from it.
    let is_denied_in_part =
        !subject.starts_with(CONSUMERS) && deny.iter().filter(plain).any(|entry| overlap(entry, subject));
    if is_allowed && !is_denied_in_part {
        return May::All;
    }
    May::Some
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_permitted_as_nats_server_permits_each_of_its_subjects() {
        let list = |text: &[&str]| text.iter().map(|text| (*text).to_owned()).collect();
        let rule = |allow: &[&str], deny: &[&str]| Permission { allow: list(allow), deny: list(deny) };
        for (allow, deny, subject, wanted) in [
            (&["books.>"][..], &[][..], "books.*.get", May::All),
            (&[], &[], "books.get", May::All),
            (&[], &["books.*"], "books.get", May::None),
            (&["books.get"], &[], "books.put", May::None),
            (&["books.1.get"], &[], "books.*.get", May::Some),
            (&[">"], &["books.1.get"], "books.*.get", May::Some),
            (&["books.get q"], &[], "books.get", May::None),
            (&["_INBOX.*"], &[], "_INBOX.>", May::Some),
            (&[], &["$JS.API.CONSUMER.DELETE.A.one"], "$JS.API.CONSUMER.DELETE.A.*", May::All),
            (&[], &["$JS.API.CONSUMER.DELETE.A.*"], "$JS.API.CONSUMER.DELETE.A.*", May::None),
        ] {
            assert_eq!(may(Some(&rule(allow, deny)), subject), wanted, "{allow:?} {deny:?} {subject}");
        }
        assert_eq!(may(None, "books.get"), May::All);
    }
}
