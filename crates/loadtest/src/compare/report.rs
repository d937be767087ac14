//! Values of several rounds, as tables, ratios and JSON. A ratio is taken within each round; its median is printed with
//! minimum and maximum. Must not depend on what is measured.

use std::path::Path;

use serde::Serialize;

use crate::load::Measured;

/// One value per round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures(pub(crate) Vec<f64>);

/// One target, measured in several rounds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Series {
    name: String,
    pub(crate) rounds: Vec<Measured>,
}

/// Everything that goes to the JSON file.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    sections: Vec<Section>,
}

#[derive(Debug, Serialize)]
struct Section {
    title: String,
    series: Vec<Series>,
    ratios: Vec<Ratio>,
}

#[derive(Debug, Serialize)]
struct Ratio {
    name: String,
    goal: String,
    least: f64,
    median: f64,
    most: f64,
    rounds: Figures,
}

impl Figures {
    /// The quotient, round by round.
    pub(crate) fn over(self, other: Figures) -> Figures {
        self.with(other, |one, other| one / other)
    }

    /// The difference, round by round.
    pub(crate) fn minus(self, other: Figures) -> Figures {
        self.with(other, |one, other| one - other)
    }

    fn with(self, other: Figures, both: fn(f64, f64) -> f64) -> Figures {
        Figures(self.0.into_iter().zip(other.0).map(|(one, other)| both(one, other)).collect())
    }

    /// The median.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
        sorted.get(low).zip(sorted.get(high)).map_or(f64::NAN, |(low, high)| f64::midpoint(*low, *high))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl Series {
    pub(crate) fn of(name: &str) -> Series {
        Series { name: name.to_owned(), rounds: Vec::new() }
    }

    fn figures(&self, figure: impl Fn(&Measured) -> f64) -> Figures {
        Figures(self.rounds.iter().map(figure).collect())
    }

    /// Calls per second.
    pub(crate) fn rate(&self) -> Figures {
        self.figures(|round| round.calls as f64 / round.seconds)
    }

    /// In microseconds.
    pub(crate) fn p50(&self) -> Figures {
        self.figures(|round| round.p50)
    }

    /// In microseconds.
    pub(crate) fn p99(&self) -> Figures {
        self.figures(|round| round.p99)
    }

    /// CPU time per call of a process, in microseconds.
    pub(crate) fn cpu(&self, name: &str) -> Figures {
        self.figures(|round| {
            round.used.iter().find(|used| used.name == name).map_or(f64::NAN, |used| used.cpu)
        })
    }

    fn resident(&self, name: &str) -> f64 {
        let of =
            |round: &Measured| round.used.iter().find(|used| used.name == name).map(|used| used.resident);
        self.rounds.iter().filter_map(of).max().unwrap_or_default() as f64
    }
}

impl Report {
    /// Prints a table. The ratios that follow belong to it.
    pub(crate) fn section<'a>(&mut self, title: &str, series: impl IntoIterator<Item = &'a Series>) {
        let series: Vec<Series> = series.into_iter().cloned().collect();
        cli::say!("\n{title}\n");
        cli::say!(
            "{:30} {:>9} {:>9} {:>9} {:>9}  CPU per call, resident",
            "",
            "calls/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs"
        );
        for series in &series {
            let names = series.rounds.first().into_iter().flat_map(|round| &round.used);
            let used = names.map(|used| {
                let memory = series.resident(&used.name) / f64::from(1 << 20);
                format!("{} {:.1} µs {memory:.0} MiB", used.name, series.cpu(&used.name).median())
            });
            cli::say!(
                "{:30} {:>9.0} {:>9.0} {:>9.0} {:>9.0}  {}",
                series.name,
                series.rate().median(),
                series.p50().median(),
                series.p99().median(),
                series.figures(|round| round.p999).median(),
                used.collect::<Vec<_>>().join(", ")
            );
        }
        cli::say!("");
        self.sections.push(Section { title: title.to_owned(), series, ratios: Vec::new() });
    }

    /// Prints a ratio, and its goal if there is one.
    pub(crate) fn ratio(&mut self, name: &str, rounds: Figures, goal: &str) {
        let sorted = rounds.sorted();
        let (least, most) = (sorted.first().copied(), sorted.last().copied());
        let (least, median, most) = (least.unwrap_or(f64::NAN), rounds.median(), most.unwrap_or(f64::NAN));
        let wish = if goal.is_empty() { String::new() } else { format!(" (goal: {goal})") };
        cli::say!("{name:42} {median:.2}  [{least:.2} to {most:.2}]{wish}");
        let (name, goal) = (name.to_owned(), goal.to_owned());
        if let Some(section) = self.sections.last_mut() {
            section.ratios.push(Ratio { name, goal, least, median, most, rounds });
        }
    }

    /// Writes everything as JSON.
    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        std::fs::write(file, serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let (one, other) = (Figures(vec![2.0, 9.0, 8.0]), Figures(vec![1.0, 3.0, 2.0]));
        assert_eq!(one.clone().over(other.clone()).0, [2.0, 3.0, 4.0]);
        assert_eq!((one.over(other.clone()).median(), Figures(vec![1.0, 2.0]).median()), (3.0, 1.5));
        assert!(Figures(Vec::new()).median().is_nan());
    }
}
