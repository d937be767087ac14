//! `gateway backup` and `gateway restore`: copies all state to files and back. Owns which streams belong together, in
//! which order they are copied, and when their copies are consistent. The crate `nats` copies a single stream.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use clap::Args;
use nats::backup::{self, BackupError, State};
use nats::credentials::warn_if_exposed;
use nats::encryption::{Identities, Recipients};
use nats::{Connection, Store};
use order_streams::{DEAD_LETTERS, INVENTORY, ORDERS, SNAPSHOT_BUCKET, SNAPSHOT_PREFIX, SNAPSHOTS};

use order_streams::replicas;

use crate::{OPERATORS, explained, may_lack_leader};

/// ORDERS first: stock of an order that is not in the backup can be repaired, while an order without stock is the worse
/// loss. The snapshots before the ledger that continues from them.
const ORDER: [&str; 4] = [ORDERS, SNAPSHOTS, INVENTORY, DEAD_LETTERS];
/// Marks a complete backup: the digest of every file, in the format of `sha256sum --check`. Written last.
const SUMS: &str = "SHA256SUMS";
/// How often snapshots and ledger are copied until they are consistent.
const TRIES: u32 = 3;
const LIMIT: Duration = Duration::from_secs(10);

/// `gateway backup`.
#[derive(Debug, Clone, Args)]
pub struct Backup {
    /// Folder to write to; created if missing, readable by its owner only, and has to be empty
    pub folder: PathBuf,
    /// Encrypt the messages for this age public key, age1…; may be given several times
    #[arg(long, value_name = "KEY")]
    pub recipient: Vec<String>,
    /// Encrypt the messages for the age public keys in this file, one per line
    #[arg(long, value_name = "FILE")]
    pub recipients_file: Vec<PathBuf>,
    /// Have the servers check every message before it is copied
    #[arg(long)]
    pub check: bool,
    /// Where NATS is.
    #[command(flatten)]
    pub nats: nats::Options,
}

/// `gateway restore`.
#[derive(Debug, Clone, Args)]
pub struct Restore {
    /// A folder written by `gateway backup`, or by `nats stream backup` for each stream
    pub folder: PathBuf,
    /// Decrypt the messages with the keys in this file, as written by age-keygen
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Replicas of the restored streams; default: as many as in the backup
    #[arg(long, env = "GW_STREAM_REPLICAS", value_parser = replicas, value_name = "N")]
    pub replicas: Option<usize>,
    /// Where NATS is.
    #[command(flatten)]
    pub nats: nats::Options,
}

/// Copies all state into a folder, while the system runs.
pub async fn backup(config: Backup) -> anyhow::Result<()> {
    let recipients =
        Recipients::read(&config.recipient, &config.recipients_file).map_err(anyhow::Error::msg)?;
    let link = Connection::connect(&config.nats, "gateway backup").await?;
    let copied = link.permitted(seal(&link, &config.folder, config.check, &recipients)).await;
    copied.context(OPERATORS)??;
    cli::note!("{}: complete", config.folder.display());
    cli::note!(
        "ORDERS is a moment older than the rest: after a restore, `gateway reconcile` shows what differs"
    );
    Ok(())
}

/// Restores all streams from a folder. No gateway or worker may run meanwhile.
pub async fn restore(config: Restore) -> anyhow::Result<()> {
    let identities = match &config.identity {
        Some(path) => Identities::read(path).map_err(anyhow::Error::msg)?,
        None => Identities::default(),
    };
    config.identity.iter().for_each(|path| warn_if_exposed(path));
    let link = Connection::connect(&config.nats, "gateway restore").await?;
    let restored = link.permitted(unseal(&link, &config.folder, config.replicas, &identities)).await;
    let lacks = |error: &anyhow::Error| error.chain().any(may_lack_leader);
    let warnings = restored.context(OPERATORS)?.map_err(|error| match lacks(&error) {
        true => explained(error).context("the NATS nodes have to be back before a restore"),
        false => error,
    })?;
    for warning in warnings {
        cli::note!("warning: {warning}");
    }
    cli::note!("ORDERS has a new identity: earlier page and resume tokens are refused");
    cli::note!("now start the workers and the gateways, and run `gateway reconcile`");
    Ok(())
}

/// Copies all streams into a folder.
pub async fn save(link: &Connection, folder: &Path, check: bool) -> anyhow::Result<()> {
    seal(link, folder, check, &Recipients::default()).await
}

