//! A fault's row: how calls, health, console and alerts reacted, and which bounds do not hold. Pure; must not depend on
//! how it was observed.

use std::collections::BTreeMap;

use super::alerts::Alerts;
use super::fault::Fault;
use super::load::Call;
use super::sample::{Signal, Source};
use super::truth::{Followed, Period, State, follow, outage, periods};
use crate::soak::plan::Target;
use crate::trouble::TRANSPORT;

/// No election ends an outage that has lasted for 10 s. From then on calls have to fail fast: within this time, in
/// seconds.
const TOLD: f64 = 1.0;
const KNOWN: f64 = 11.0;
/// Time for a scrape, an evaluation and a poll, in seconds.
const SCRAPED: f64 = 2.0;

/// What was observed. Times are seconds since the fault.
pub(crate) struct Observed {
    pub(crate) fault: Fault,
    /// When the fault was over.
    pub(crate) ended: f64,
    pub(crate) calls: Vec<Call>,
    pub(crate) signals: Vec<Signal>,
    /// `None` without Prometheus.
    pub(crate) alerts: Option<Alerts>,
    /// Acknowledged orders that were not read back.
    pub(crate) lost: Vec<String>,
    /// Processes that did not stop or did not come back.
    pub(crate) broken: Vec<String>,
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) fault: Fault,
    pub(crate) ended: f64,
    pub(crate) calls: usize,
    pub(crate) failed: usize,
    pub(crate) acknowledged: usize,
    /// Failed calls by status and reason, and their median duration.
    pub(crate) kinds: BTreeMap<String, usize>,
    pub(crate) median: Option<f64>,
    pub(crate) first_failed: Option<f64>,
    pub(crate) first_good: Option<f64>,
    pub(crate) last_failed: Option<f64>,
    /// The last failed call among those that ended before the fault did. The end of a fault is sometimes a fault of its
    /// own.
    pub(crate) last_failed_during: Option<f64>,
    /// The longest time in which one of the gateways served nothing.
    pub(crate) outage: Option<Period>,
    /// By kind of process and source: the worst of all.
    pub(crate) said: BTreeMap<(bool, Source), Followed>,
    pub(crate) alerts: Option<Alerts>,
    /// Bounds that do not hold.
    pub(crate) findings: Vec<String>,
}

impl Row {
    /// Judges what was observed; `within` is how soon health has to follow. `None`: that is not checked.
    pub(crate) fn judge(observed: Observed, within: Option<f64>) -> Row {
        let Observed { fault, ended, calls, signals, alerts, lost, broken } = observed;
        let failed: Vec<&Call> = calls.iter().filter(|call| call.end.is_err()).collect();
        let mut kinds = BTreeMap::new();
        for kind in failed.iter().filter_map(|call| call.end.as_ref().err()) {
            *kinds.entry(kind.clone()).or_default() += 1;
        }
        let first_failed = failed.iter().map(|call| call.at).min_by(f64::total_cmp);
        let good = |from: f64| {
            let answered = calls.iter().filter(move |call| call.end.is_ok() && call.at >= from);
            answered.map(|call| call.at + call.took).min_by(f64::total_cmp)
        };
        let mut row = Row {
            fault,
            ended,
            calls: calls.len(),
            failed: failed.len(),
            acknowledged: calls.len() - failed.len(),
            median: median(failed.iter().map(|call| call.took)),
            kinds,
            first_failed,
            first_good: None,
            last_failed: failed.iter().map(|call| call.at).max_by(f64::total_cmp),
            last_failed_during: failed
                .iter()
                .filter(|call| call.at + call.took < ended)
                .map(|call| call.at)
                .max_by(f64::total_cmp),
            outage: None,
            said: BTreeMap::new(),
            alerts,
            findings: broken,
        };
        row.findings.extend(lost);
        row.outage = gateways(&calls).filter_map(|gateway| outage(&of(&calls, gateway))).fold(None, longest);
        // Only calls that were sent after the first that failed, or in the outage.
        let begun = row.outage.map(|outage| outage.from + 0.5).or(first_failed);
        row.first_good = begun.and_then(|begun| good(begun.max(0.0)));
        if let Some(within) = within {
            row.listen(&calls, &signals, within);
            row.told(&calls);
            row.bounds(&calls);
            row.alerted(within);
        }
        row
    }

