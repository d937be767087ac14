//! Derives from how calls ended whether they could be served, and whether health reported the same soon enough. Pure;
//! must not depend on the fault. Times are seconds since the fault.

use super::load::Call;

/// Calls are judged in steps of this length.
const STEP: f64 = 0.5;
/// Resolution of sampling and steps: how much later than its bound something may be seen.
const GRAIN: f64 = 0.75;

/// How many calls are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// At least nine of ten.
    Up,
    /// Some: health may report either.
    Mixed,
    /// At most one of ten.
    Down,
}

/// A time span with one state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Period {
    pub(crate) state: State,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

/// What a source reported, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    pub(crate) at: f64,
    pub(crate) said: Said,
}

/// What a source reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    Serving,
    NotServing,
    /// No reply: for a probe the same as NOT_SERVING.
    Nothing,
}

/// How a signal followed the state of the calls.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Followed {
    /// From the beginning of the longest outage until it was reported; `None` if it never was.
    pub(crate) down: Option<f64>,
    /// From the end of the last outage until SERVING was reported for good.
    pub(crate) up: Option<f64>,
    /// Where it was wrong for longer than the bound.
    pub(crate) wrong: Vec<String>,
}

/// The states of one gateway, or of all together. A failed call counts at the time it was sent, a successful one at the
/// time of its reply, so that a call that waits through the end of an outage does not blur that end.
pub(crate) fn periods(calls: &[Call]) -> Vec<Period> {
    let moment = |call: &Call| if call.end.is_ok() { call.at + call.took } else { call.at };
    let number = |call: &Call| (moment(call) / STEP).floor() as i64;
    let (Some(first), Some(last)) = (calls.iter().map(number).min(), calls.iter().map(number).max()) else {
        return Vec::new();
    };
    let mut steps = vec![(0_u32, 0_u32); usize::try_from(last - first).unwrap_or(0) + 1];
    for call in calls {
        let step = &mut steps[usize::try_from(number(call) - first).unwrap_or(0)];
        step.0 += 1;
        step.1 += u32::from(call.end.is_err());
    }
    let mut periods: Vec<Period> = Vec::new();
    for (step, (all, failed)) in steps.into_iter().enumerate() {
        let state = match (all, failed) {
            (0, _) => State::Mixed,
            (all, failed) if failed * 10 >= all * 9 => State::Down,
            (all, failed) if failed * 10 <= all => State::Up,
            _ => State::Mixed,
        };
        let from = (first + step as i64) as f64 * STEP;
        match periods.last_mut().filter(|last| last.state == state) {
            Some(last) => last.to = from + STEP,
            None => periods.push(Period { state, from, to: from + STEP }),
        }
    }
    periods
}

/// The longest time in which no calls were served.
pub(crate) fn outage(periods: &[Period]) -> Option<Period> {
    let down = periods.iter().filter(|period| period.state == State::Down);
    down.copied().max_by(|one, two| (one.to - one.from).total_cmp(&(two.to - two.from)))
}

/// Compares samples with the states. They are wrong if they differ for longer than `within`.
pub(crate) fn follow(periods: &[Period], samples: &[Sample], within: f64) -> Followed {
    let mut followed = Followed::default();
    for period in periods {
        // The end of an outage is noticed by calls a little later, so SERVING may be reported shortly before it.
        let half = (period.to - period.from - within - GRAIN) / 2.0;
        let early = if period.state == State::Down { within.min(half) } else { GRAIN };
        let settled = period.from + within + GRAIN..period.to - early;
        let wanted = |sample: &Sample| match period.state {
            State::Up => sample.said == Said::Serving,
            State::Down => sample.said != Said::Serving,
            State::Mixed => true,
        };
        let wrong = samples.iter().find(|sample| settled.contains(&sample.at) && !wanted(sample));
        if let Some(sample) = wrong {
            let truth = if period.state == State::Up { "were served" } else { "failed" };
            followed.wrong.push(format!(
                "{} at {:+.1} s, while calls {truth} from {:+.1} s to {:+.1} s",
                sample.said.word(),
                sample.at,
                period.from,
                period.to
            ));
        }
    }
    if let Some(outage) = outage(periods) {
        let said = |sample: &&Sample| sample.said != Said::Serving && sample.at >= outage.from - STEP;
        let first = samples.iter().filter(|sample| sample.at < outage.to + within).find(said);
        followed.down = first.map(|sample| (sample.at - outage.from).max(0.0));
    }
    let last_down = periods.iter().rposition(|period| period.state != State::Up);
    let up = last_down.and_then(|at| periods.get(at + 1));
    let again = samples.iter().rposition(|sample| sample.said != Said::Serving).map_or(0, |at| at + 1);
    if let (Some(up), Some(sample)) = (up, samples.get(again)) {
        followed.up = Some((sample.at - up.from).max(0.0));
    }
    followed
}

