//! The report of a reconciliation, as lines of text or as JSON objects. Must not look anything up.

use serde_json::json;
use uuid::Uuid;

use super::diff::{Difference, HeldReservation};
use super::scan::{ScanResult, Sifted, Unread};
use crate::feed::scan::{Entries, OrderState};

/// All that was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Orders on the record.
    pub orders: usize,
    /// Tombstones on the record: ids that were reserved, and under which no order may be created by an old request.
    pub tombstones: usize,
    /// Reservations in the ledger.
    pub reservations: usize,
    /// The differences.
    pub findings: Vec<Finding>,
    /// Orders that changed during every look.
    pub unsettled: usize,
    /// What could not be read, and so was not compared.
    pub unread: Vec<Unread>,
    /// How much more could not be read than is listed.
    pub unnamed: usize,
    /// Dead letters that wait for an operator.
    pub dead_letters: usize,
}

/// A difference.
#[derive(Debug)]
pub struct Finding {
    /// Its kind.
    pub kind: Difference,
    /// The order; none if it concerns the whole record.
    pub order: Option<Uuid>,
    /// What both sides say.
    pub said: String,
    /// What was done about it.
    pub fate: Fate,
}

/// What was done about a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: no repair was requested.
    Found,
    /// The two agree now.
    Mended,
    /// It could not be repaired, for this reason.
    Left(String),
}

impl Report {
    /// Adds what the second look could not tell, and returns the differences that it found.
    pub(super) fn take(&mut self, sifted: Sifted) -> Vec<ScanResult> {
        self.unsettled += sifted.moving;
        self.unread.extend(sifted.unread);
        sifted.found
    }

    /// Whether everything was read.
    pub fn whole(&self) -> bool {
        self.unread.is_empty() && self.unnamed == 0
    }

    /// Whether everything was read, and record and ledger agree now.
    pub fn clean(&self) -> bool {
        self.whole() && self.unsettled == 0 && self.count(|fate| *fate != Fate::Mended) == 0
    }

    /// How many differences have such a fate.
    pub fn count(&self, fate: impl Fn(&Fate) -> bool) -> usize {
        self.findings.iter().filter(|finding| fate(&finding.fate)).count()
    }

    /// The lines to print: one for each difference, and a summary.
    pub fn lines(&self, as_json: bool) -> Vec<String> {
        let finding = if as_json { Finding::json } else { Finding::line };
        let summary = if as_json { self.summary_json() } else { self.summary() };
        let unread = self.unread.iter().map(|unread| if as_json { unread.json() } else { unread.line() });
        self.findings.iter().map(finding).chain(unread).chain([summary]).collect()
    }

    fn summary(&self) -> String {
        let (found, mended) = (self.findings.len(), self.count(|fate| *fate == Fate::Mended));
        let mut text = format!("{} orders", self.orders);
        if self.tombstones > 0 {
            text += &format!(" and {} tombstones", self.tombstones);
        }
        text += &format!(", {} reservations: ", self.reservations);
        text += &match (found, mended) {
            (0, _) if !self.whole() => "what could be read agrees".to_owned(),
            (0, _) => "they agree".to_owned(),
            (found, 0) => format!("{found} differ"),
            (found, mended) => format!("{found} differed, {mended} repaired, {} left", found - mended),
        };
        if self.unsettled > 0 {
            text += &format!("; {} changed during every look, run it again", self.unsettled);
        }
        if !self.whole() {
            text += &format!("; {} could not be read", self.unread.len() + self.unnamed);
        }
        if self.dead_letters > 0 {
            text += &format!("; {} dead letters wait (`gateway dead-letters list`)", self.dead_letters);
        }
        text
    }

    fn summary_json(&self) -> String {
        json!({
            "orders": self.orders,
            "tombstones": self.tombstones,
            "reservations": self.reservations,
            "findings": self.findings.len(),
            "mended": self.count(|fate| *fate == Fate::Mended),
            "unsettled": self.unsettled,
            "unread": self.unread.len() + self.unnamed,
            "deadLetters": self.dead_letters,
        })
        .to_string()
    }
}

impl Finding {
    /// The finding of a difference in one order.
    pub(super) fn of(found: &ScanResult, fate: Fate) -> Finding {
        let said = format!("{}; {}", record(found.order.as_ref()), ledger(found.held.as_ref()));
        let waits = if found.waiting { "; the workers have not processed its last event" } else { "" };
        Finding { kind: found.kind, order: Some(found.id), said: said + waits, fate }
    }

