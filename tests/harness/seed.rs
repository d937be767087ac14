//! The seed of property tests. A test that fails prints it, and the variable PROPTEST_RNG_SEED gives it.

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// Property tests with this many cases. Their seeds are not kept in files.
pub fn properties(cases: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => uuid::Uuid::new_v4().as_u64_pair().0,
    };
    // The test harness shows this only of tests that fail.
    println!("run it again with PROPTEST_RNG_SEED={seed}");
    ProptestConfig { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..config }
}