impl Said {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Said::Serving => "SERVING",
            Said::NotServing => "NOT_SERVING",
            Said::Nothing => "no reply",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten calls a second from -5 to 30, which fail in this time.
    fn calls(fail: std::ops::Range<f64>) -> Vec<Call> {
        let call = |number: i32| {
            let at = f64::from(number) / 10.0 + 0.05;
            let end = if fail.contains(&at) { Err("UNAVAILABLE".to_owned()) } else { Ok(String::new()) };
            Call { gateway: 0, at, took: 0.01, end }
        };
        (-50..300).map(call).collect()
    }

    /// Five samples a second, which are not SERVING in this time.
    fn samples(down: std::ops::Range<f64>) -> Vec<Sample> {
        let sample = |number: i32| {
            let at = f64::from(number) / 5.0;
            Sample { at, said: if down.contains(&at) { Said::NotServing } else { Said::Serving } }
        };
        (-25..150).map(sample).collect()
    }

    #[test]
    fn an_outage_is_where_calls_fail() {
        let found = periods(&calls(2.0..12.0));
        let states: Vec<_> = found.iter().map(|period| (period.state, period.from, period.to)).collect();
        let wanted = [(State::Up, -5.0, 2.0), (State::Down, 2.0, 12.0), (State::Up, 12.0, 30.0)];
        assert_eq!(states, wanted);
    }

    #[test]
    fn health_that_follows_in_time_is_right_and_its_times_are_told() {
        let followed = follow(&periods(&calls(2.0..12.0)), &samples(4.0..13.0), 5.0);
        assert!(followed.wrong.is_empty(), "{followed:?}");
        let near = |time: Option<f64>, wanted: f64| (time.unwrap() - wanted).abs() < 0.3;
        assert!(near(followed.down, 2.0) && near(followed.up, 1.0), "{followed:?}");
    }

    #[test]
    fn health_that_stays_green_is_wrong() {
        let followed = follow(&periods(&calls(2.0..12.0)), &samples(0.0..0.0), 5.0);
        assert_eq!((followed.wrong.len(), followed.down), (1, None), "{followed:?}");
        assert!(followed.wrong[0].starts_with("SERVING at "), "{followed:?}");
    }

    #[test]
    fn health_that_stays_red_after_the_outage_is_wrong() {
        let followed = follow(&periods(&calls(2.0..12.0)), &samples(2.0..20.0), 5.0);
        assert!(followed.wrong[0].contains("calls were served"), "{followed:?}");
    }

    #[test]
    fn health_that_is_red_while_calls_are_served_is_wrong() {
        let followed = follow(&periods(&calls(0.0..0.0)), &samples(10.0..12.0), 5.0);
        assert_eq!(followed.wrong.len(), 1, "{followed:?}");
    }

    #[test]
    fn an_outage_shorter_than_the_bound_need_not_be_said() {
        let followed = follow(&periods(&calls(2.0..5.0)), &samples(0.0..0.0), 5.0);
        assert!(followed.wrong.is_empty(), "{followed:?}");
    }

    #[test]
    fn where_a_third_of_the_calls_fail_either_is_right() {
        let mut third = calls(0.0..0.0);
        third
            .iter_mut()
            .filter(|call| call.at > 0.0)
            .step_by(3)
            .for_each(|call| call.end = Err(String::new()));
        for said in [0.0..0.0, 0.0..30.0] {
            assert!(follow(&periods(&third), &samples(said), 5.0).wrong.is_empty());
        }
    }
}
