//! `gateway backup` and `gateway restore`: all state as files, and back. Owns which streams belong together, in which
//! order they are copied, and what makes copies of them fit each other; how one is copied is `link`'s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use clap::Args;
use link::backup::{self, State};
use link::credentials::warn_if_exposed;
use link::seal::{Identities, Recipients};
use link::streams::{DEAD_LETTERS, INVENTORY, ORDERS, SNAPSHOT_BUCKET, SNAPSHOT_PREFIX, SNAPSHOTS};
use link::{Link, Store, Streams};

use crate::config::replicas;

/// ORDERS first: what the stock says of an order that is not in the backup can be mended, and an order that the stock
/// knows nothing of is the worse loss. The snapshots before the ledger that goes on from them.
const ORDER: [&str; 4] = [ORDERS, SNAPSHOTS, INVENTORY, DEAD_LETTERS];
/// What says that a backup is whole: the digest of every file, as `sha256sum --check` reads it. Written last.
const SUMS: &str = "SHA256SUMS";
/// How often snapshots and ledger are copied until they fit each other.
const TRIES: u32 = 3;
const LIMIT: Duration = Duration::from_secs(10);

/// `gateway backup`.
#[derive(Debug, Clone, Args)]
pub struct Backup {
    /// Where to; it is made, for nobody else to read, and has to be empty
    pub folder: PathBuf,
    /// Encrypt the messages for the holder of this key of age, age1…; may be given several times
    #[arg(long, value_name = "KEY")]
    pub recipient: Vec<String>,
    /// Encrypt them for the keys in this file, one a line
    #[arg(long, value_name = "FILE")]
    pub recipients_file: Vec<PathBuf>,
    /// Have the servers check every message before it is copied
    #[arg(long)]
    pub check: bool,
    /// Where NATS is.
    #[command(flatten)]
    pub nats: link::Options,
}

/// `gateway restore`.
#[derive(Debug, Clone, Args)]
pub struct Restore {
    /// A folder that `gateway backup` made, or `nats stream backup` for each stream
    pub folder: PathBuf,
    /// Decrypt the messages with the keys in this file, as age-keygen makes it
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Replicas of the streams that are made; as many as there were if nobody says
    #[arg(long, env = "GW_STREAM_REPLICAS", value_parser = replicas, value_name = "N")]
    pub replicas: Option<usize>,
    /// Where NATS is.
    #[command(flatten)]
    pub nats: link::Options,
}

/// Copies all state into a folder, while the system runs.
pub async fn backup(config: Backup) -> anyhow::Result<()> {
    let recipients =
        Recipients::read(&config.recipient, &config.recipients_file).map_err(anyhow::Error::msg)?;
    let link = Link::connect(&config.nats, "gateway backup").await?;
    link.permitted(seal(&link, &config.folder, config.check, &recipients)).await??;
    cli::note!("{}: whole", config.folder.display());
    cli::note!(
        "ORDERS is a moment older than the rest: after a restore, `gateway reconcile` says what that means"
    );
    Ok(())
}

/// Makes all streams from a folder. Nothing may run on them meanwhile.
pub async fn restore(config: Restore) -> anyhow::Result<()> {
    let identities = match &config.identity {
        Some(path) => Identities::read(path).map_err(anyhow::Error::msg)?,
        None => Identities::default(),
    };
    config.identity.iter().for_each(|path| warn_if_exposed(path));
    let link = Link::connect(&config.nats, "gateway restore").await?;
    for warning in link.permitted(unseal(&link, &config.folder, config.replicas, &identities)).await?? {
        cli::note!("warning: {warning}");
    }
    cli::note!("ORDERS has a new identity: page and resume tokens of before are refused");
    cli::note!("now start the workers and the gateways, and run `gateway reconcile`");
    Ok(())
}

/// Copies all streams into a folder.
pub async fn save(link: &Link, folder: &Path, check: bool) -> anyhow::Result<()> {
    seal(link, folder, check, &Recipients::default()).await
}

