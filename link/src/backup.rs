//! Streams as files, and back: JetStream's own snapshots, with their consumers, in the layout that the nats CLI writes
//! and reads. A chunk is held in memory at a time, and a window of them is on its way. Must never know what a stream is
//! for.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};

use crate::inbox::{Link, Trouble};
use crate::seal::{Identities, Recipients, SUFFIX, Source};
use crate::store::{NO_STREAM, StoreError, answer, found};

/// The file with a stream's configuration and state.
pub const META: &str = "backup.json";
/// The file with its messages and consumers, as servers from 2.15 on write it.
const ARCHIVE: &str = "stream.arc.s2";
/// The same, as older servers write it.
const TAR: &str = "stream.tar.s2";
/// Both, encrypted.
const ARCHIVE_SEALED: &str = "stream.arc.s2.age";
const TAR_SEALED: &str = "stream.tar.s2.age";
/// How the contents of the newer begin; compressed, such a beginning stands there as it is.
const ARCHIVE_MAGIC: &[u8] = b"NATSARC1";
const BEGINNING: usize = 64;

/// Bytes of a chunk. The server sends 8 MiB ahead of what was acknowledged: far fewer chunks than the client library
/// drops. (A smaller window could be asked for, but servers before 2.15 refuse the request for it.)
const CHUNK: usize = 128 * 1_024;
/// What the server may take to begin; it may check every message first.
const BEGIN: Duration = Duration::from_secs(600);
/// What it may take for a chunk.
const STEP: Duration = Duration::from_secs(60);
/// What it may take to put everything in its place.
const END: Duration = Duration::from_secs(1_800);
const ATTEMPT: Duration = Duration::from_secs(10);
/// In a cluster, other servers learn a moment later who takes the first chunk. The one that waits for it gives up after 5 s.
const HEARD_OF: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(50);

/// A stream's numbers, as the server writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct State {
    /// Messages.
    pub messages: u64,
    /// The first sequence that is there.
    #[serde(rename = "first_seq")]
    pub first: u64,
    /// The last that was ever stored.
    #[serde(rename = "last_seq")]
    pub last: u64,
}

/// A stream in a folder.
#[derive(Debug, Clone)]
pub struct Saved {
    /// Its numbers when it was begun.
    pub state: State,
    /// The files in the folder, by name.
    pub files: [&'static str; 2],
    /// Bytes of them.
    pub bytes: u64,
}

/// Why a stream was not saved, or not loaded.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// JetStream.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
    /// A file that is no backup.
    #[error("{} cannot be used: {why}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The server broke off.
    #[error("the server broke off: {0}")]
    BrokenOff(String),
    /// Chunks were lost on the way.
    #[error("chunks were lost on the way; begin again")]
    Lost,
    /// Nothing came for a minute.
    #[error("the server sent nothing for {STEP:?}")]
    Silent,
    /// What is there now is not what was saved.
    #[error("the stream has {found:?} now, and was saved with {saved:?}")]
    Differs {
        /// Now.
        found: State,
        /// Then.
        saved: State,
    },
}

/// What of a stream is needed to make it anew; all else of its state is the server's.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct Meta {
    config: Value,
    state: Value,
}

#[derive(Debug, Deserialize)]
struct Accepted {
    deliver_subject: String,
}

#[derive(Debug, Deserialize)]
struct Restored {
    state: State,
}

