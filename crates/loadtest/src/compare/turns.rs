//! Measures loads in turns. Must not depend on what is compared.

use super::report::Series;
use crate::load::Load;

/// The products of a deployment.
pub(super) const PRODUCTS: usize = 1_000;

pub(super) struct Bench {
    pub(super) rounds: usize,
    pub(super) seconds: f64,
}

impl Bench {
    /// Measures all of them in turns.
    pub(super) async fn turns<const N: usize>(
        &self,
        loads: [(&str, Load); N],
    ) -> anyhow::Result<[Series; N]> {
        let mut series = loads.each_ref().map(|(name, _)| Series::of(name));
        for _ in 0..self.rounds {
            for ((_, load), series) in loads.iter().zip(&mut series) {
                let load = Load { seconds: self.seconds, ..load.clone() };
                series.rounds.push(load.measure().await?);
            }
        }
        Ok(series)
    }
}
