//! The client for everything that is fetched over HTTP/1.1: keys for tokens, monitoring pages, exports of traces. http
//! and https, directly or by a proxy, within a deadline and a size. Must not depend on what is fetched.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use http_client::{Client, Limits, Trust};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let trust = Trust::of(None, "EXAMPLE_CA")?;
//! let client = Client::new(trust, Limits { whole: Duration::from_secs(5), body: 64 << 10 });
//! let request = http::Request::get("https://id.example.com/keys").body(bytes::Bytes::new())?;
//! let document = client.fetch(request).await?;
//! # Ok(())
//! # }
//! ```

#![warn(clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod authority;
mod client;
mod connect;
mod error;
mod proxy;
mod route;
#[cfg(test)]
mod tests;
mod trust;

pub use client::{Client, Limits};
pub use connect::AGENT;
pub use error::{HttpError, HttpErrorKind};
pub use proxy::Proxies;
pub use trust::{Trust, TrustError};