/// Whether a stream of this name exists.
pub async fn exists(link: &Link, stream: &str) -> Result<bool, StoreError> {
    let subject = format!("$JS.API.STREAM.INFO.{stream}");
    match found::<Value>(link, subject, Bytes::new(), Instant::now() + ATTEMPT).await? {
        Ok(_) => Ok(true),
        Err(error) if error.err_code == NO_STREAM => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes a stream into a folder, which is made, for nobody else to read. With `check` the server reads every message first, and breaks off at
/// one that is damaged.
pub async fn save(
    link: &Link,
    stream: &str,
    folder: &Path,
    check: bool,
    recipients: &Recipients,
) -> Result<Saved, BackupError> {
    cli::file::folder(folder).map_err(of(folder))?;
    let inbox = link.client().new_inbox();
    let chunks = timeout(ATTEMPT, link.client().subscribe(inbox.clone())).await;
    let chunks = chunks.map_err(|_| BackupError::Silent)?;
    let mut chunks = chunks.map_err(|error| BackupError::BrokenOff(error.to_string()))?;
    let connects = connects(link);
    let request = serde_json::json!({
        "deliver_subject": inbox,
        "no_consumers": false,
        "jsck": check,
        "chunk_size": CHUNK,
    });
    let subject = format!("$JS.API.STREAM.SNAPSHOT.{stream}");
    let deadline = Instant::now() + BEGIN;
    let reply = link.request(subject, HeaderMap::new(), request.to_string().into(), deadline).await;
    let reply = reply.map_err(StoreError::from)?;
    let meta: Meta = answer(&reply.payload)?.map_err(StoreError::from)?;

    let part = folder.join("stream.part");
    let file = cli::file::create(&part).map_err(of(&part))?;
    let mut file = recipients.seal(file).map_err(of(&part))?;
    let (mut bytes, mut beginning) = (0, Vec::with_capacity(BEGINNING));
    for index in 1.. {
        let next = timeout(STEP, chunks.next()).await.map_err(|_| BackupError::Silent)?;
        let Some(chunk) = take(link, next.ok_or(BackupError::Lost)?, index).await? else { break };
        beginning.extend(chunk.iter().copied().take(BEGINNING - beginning.len()));
        file.write_all(&chunk).map_err(of(&part))?;
        bytes += chunk.len() as u64;
    }
    // A last chunk has no number: over a connection that was lost meanwhile, it may have been another.
    if connects != self::connects(link) {
        return Err(BackupError::Lost);
    }
    file.finish().map_err(of(&part))?;
    let newer = beginning.windows(ARCHIVE_MAGIC.len()).any(|window| window == ARCHIVE_MAGIC);
    let archive = match (newer, recipients.none()) {
        (true, true) => ARCHIVE,
        (true, false) => ARCHIVE_SEALED,
        (false, true) => TAR,
        (false, false) => TAR_SEALED,
    };
    std::fs::rename(&part, folder.join(archive)).map_err(of(&part))?;
    bytes += write_meta(&folder.join(META), &meta)?;
    Ok(Saved { state: state(&meta, &folder.join(META))?, files: [archive, META], bytes })
}

/// The bytes of a chunk, after its acknowledgement is on its way; `None` for the end.
async fn take(link: &Link, message: Message, expected: u64) -> Result<Option<Bytes>, BackupError> {
    if message.payload.is_empty() {
        return match message.status {
            None | Some(StatusCode::OK) => Ok(None),
            Some(status) if status.as_u16() == 204 => Ok(None),
            Some(status) => {
                Err(BackupError::BrokenOff(message.description.unwrap_or_else(|| status.to_string())))
            }
        };
    }
    let Some(reply) = message.reply else { return Ok(Some(message.payload)) };
    // The subject of an acknowledgement ends with the chunk's size and number.
    let number = reply.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
    if number.is_some_and(|number| number != expected) {
        return Err(BackupError::Lost);
    }
    let sent = timeout(ATTEMPT, link.client().publish(reply, Bytes::new())).await;
    sent.map_err(|_| BackupError::Silent)?.map_err(|error| BackupError::BrokenOff(error.to_string()))?;
    Ok(Some(message.payload))
}

/// Makes a stream from a folder. `change` may change its configuration before.
pub async fn load(
    link: &Link,
    stream: &str,
    folder: &Path,
    identities: &Identities,
    change: impl FnOnce(&mut Value),
) -> Result<State, BackupError> {
    let (path, name) = (folder.join(META), archive(folder)?);
    let archive = folder.join(name);
    if name.starts_with(ARCHIVE) && !link.client().is_server_compatible(2, 15, 0) {
        let why = "servers before 2.15 cannot read it".to_owned();
        return Err(BackupError::Unreadable { path: archive, why });
    }
    let mut meta = read_meta(&path)?;
    let saved = state(&meta, &path)?;
    change(&mut meta.config);
    let request = serde_json::to_vec(&meta).map_err(unreadable(&path))?;
    let mut file = open(&archive, identities)?;
    let subject = format!("$JS.API.STREAM.RESTORE.{stream}");
    let reply = link.request(subject, HeaderMap::new(), request.into(), Instant::now() + ATTEMPT).await;
    let reply = reply.map_err(StoreError::from)?;
    let to: Accepted = answer(&reply.payload)?.map_err(|error| BackupError::BrokenOff(error.description))?;
    let mut chunk = vec![0; CHUNK.min(link.client().max_payload())];
    let patient = Instant::now() + HEARD_OF;
    loop {
        let length = file.read(&mut chunk).map_err(of(&archive))?;
        let limit = Instant::now() + if length == 0 { END } else { STEP };
        let payload = Bytes::copy_from_slice(&chunk[..length]);
        let reply = hand_over(link, &to.deliver_subject, payload, limit, patient).await?;
        if length > 0 && reply.payload.is_empty() {
            continue;
        }
        let made: Restored =
            answer(&reply.payload)?.map_err(|error| BackupError::BrokenOff(error.description))?;
        let found = made.state;
        // What was purged while the backup was made is not in it.
        let whole =
            found.last == saved.last && found.first >= saved.first && found.messages <= saved.messages;
        return if whole { Ok(found) } else { Err(BackupError::Differs { found, saved }) };
    }
}

/// Sends a chunk, again for so long as nobody is there to take it.
async fn hand_over(
    link: &Link,
    to: &str,
    chunk: Bytes,
    limit: Instant,
    patient: Instant,
) -> Result<Message, StoreError> {
    loop {
        match link.request(to.to_owned(), HeaderMap::new(), chunk.clone(), limit).await {
            Err(Trouble::NoResponders) if Instant::now() < patient => tokio::time::sleep(PAUSE).await,
            reply => return Ok(reply?),
        }
    }
}

/// Reads the messages of a stream in a folder to their end, so that nothing is begun with what cannot be decrypted or is not whole.
/// Whether they are encrypted.
pub fn try_out(folder: &Path, identities: &Identities) -> Result<bool, BackupError> {
    let name = archive(folder)?;
    let path = folder.join(name);
    let mut file = open(&path, identities)?;
    if let Source::Sealed(_) = file {
        io::copy(&mut file, &mut io::sink()).map_err(|error| damaged(&path, &error))?;
    }
    Ok(name.ends_with(SUFFIX))
}

fn open(path: &Path, identities: &Identities) -> Result<Source, BackupError> {
    let file = File::open(path).map_err(of(path))?;
    if !path.as_os_str().as_encoded_bytes().ends_with(SUFFIX.as_bytes()) {
        return Ok(Source::Plain(file));
    }
    identities.open(file).map_err(|why| BackupError::Unreadable { path: path.to_owned(), why })
}

fn damaged(path: &Path, error: &io::Error) -> BackupError {
    let why = format!("it is damaged, or not whole: {error}");
    BackupError::Unreadable { path: path.to_owned(), why }
}

/// A stream's numbers in a folder that has it.
pub fn saved(folder: &Path) -> Result<State, BackupError> {
    archive(folder)?;
    let path = folder.join(META);
    state(&read_meta(&path)?, &path)
}

/// The digest of a file, in hexadecimal.
pub fn digest(path: &Path) -> Result<String, BackupError> {
    let mut file = File::open(path).map_err(of(path))?;
    let (mut sum, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        let length = file.read(&mut chunk).map_err(of(path))?;
        if length == 0 {
            return Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        sum.update(&chunk[..length]);
    }
}

/// The name of the file with the messages.
fn archive(folder: &Path) -> Result<&'static str, BackupError> {
    let names = [ARCHIVE, TAR, ARCHIVE_SEALED, TAR_SEALED];
    let found: Vec<_> = names.into_iter().filter(|name| folder.join(name).exists()).collect();
    match found[..] {
        [name] => Ok(name),
        _ => Err(BackupError::Unreadable {
            path: folder.to_owned(),
            why: format!("it has to have one of {ARCHIVE} and {TAR}, or one of the two with {SUFFIX}"),
        }),
    }
}

fn write_meta(path: &Path, meta: &Meta) -> Result<u64, BackupError> {
    let text = serde_json::to_vec_pretty(meta).map_err(unreadable(path))?;
    cli::file::replace(path, |out| out.write_all(&text)).map_err(of(path))?;
    Ok(text.len() as u64)
}

fn read_meta(path: &Path) -> Result<Meta, BackupError> {
    let text = std::fs::read(path).map_err(of(path))?;
    serde_json::from_slice(&text).map_err(unreadable(path))
}

fn state(meta: &Meta, path: &Path) -> Result<State, BackupError> {
    State::deserialize(&meta.state).map_err(unreadable(path))
}

fn connects(link: &Link) -> u64 {
    link.client().statistics().connects.load(Ordering::Relaxed)
}

fn of(path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { path, source }
}

fn unreadable(path: &Path) -> impl FnOnce(serde_json::Error) -> BackupError {
    let path = path.to_owned();
    move |error| BackupError::Unreadable { path, why: error.to_string() }
}

#[cfg(test)]
mod tests;
