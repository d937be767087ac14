//! The limit of file descriptors, of which every connection takes one. Must not depend on what they are used for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the process's soft limit to `wanted`, at most to the hard limit, and returns the limit in force.
pub fn raise(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (soft, hard) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
    if soft >= wanted || soft >= hard {
        return soft;
    }
    let raised = wanted.min(hard);
    match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => {
            tracing::info!(from = soft, to = raised, "raised RLIMIT_NOFILE (open files)");
            raised
        }
        Err(error) => {
            tracing::warn!(%error, limit = soft, wanted, "cannot raise RLIMIT_NOFILE (open files)");
            soft
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        let (soft, hard) = (before.current.unwrap_or(u64::MAX), before.maximum.unwrap_or(u64::MAX));
        let low = 200.min(soft);
        setrlimit(Resource::Nofile, Rlimit { current: Some(low), ..before }).unwrap();
        assert_eq!(raise(low), low);
        assert_eq!(raise(low + 10), (low + 10).min(hard));
        assert_eq!(raise(u64::MAX), hard);
    }
}
