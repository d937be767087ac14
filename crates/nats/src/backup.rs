//! Backs up streams to files and restores them, by JetStream's own snapshots (consumers included), in the layout that
//! the nats CLI writes and reads. Holds one chunk in memory at a time; a window of chunks is in flight. Must not depend
//! on what a stream is used for.

mod error;
mod wait;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};

pub use error::{BackupError, State};

use crate::api::{answer, found};
use crate::encryption::{Identities, Recipients, SUFFIX, Source};
use crate::error::{ApiError, NO_STREAM, NOT_AVAILABLE, StoreError, of_read};
use crate::mux::{Connection, RequestError};
use wait::{ATTEMPT, STEP, told};

/// The file with a stream's configuration and state.
const META: &str = "backup.json";
/// The file with the stream's messages and consumers, as written by servers from 2.15 on.
const ARCHIVE: &str = "stream.arc.s2";
/// The same file, as written by older servers.
const TAR: &str = "stream.tar.s2";
/// Both files, encrypted.
const ARCHIVE_SEALED: &str = "stream.arc.s2.age";
const TAR_SEALED: &str = "stream.tar.s2.age";
/// The first bytes of `ARCHIVE`'s contents; compression leaves them as they are.
const ARCHIVE_MAGIC: &[u8] = b"NATSARC1";
const BEGINNING: usize = 64;

/// Bytes per chunk. The server sends up to 8 MiB of unacknowledged data: far fewer chunks than the client library
/// drops. (We could request a smaller window, but servers before 2.15 refuse that request.)
const CHUNK: usize = 128 * 1_024;
/// Time limit for the server to begin.
const BEGIN: Duration = Duration::from_secs(60);
/// The same where it checks every message first.
const BEGIN_CHECKED: Duration = Duration::from_secs(600);
/// Time limit for the server to finish a restore.
const END: Duration = Duration::from_secs(1_800);
/// In a cluster, other servers learn a moment later who receives the first chunk. The receiver gives up after 5 s.
const HEARD_OF: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(50);