    /// Compares health and console with the calls: of a gateway with its own calls, of a worker with all.
    fn listen(&mut self, calls: &[Call], signals: &[Signal], within: f64) {
        let all = periods(calls);
        for signal in signals.iter().filter(|signal| !self.fault.spares(signal.target)) {
            let own = match signal.target {
                Target::Gateway(number) => of(calls, number),
                worker if self.fault.serves(worker) => well(&all),
                _ => all.clone(),
            };
            let followed = follow(&own, &signal.samples, within);
            let name = format!("{} {}", signal.name, signal.source.name());
            self.findings.extend(followed.wrong.iter().map(|wrong| format!("{name} said {wrong}")));
            let gateway = matches!(signal.target, Target::Gateway(_));
            let suffered = outage(&own).is_some();
            let worst = self.said.entry((gateway, signal.source)).or_default();
            worst.wrong.extend(followed.wrong);
            if suffered {
                worst.down = later(worst.down, followed.down);
                worst.up = later(worst.up, followed.up);
            }
        }
    }

    /// Once an outage is known, calls must not wait for their deadline to fail. Those that reach no gateway take as long
    /// as the client tries to connect.
    fn told(&mut self, calls: &[Call]) {
        for gateway in gateways(calls) {
            for period in of(calls, gateway).iter().filter(|period| period.state == State::Down) {
                let known = |call: &&Call| {
                    call.gateway == gateway
                        && answered_with_an_error(call)
                        && (period.from + KNOWN..period.to).contains(&call.at)
                };
                let waited = median(calls.iter().filter(known).map(|call| call.took));
                if let Some(waited) = waited.filter(|waited| *waited > TOLD) {
                    self.findings.push(format!(
                        "gateway{gateway}: calls took {waited:.1} s (median) to fail, {KNOWN} s into an outage"
                    ));
                }
            }
        }
    }

    fn bounds(&mut self, calls: &[Call]) {
        let bounds = self.fault.bounds();
        let failed = || calls.iter().filter(|call| call.end.is_err());
        if let Some(during) = bounds.during {
            // Calls in flight at the end belong to what follows it.
            let over = failed().filter(|call| call.at + call.took < self.ended);
            let late = over.map(|call| call.at).filter(|at| *at > during);
            if let Some(late) = late.max_by(f64::total_cmp) {
                self.findings
                    .push(format!("a call failed at {late:+.1} s; the bound is {during} s after the fault"));
            }
            let inside = |call: &&Call| (0.0..during).contains(&call.at);
            let (some, all) = (failed().filter(inside).count(), calls.iter().filter(inside).count());
            let share = some as f64 / all.max(1) as f64;
            if let Some(most) = bounds.share.filter(|most| share > *most) {
                self.findings.push(format!(
                    "{some} of {all} calls failed in the first {during} s: {:.0} %; the limit is {:.0} %",
                    share * 100.0,
                    most * 100.0
                ));
            }
        }
        let after = self.ended + bounds.after;
        if let Some(late) = self.last_failed.filter(|last| *last > after) {
            self.findings.push(format!(
                "a call failed at {late:+.1} s, {:.1} s after the end of the fault; the bound is {} s",
                late - self.ended,
                bounds.after
            ));
        }
    }

    /// Every outage must have an alert.
    fn alerted(&mut self, within: f64) {
        let (Some(alerts), Some(outage)) = (&self.alerts, self.outage) else { return };
        let limit = outage.from + within + SCRAPED;
        let noticed = alerts.values().any(|alert| alert.to >= outage.from && alert.from <= limit);
        if outage.to - outage.from > within + SCRAPED && !noticed {
            self.findings
                .push(format!("no alert was active {within} s into the outage at {:+.1} s", outage.from));
        }
    }
}

fn gateways(calls: &[Call]) -> std::ops::Range<usize> {
    0..calls.iter().map(|call| call.gateway).max().map_or(0, |last| last + 1)
}

fn of(calls: &[Call], gateway: usize) -> Vec<Period> {
    let own: Vec<Call> = calls.iter().filter(|call| call.gateway == gateway).cloned().collect();
    periods(&own)
}

/// The same time span, without any outage.
fn well(all: &[Period]) -> Vec<Period> {
    let whole =
        |(first, last): (&Period, &Period)| Period { state: State::Up, from: first.from, to: last.to };
    all.first().zip(all.last()).map(whole).into_iter().collect()
}

fn longest(one: Option<Period>, two: Period) -> Option<Period> {
    one.into_iter().chain([two]).max_by(|one, two| (one.to - one.from).total_cmp(&(two.to - two.from)))
}

fn later(one: Option<f64>, two: Option<f64>) -> Option<f64> {
    one.into_iter().chain(two).max_by(f64::total_cmp)
}

/// Whether a gateway answered this call with an error.
fn answered_with_an_error(call: &Call) -> bool {
    call.end.as_ref().is_err_and(|end| !end.ends_with(TRANSPORT))
}

fn median(times: impl Iterator<Item = f64>) -> Option<f64> {
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}