/// The same, encrypted for these recipients.
async fn seal(link: &Connection, folder: &Path, check: bool, recipients: &Recipients) -> anyhow::Result<()> {
    ensure!(folder != Path::new("-"), "a backup is a folder, and cannot be standard output");
    let part = Part::begin(folder)?;
    let mut files = copy(link, ORDERS, folder, check, recipients).await?;
    files.extend(stock(link, folder, check, recipients).await?);
    files.extend(copy(link, DEAD_LETTERS, folder, check, recipients).await?);
    sum_up(folder, files)?;
    part.finish();
    Ok(())
}

/// A backup that is being written. Dropped before its end, it removes what it has written.
struct Part<'a> {
    folder: &'a Path,
    made: bool,
    whole: bool,
}

impl<'a> Part<'a> {
    fn begin(folder: &'a Path) -> anyhow::Result<Part<'a>> {
        let made = !folder.exists();
        cli::file::folder(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let there = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()));
        ensure!(there?.next().is_none(), "{} is not empty: a backup needs an empty folder", folder.display());
        Ok(Part { folder, made, whole: false })
    }

    fn finish(mut self) {
        self.whole = true;
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if self.whole {
            return;
        }
        for stream in ORDER {
            let _ = std::fs::remove_dir_all(self.folder.join(stream));
        }
        // Only if it is empty.
        let gone = !self.made || std::fs::remove_dir(self.folder).is_ok();
        if !gone {
            cli::note!("the backup in {} is incomplete; remove it", self.folder.display());
        }
    }
}

/// Copies the snapshots and the ledger until the ledger continues from a snapshot: meanwhile snapshots are made and the
/// ledger is purged.
async fn stock(
    link: &Connection,
    folder: &Path,
    check: bool,
    recipients: &Recipients,
) -> anyhow::Result<Vec<PathBuf>> {
    let ledger = Store::new(link.clone(), INVENTORY);
    for _ in 0..TRIES {
        let newest = newest_snapshot(link).await?;
        let mut files = copy(link, SNAPSHOTS, folder, check, recipients).await?;
        files.extend(copy(link, INVENTORY, folder, check, recipients).await?);
        // Read after both copies: what the ledger holds now is in the copy.
        let range = ledger.range(deadline()).await?;
        if range.first <= newest + 1 {
            return Ok(files);
        }
        cli::note!("the ledger was purged past the snapshots that were copied; both are copied again");
    }
    bail!("snapshots are made faster than they can be copied: raise GW_SNAPSHOT_EVERY of the workers")
}

/// The ledger's sequence in the newest snapshot; 0 for none.
async fn newest_snapshot(link: &Connection) -> anyhow::Result<u64> {
    let subjects = format!("$O.{SNAPSHOT_BUCKET}.M.");
    let store = Store::new(link.clone(), SNAPSHOTS);
    let names = store.subjects(&format!("{subjects}>"), deadline()).await?;
    let sequence = |subject: &String| {
        let name = URL_SAFE.decode(subject.strip_prefix(&subjects)?).ok()?;
        std::str::from_utf8(&name).ok()?.strip_prefix(SNAPSHOT_PREFIX)?.parse().ok()
    };
    Ok(names.iter().filter_map(sequence).max().unwrap_or(0))
}

/// Copies a stream into its folder, and returns its files' paths within the backup.
async fn copy(
    link: &Connection,
    stream: &'static str,
    folder: &Path,
    check: bool,
    recipients: &Recipients,
) -> anyhow::Result<Vec<PathBuf>> {
    let began = Instant::now();
    let saved = backup::save(link, stream, &folder.join(stream), check, recipients).await;
    let saved = saved.map_err(|error| match &error {
        BackupError::ConsumerDown(consumer) => {
            let said = format!("cannot copy {stream}: {error}; {}", without(stream, consumer));
            anyhow::Error::new(error).context(said)
        }
        _ => anyhow::Error::new(error).context(format!("cannot copy {stream}")),
    })?;
    say(stream, "copied", saved.state, &format!("{} bytes in {:.1?}", saved.bytes, began.elapsed()));
    Ok(saved.files.iter().map(|file| Path::new(stream).join(file)).collect())
}

/// What to do about a consumer that is on a node that is down. A reader's consumer has a random name, and its state is of
/// no use to anybody once the reader has made another.
fn without(stream: &str, consumer: &str) -> String {
    let wait = "start that node, and then make the backup again";
    let reader = consumer.len() == 32 && consumer.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !reader {
        return wait.to_owned();
    }
    format!(
        "{wait}; or remove the consumer as the role breakglass: `nats consumer rm {stream} {consumer} -f` (gateways, \
         workers and `gateway reconcile` make such consumers anew when they need them)"
    )
}

