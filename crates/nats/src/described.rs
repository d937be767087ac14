//! A stream as its leader describes it: which one it is, and its first and last sequence. Must not know its name.

use std::collections::HashMap;

use serde::Deserialize;
use tokio::time::Instant;

use crate::api::{Range, ask};
use crate::error::StoreError;
use crate::mux::Connection;
use crate::spec::IDENTITY;

/// A stream at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamDescription {
    /// Differs between streams of the same name: the identity in its metadata, or else when it was created.
    pub identity: String,
    /// First and last sequence.
    pub range: Range,
}

#[derive(Debug, Deserialize)]
struct Info {
    created: String,
    state: Range,
    #[serde(default)]
    config: Configured,
}

#[derive(Debug, Default, Deserialize)]
struct Configured {
    #[serde(default)]
    metadata: HashMap<String, String>,
}

impl StreamDescription {
    /// Asks the leader of a stream.
    ///
    /// # Errors
    ///
    /// As for [`crate::Store::last`].
    pub async fn read(
        link: &Connection,
        stream: &str,
        deadline: Instant,
    ) -> Result<StreamDescription, StoreError> {
        let mut info: Info = ask(link, format!("$JS.API.STREAM.INFO.{stream}"), deadline).await?;
        let identity = info.config.metadata.remove(IDENTITY).unwrap_or(info.created);
        Ok(StreamDescription { identity, range: info.state })
    }
}