    fn line(&self) -> String {
        let order = self.order.map(|order| format!("{order}: ")).unwrap_or_default();
        let fate = match &self.fate {
            Fate::Found => String::new(),
            Fate::Mended => ": repaired".to_owned(),
            Fate::Left(why) => format!(": left, {why}"),
        };
        format!("{}: {order}{}{fate}", self.kind.name(), self.said)
    }

    fn json(&self) -> String {
        let (fate, why) = match &self.fate {
            Fate::Found => ("found", None),
            Fate::Mended => ("mended", None),
            Fate::Left(why) => ("left", Some(why)),
        };
        let order = self.order.map(|order| order.to_string());
        let mut line = json!({ "kind": self.kind.name(), "said": self.said, "fate": fate });
        line["orderId"] = order.into();
        line["why"] = why.map(String::as_str).into();
        line.to_string()
    }
}

fn record(order: Option<&Entries>) -> String {
    match order.map(|order| (order.standing, order.last)) {
        None => "the record has no entry".to_owned(),
        Some((OrderState::Order(status), last)) => format!("the record says {} at {last}", status.word()),
        Some((OrderState::Tombstone, last)) => format!("the record has no order but the tombstone {last}"),
        Some((OrderState::Unreadable, _)) => "the record has an event that cannot be read".to_owned(),
    }
}

fn ledger(held: Option<&HeldReservation>) -> String {
    let Some(held) = held else { return "the ledger has no reservation".to_owned() };
    let phase = held.phase.as_str_name().trim_start_matches("RESERVATION_PHASE_");
    match held.sequence {
        0 => format!("the ledger says {phase} with fence {}", held.fence),
        sequence => format!("the ledger says {phase} by {sequence}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_each_difference_on_a_line_and_sums_up() {
        let finding = |fate| Finding {
            kind: Difference::OrderWithoutStock,
            order: Some(Uuid::nil()),
            said: "the record says PENDING at 4; the ledger has no reservation".to_owned(),
            fate,
        };
        let short = || Fate::Left("lamp: wanted 2, available 1".to_owned());
        let findings = vec![finding(Fate::Mended), finding(short())];
        let mut report = Report { orders: 7, reservations: 5, findings, ..Report::default() };
        assert!(!report.clean());
        let lines = report.lines(false);
        assert!(lines[0].ends_with("the ledger has no reservation: repaired"), "{lines:?}");
        assert!(lines[1].contains("left, lamp: wanted 2"), "{lines:?}");
        assert_eq!(lines[2], "7 orders, 5 reservations: 2 differed, 1 repaired, 1 left");
        for line in report.lines(true) {
            serde_json::from_str::<serde_json::Value>(&line).unwrap();
        }
        report.findings.pop();
        assert!(report.clean());
        report.tombstones = 2;
        let summary = report.lines(false).pop().unwrap();
        assert!(summary.starts_with("7 orders and 2 tombstones, 5 reservations: "), "{summary}");
        assert!(report.lines(true).pop().unwrap().contains(r#""orders":7"#), "{report:?}");
        assert!(report.lines(true).pop().unwrap().contains(r#""tombstones":2"#), "{report:?}");
        report.unsettled = 1;
        assert!(!report.clean());
    }

    #[test]
    fn what_could_not_be_read_is_named_and_no_report_that_has_it_says_that_all_agrees() {
        let unread = vec![Unread::new("entry 4 of ORDERS", "it is not an order")];
        let mut report = Report { orders: 7, unread, unnamed: 2, dead_letters: 1, ..Report::default() };
        assert!(!report.clean());
        let lines = report.lines(false);
        assert_eq!(lines[0], "not read: entry 4 of ORDERS: it is not an order");
        let summary =
            "7 orders, 0 reservations: what could be read agrees; 3 could not be read; 1 dead letters wait";
        assert!(lines[1].starts_with(summary), "{lines:?}");
        for line in report.lines(true) {
            serde_json::from_str::<serde_json::Value>(&line).unwrap();
        }
        (report.unread, report.unnamed) = (Vec::new(), 0);
        assert!(report.clean(), "a dead letter is no difference by itself");
    }
}