/// A stream that was backed up to a folder.
#[derive(Debug, Clone)]
pub struct Saved {
    /// The stream's state when the backup began.
    pub state: State,
    /// The files in the folder, by name.
    pub files: [&'static str; 2],
    /// Size of the files in bytes.
    pub bytes: u64,
}

/// The parts of a stream that a restore needs; the rest of its state belongs to the server.
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
///
/// # Errors
///
/// JetStream did not answer in 10 s, or with another error than "stream not found": it is unknown whether it exists.
pub async fn exists(link: &Connection, stream: &str) -> Result<bool, StoreError> {
    let subject = format!("$JS.API.STREAM.INFO.{stream}");
    match found::<Value>(link, subject, Bytes::new(), Instant::now() + ATTEMPT).await? {
        Ok(_) => Ok(true),
        Err(error) if error.err_code == NO_STREAM => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Backs up a stream into a folder, which is created readable by its owner only. With `check` the server reads every
/// message first, and aborts at a damaged one.
///
/// # Errors
///
/// The stream has no leader or no quorum ([`BackupError::NoLeader`], after at most 10 s), JetStream refuses
/// ([`BackupError::Store`], such as for a stream that does not exist) or aborts ([`BackupError::ConsumerDown`],
/// [`BackupError::BrokenOff`]), chunks are lost or stay away, or a file cannot be written. The stream is unchanged; what is
/// in the folder then is no backup.
pub async fn save(
    link: &Connection,
    stream: &str,
    folder: &Path,
    check: bool,
    recipients: &Recipients,
) -> Result<Saved, BackupError> {
    cli::file::folder(folder).map_err(of(folder))?;
    told(format_args!("the leader of {stream}"), led(link, stream)).await?;
    let inbox = link.client().new_inbox();
    let chunks = timeout(ATTEMPT, link.client().subscribe(inbox.clone())).await;
    let chunks = chunks.map_err(|_| BackupError::Silent)?;
    let mut chunks = chunks.map_err(|error| BackupError::BrokenOff(error.to_string()))?;
    let connects = connects(link);
    let begun = watched(link, stream, begin(link, stream, &inbox, check));
    let meta = told(format_args!("the server to begin the copy of {stream}"), begun).await?;

    let part = folder.join("stream.part");
    let file = cli::file::create(&part).map_err(of(&part))?;
    let mut file = recipients.seal(file).map_err(of(&part))?;
    let (mut bytes, mut beginning) = (0, Vec::with_capacity(BEGINNING));
    for index in 1.. {
        let next = told(format_args!("the next part of {stream}"), timeout(STEP, chunks.next())).await;
        let next = next.map_err(|_| BackupError::Silent)?;
        let Some(chunk) = take(link, next.ok_or(BackupError::Lost)?, index).await? else { break };
        beginning.extend(chunk.iter().copied().take(BEGINNING - beginning.len()));
        file.write_all(&chunk).map_err(of(&part))?;
        bytes += chunk.len() as u64;
    }
    // The last chunk has no number: if the connection was lost meanwhile, it may belong to another transfer.
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

/// Checks that the stream has a leader that answers. Without one, nothing answers the request for a copy either, and that
/// one has to wait for long.
async fn led(link: &Connection, stream: &str) -> Result<(), BackupError> {
    let subject = format!("$JS.API.STREAM.INFO.{stream}");
    let info = found::<Value>(link, subject, Bytes::new(), Instant::now() + ATTEMPT).await;
    match info.and_then(|info| info.map_err(of_read)) {
        Ok(info)
            if info["cluster"].is_object()
                && info["cluster"]["leader"].as_str().is_none_or(str::is_empty) =>
        {
            Err(BackupError::NoLeader(StoreError::Unavailable("it names no leader".to_owned())))
        }
        Ok(_) => Ok(()),
        Err(error) if error.may_lack_leader() => Err(BackupError::NoLeader(error)),
        Err(error) => Err(error.into()),
    }
}

/// Awaits this, and looks every 10 s whether the stream still has a leader.
async fn watched<T>(
    link: &Connection,
    stream: &str,
    begun: impl Future<Output = Result<T, BackupError>>,
) -> Result<T, BackupError> {
    let mut begun = std::pin::pin!(begun);
    loop {
        match timeout(ATTEMPT, begun.as_mut()).await {
            Ok(begun) => return begun,
            Err(_) => led(link, stream).await?,
        }
    }
}

/// Requests a copy of a stream, to be sent to this inbox.
async fn begin(link: &Connection, stream: &str, inbox: &str, check: bool) -> Result<Meta, BackupError> {
    let request = serde_json::json!({
        "deliver_subject": inbox,
        "no_consumers": false,
        "jsck": check,
        "chunk_size": CHUNK,
    });
    let subject = format!("$JS.API.STREAM.SNAPSHOT.{stream}");
    let deadline = Instant::now() + if check { BEGIN_CHECKED } else { BEGIN };
    let reply = link.request(subject, HeaderMap::new(), request.to_string().into(), deadline).await;
    let reply = reply.map_err(StoreError::from)?;
    Ok(answer(&reply.payload)?.map_err(StoreError::from)?)
}

/// Acknowledges a chunk and returns its bytes; `None` at the end.
async fn take(link: &Connection, message: Message, expected: u64) -> Result<Option<Bytes>, BackupError> {
    if message.payload.is_empty() {
        return match message.status {
            None | Some(StatusCode::OK) => Ok(None),
            Some(status) if status.as_u16() == 204 => Ok(None),
            Some(status) => {
                Err(BackupError::aborted(message.description.unwrap_or_else(|| status.to_string())))
            }
        };
    }
    let Some(reply) = message.reply else { return Ok(Some(message.payload)) };
    // An acknowledgement's subject ends with the chunk's size and number.
    let number = reply.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
    if number.is_some_and(|number| number != expected) {
        return Err(BackupError::Lost);
    }
    let sent = timeout(ATTEMPT, link.client().publish(reply, Bytes::new())).await;
    sent.map_err(|_| BackupError::Silent)?.map_err(|error| BackupError::BrokenOff(error.to_string()))?;
    Ok(Some(message.payload))
}

/// Restores a stream from a folder. `change` may edit its configuration first.
///
/// # Errors
///
/// Nothing was restored: [`BackupError::Unreadable`] (also where the server is too old for the file), and
/// [`BackupError::BrokenOff`] (the server refused it, such as because the stream exists). Restored, but not as it was
/// saved: [`BackupError::Differs`]. Maybe restored: all others; [`exists`] tells.
pub async fn load(
    link: &Connection,
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
    let to: Accepted = answer(&reply.payload)?.map_err(refused)?;
    let mut chunk = vec![0; CHUNK.min(link.client().max_payload())];
    let patient = Instant::now() + HEARD_OF;
    loop {
        let length = file.read(&mut chunk).map_err(of(&archive))?;
        let limit = Instant::now() + if length == 0 { END } else { STEP };
        let payload = Bytes::copy_from_slice(&chunk[..length]);
        let sent = hand_over(link, &to.deliver_subject, payload, limit, patient);
        let reply = told(format_args!("the server to take {stream}"), sent).await?;
        if length > 0 && reply.payload.is_empty() {
            continue;
        }
        let made: Restored = answer(&reply.payload)?.map_err(refused)?;
        let found = made.state;
        // Messages purged while the backup was made are not in it.
        let whole =
            found.last == saved.last && found.first >= saved.first && found.messages <= saved.messages;
        return if whole { Ok(found) } else { Err(BackupError::Differs { found, saved }) };
    }
}

/// The error with which the server ends a restore.
fn refused(error: ApiError) -> BackupError {
    match error.err_code {
        NOT_AVAILABLE => StoreError::from(error).into(),
        _ => BackupError::BrokenOff(error.description),
    }
}

/// Sends a chunk, and repeats it while there are no responders.
async fn hand_over(
    link: &Connection,
    to: &str,
    chunk: Bytes,
    limit: Instant,
    patient: Instant,
) -> Result<Message, StoreError> {
    loop {
        match link.request(to.to_owned(), HeaderMap::new(), chunk.clone(), limit).await {
            Err(RequestError::NoResponders) if Instant::now() < patient => tokio::time::sleep(PAUSE).await,
            reply => return Ok(reply?),
        }
    }
}

/// Reads the messages of a backup to their end, so that no restore begins with a file that cannot be decrypted or is
/// incomplete. Returns whether it is encrypted.
///
/// # Errors
///
/// The folder has no file of messages or several, or the file cannot be read; if it is encrypted: no identity fits, or it
/// is damaged or incomplete.
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
    let why = format!("it is damaged or incomplete: {error}");
    BackupError::Unreadable { path: path.to_owned(), why }
}

/// The stream state in a backup folder.
///
/// # Errors
///
/// The folder has no file of messages or several, or its `backup.json` cannot be read.
pub fn saved(folder: &Path) -> Result<State, BackupError> {
    archive(folder)?;
    let path = folder.join(META);
    state(&read_meta(&path)?, &path)
}

/// The SHA-256 digest of a file, in hexadecimal.
///
/// # Errors
///
/// The file cannot be read.
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
            why: format!("it must contain exactly one of {ARCHIVE}, {TAR}, and these names with {SUFFIX}"),
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

fn connects(link: &Connection) -> u64 {
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
