//! The memory budget of requests, from the configuration. Must not look at more than flags.

use admission::budget::Size;
use admission::layer::request_size;
use anyhow::bail;
use cli::units::size;

use super::Limits;

/// Health watches on all connections, and on one: a client has one for each service that it checks, and clients behind
/// a proxy may share a connection.
const WATCHES: usize = 8_192;
const CONNECTION_WATCHES: usize = 64;
/// Reflection streams on all connections, and on one: a tool uses one.
const REFLECTIONS: usize = 64;
const CONNECTION_REFLECTIONS: usize = 16;
/// The budget has to hold at least this many requests of maximum size.
const LEAST: usize = 4;

impl Limits {
    /// The memory budget of requests.
    ///
    /// # Errors
    /// If the budget cannot hold a few requests of maximum size.
    pub(crate) fn budget(&self) -> anyhow::Result<Size> {
        let request = request_size(self.max_header_bytes as usize, self.max_request_bytes);
        let least = LEAST.saturating_mul(request);
        if self.max_buffered_bytes < least {
            bail!(
                "GW_MAX_BUFFERED_BYTES ({}) has to be at least {}: {LEAST} requests of GW_MAX_REQUEST_BYTES ({}) with \
                 headers of GW_MAX_HEADER_BYTES ({})",
                size(self.max_buffered_bytes as u64),
                size(least as u64),
                size(self.max_request_bytes as u64),
                size(self.max_header_bytes.into())
            )
        }
        Ok(Size {
            all: self.max_buffered_bytes,
            request,
            answers: self.max_buffered_bytes.max(LEAST.saturating_mul(self.max_reply_bytes)),
            answer: self.max_reply_bytes,
            streams: [WATCHES, REFLECTIONS],
            connection_streams: [CONNECTION_WATCHES, CONNECTION_REFLECTIONS],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_holds_no_request_is_refused_with_the_least() {
        let size = Limits::default().budget().unwrap();
        assert_eq!(size.all, 64 << 20);
        assert!((1 << 20..2 << 20).contains(&size.request), "{}", size.request);
        let large = Limits { max_request_bytes: 32 << 20, ..Limits::default() };
        let error = large.budget().unwrap_err().to_string();
        assert!(error.contains("GW_MAX_BUFFERED_BYTES") && error.contains("GW_MAX_REQUEST_BYTES"), "{error}");
        let least = LEAST * request_size(16 << 10, 32 << 20);
        assert!(error.contains(&cli::units::size(least as u64)), "{error}");
        Limits { max_buffered_bytes: least, ..large }.budget().unwrap();
    }
}