/// The same, for these alone to read.
async fn seal(link: &Link, folder: &Path, check: bool, recipients: &Recipients) -> anyhow::Result<()> {
    ensure!(folder != Path::new("-"), "a backup is a folder, and cannot be standard output");
    cli::file::folder(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut there = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    ensure!(there.next().is_none(), "{} is not empty: a backup needs a folder of its own", folder.display());
    let incomplete = || format!("the backup in {} is incomplete; remove it", folder.display());
    let mut files = copy(link, ORDERS, folder, check, recipients).await.with_context(incomplete)?;
    files.extend(stock(link, folder, check, recipients).await.with_context(incomplete)?);
    files.extend(copy(link, DEAD_LETTERS, folder, check, recipients).await.with_context(incomplete)?);
    sum_up(folder, files).with_context(incomplete)
}

/// Copies the snapshots and the ledger until the one goes on from the other: snapshots are made and the ledger is purged
/// meanwhile.
async fn stock(
    link: &Link,
    folder: &Path,
    check: bool,
    recipients: &Recipients,
) -> anyhow::Result<Vec<PathBuf>> {
    let ledger = Store::new(link.clone(), INVENTORY);
    for _ in 0..TRIES {
        let newest = newest_snapshot(link).await?;
        let mut files = copy(link, SNAPSHOTS, folder, check, recipients).await?;
        files.extend(copy(link, INVENTORY, folder, check, recipients).await?);
        // Read after both: whatever is there now is in the copy.
        let range = ledger.range(deadline()).await?;
        if range.first <= newest + 1 {
            return Ok(files);
        }
        cli::note!("the ledger was purged past the snapshots that were copied; both are copied again");
    }
    bail!("snapshots are made faster than they can be copied: see GW_SNAPSHOT_EVERY of the workers")
}

/// The ledger's sequence in the newest snapshot; 0 for none.
async fn newest_snapshot(link: &Link) -> anyhow::Result<u64> {
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
    link: &Link,
    stream: &'static str,
    folder: &Path,
    check: bool,
    recipients: &Recipients,
) -> anyhow::Result<Vec<PathBuf>> {
    let began = Instant::now();
    let saved = backup::save(link, stream, &folder.join(stream), check, recipients).await;
    let saved = saved.with_context(|| format!("cannot copy {stream}"))?;
    say(stream, "copied", saved.state, &format!("{} bytes in {:.1?}", saved.bytes, began.elapsed()));
    Ok(saved.files.iter().map(|file| Path::new(stream).join(file)).collect())
}

/// Writes the digests, and with them that the backup is whole.
fn sum_up(folder: &Path, files: Vec<PathBuf>) -> anyhow::Result<()> {
    let mut sums = String::new();
    for file in files {
        let digest = backup::digest(&folder.join(&file))?;
        sums += &format!("{digest}  {}\n", file.display());
    }
    Ok(cli::file::replace(&folder.join(SUMS), |out| out.write_all(sums.as_bytes()))?)
}

/// Makes all streams from a folder, if there are none. Returns what makes them less durable than they could be.
pub async fn load(link: &Link, folder: &Path, replicas: Option<usize>) -> anyhow::Result<Vec<String>> {
    unseal(link, folder, replicas, &Identities::default()).await
}

/// The same, of what is encrypted for these.
async fn unseal(
    link: &Link,
    folder: &Path,
    replicas: Option<usize>,
    identities: &Identities,
) -> anyhow::Result<Vec<String>> {
    ensure!(folder != Path::new("-"), "a backup is a folder, and cannot be standard input");
    for stream in ORDER {
        backup::saved(&folder.join(stream)).with_context(|| format!("{stream} is not in the backup"))?;
    }
    verify(folder)?;
    // All of it is read once before anything is made.
    for stream in ORDER {
        let sealed = backup::try_out(&folder.join(stream), identities)?;
        ensure!(
            sealed || identities.none(),
            "{stream} is not encrypted, and --identity says that it has to be: it may be another backup"
        );
    }
    if let Some((there, remove)) = there(link).await? {
        bail!(
            "{there} exist, and nothing is overwritten: stop the gateways and workers, and if what is there is \
             really to go, as the role breakglass: `{remove}`"
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
                link::streams::rename(config);
            }
        });
        let state = match made.await {
            Ok(state) => state,
            Err(error) => {
                // The server keeps what it had of a stream when it broke off.
                let remove = match there(link).await {
                    Ok(Some((_, remove))) => {
                        format!("; before another try, as the role breakglass: `{remove}`")
                    }
                    Ok(None) | Err(_) => {
                        "; before another try, look at `nats stream ls`: as the role breakglass, `nats stream rm` \
                         removes what is left of it"
                            .to_owned()
                    }
                };
                return Err(anyhow::Error::new(error).context(format!("cannot restore {stream}{remove}")));
            }
        };
        // Nobody can have removed one of its entries while it was copied.
        let whole = stream != ORDERS || state.messages == backup::saved(&place)?.messages;
        ensure!(whole, "ORDERS has {} messages now, and the backup says more", state.messages);
        say(stream, "restored", state, &format!("in {:.1?}", began.elapsed()));
    }
    // As a gateway does at its start; nothing more is made.
    Ok(Streams::open(link, 1, false).await?.warnings)
}

/// The streams that exist, and the commands that remove them.
async fn there(link: &Link) -> anyhow::Result<Option<(String, String)>> {
    let (mut names, mut remove) = (Vec::new(), Vec::new());
    for stream in ORDER {
        if backup::exists(link, stream).await? {
            names.push(stream);
            remove.push(format!("nats stream rm {stream}"));
        }
    }
    Ok((!names.is_empty()).then(|| (names.join(", "), remove.join("; "))))
}

/// Compares every file with its digest.
fn verify(folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(SUMS);
    let Ok(text) = std::fs::read_to_string(&path) else {
        cli::note!("there is no {SUMS}: the files cannot be compared with what was copied");
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
        ensure!(found == sum, "{file} is damaged: its digest is not the one in {SUMS}");
    }
    cli::note!("every file has its digest");
    Ok(())
}

fn say(stream: &str, what: &str, state: State, more: &str) {
    let State { messages, first, last } = state;
    cli::note!("{stream}: {what}, {messages} messages, {first} to {last}, {more}");
}

fn deadline() -> tokio::time::Instant {
    tokio::time::Instant::now() + LIMIT
}