/// Writes the digests, which mark the backup as complete.
fn sum_up(folder: &Path, files: Vec<PathBuf>) -> anyhow::Result<()> {
    let mut sums = String::new();
    for file in files {
        let digest = backup::digest(&folder.join(&file))?;
        sums += &format!("{digest}  {}\n", file.display());
    }
    Ok(cli::file::replace(&folder.join(SUMS), |out| out.write_all(sums.as_bytes()))?)
}

/// Restores all streams from a folder, if none exists. Returns warnings about their durability.
pub async fn load(link: &Connection, folder: &Path, replicas: Option<usize>) -> anyhow::Result<Vec<String>> {
    unseal(link, folder, replicas, &Identities::default()).await
}

/// The same, decrypted with these identities.
async fn unseal(
    link: &Connection,
    folder: &Path,
    replicas: Option<usize>,
    identities: &Identities,
) -> anyhow::Result<Vec<String>> {
    ensure!(folder != Path::new("-"), "a backup is a folder, and cannot be standard input");
    for stream in ORDER {
        backup::saved(&folder.join(stream)).with_context(|| format!("{stream} is not in the backup"))?;
    }
    verify(folder)?;
    // Everything is read once before anything is created.
    for stream in ORDER {
        let sealed = backup::try_out(&folder.join(stream), identities)?;
        ensure!(
            sealed || identities.none(),
            "{stream} is not encrypted although --identity is given: is it another backup?"
        );
    }
    if let Some((there, remove)) = there(link).await? {
        bail!(
            "{there} exist, and restore overwrites nothing: stop the gateways and workers, and to delete these \
             streams, run as the role breakglass: `{remove}`"
        );
    }
    for stream in ORDER {
        let began = Instant::now();
        let place = folder.join(stream);
        let made = backup::load(link, stream, &place, identities, |config| {
            if let Some(replicas) = replicas {
                config["num_replicas"] = replicas.into();
            }
            if stream == ORDERS {
                nats::streams::rename(config);
            }
        });
        let state = match made.await {
            Ok(state) => state,
            Err(error) => {
                // The server keeps the part of a stream that was restored before the error.
                let remove = match there(link).await {
                    Ok(Some((_, remove))) => {
                        format!("; before you try again, run as the role breakglass: `{remove}`")
                    }
                    Ok(None) | Err(_) => {
                        "; before you try again, look at `nats stream ls`: as the role breakglass, `nats stream rm NAME \
                         -f` removes what is left"
                            .to_owned()
                    }
                };
                return Err(anyhow::Error::new(error).context(format!("cannot restore {stream}{remove}")));
            }
        };
        // ORDERS permits no deletion, so none of its entries was removed during the copy.
        let whole = stream != ORDERS || state.messages == backup::saved(&place)?.messages;
        ensure!(whole, "ORDERS has {} messages now, fewer than the backup says", state.messages);
        say(stream, "restored", state, &format!("in {:.1?}", began.elapsed()));
    }
    // Checks the streams as a gateway does at its start, and creates nothing.
    Ok(order_streams::open(link, 1, false).await?.warnings)
}

/// The streams that exist, and the commands that remove them.
async fn there(link: &Connection) -> anyhow::Result<Option<(String, String)>> {
    let (mut names, mut remove) = (Vec::new(), Vec::new());
    for stream in ORDER {
        if backup::exists(link, stream).await? {
            names.push(stream);
            remove.push(format!("nats stream rm {stream} -f"));
        }
    }
    Ok((!names.is_empty()).then(|| (names.join(", "), remove.join("; "))))
}

/// Compares every file with its digest.
fn verify(folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(SUMS);
    let Ok(text) = std::fs::read_to_string(&path) else {
        cli::note!("there is no {SUMS}: the files cannot be verified");
        return Ok(());
    };
    let sums: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once("  ")).map(|(sum, file)| (file, sum)).collect();
    for stream in ORDER {
        let named = sums.keys().filter(|file| Path::new(file).starts_with(stream)).count();
        ensure!(named == 2, "{} does not name the files of {stream}", path.display());
    }
    for (file, sum) in sums {
        let found = backup::digest(&folder.join(file))?;
        ensure!(found == sum, "{file} is damaged: its digest differs from the one in {SUMS}");
    }
    cli::note!("the digests of all files match");
    Ok(())
}

fn say(stream: &str, what: &str, state: State, more: &str) {
    let State { messages, first, last } = state;
    cli::note!("{stream}: {what}, {messages} messages, {first} to {last}, {more}");
}

fn deadline() -> tokio::time::Instant {
    tokio::time::Instant::now() + LIMIT
}
