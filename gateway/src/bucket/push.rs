//! `gateway catalog push`: checks, compares, stores, points. Must not change anything before all of it is checked.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use catalog::Catalog;
use catalog_bucket::{Bucket, BucketError, Digest, NAMES, Pointer, SETS, Slot, Target};
use cli::Report;
use tokio::time::Instant;

use super::arguments::Push;
use crate::contracts;

/// Who has pushed it, where nothing says so.
const UNKNOWN: &str = "unknown";

pub(super) async fn run(push: Push) -> anyhow::Result<()> {
    let set = one_set(&push)?;
    let catalog = check(&set)?;
    let mut report = Report::new();
    catalog.warnings().iter().for_each(|warning| report.line(format_args!("warning: {warning}")));
    let done =
        push.place.with(async |bucket, deadline| swap(bucket, &push, &set, &catalog, deadline).await).await?;
    report.line(done);
    Ok(report.end()?)
}

/// The set of the proto files, or the one that is given.
fn one_set(push: &Push) -> anyhow::Result<Vec<u8>> {
    let mut sets = push.contracts.clone().options().sets()?;
    match (sets.pop(), sets.len()) {
        (Some(set), 0) => Ok(set),
        (None, _) => bail!("nothing is given to push: name proto files, or a descriptor set"),
        (Some(_), others) => bail!(
            "{} sets are given, and a name has one: push proto files together, and each descriptor set under a name of \
             its own",
            others + 1
        ),
    }
}

/// As `gateway routes check` does.
fn check(set: &[u8]) -> anyhow::Result<Arc<Catalog>> {
    let catalog = Catalog::builder(set).routed().build()?;
    contracts::avoids_own(&catalog)?;
    Ok(catalog)
}

/// Makes the set the active one of its name; what was done, as a text.
async fn swap(
    bucket: &Bucket,
    push: &Push,
    set: &[u8],
    catalog: &Arc<Catalog>,
    deadline: Instant,
) -> anyhow::Result<String> {
    let (name, digest) = (&push.name, Digest::of(set));
    let slot = bucket.slot(name, deadline).await?;
    if active(&slot) == Some(digest) && bucket.set(&digest, deadline).await.is_ok() {
        return Ok(format!("{name}: {digest} is active already"));
    }
    compare(bucket, push, &slot, catalog, deadline).await?;
    join(bucket, name, (catalog, set.len() as u64), deadline).await?;
    let (routes, services) = (catalog.routes().len(), catalog.services().len());
    let what = format!("{routes} routes of {services} services");
    if push.dry_run {
        return Ok(format!("{name}: {digest} would become active, {what}; nothing was changed"));
    }
    let digest = bucket.store(set, deadline).await?;
    let who = push.by.clone().or_else(|| push.place.nats.user.clone()).unwrap_or_else(|| UNKNOWN.to_owned());
    let pointer = Pointer { digest, who, size: set.len() as u64 };
    let revision = bucket.point(name, &pointer, slot.revision, deadline).await?;
    Ok(format!("{name}: {digest} is active as revision {revision}, {what}"))
}

/// The digest that a name points at.
fn active(slot: &Slot) -> Option<Digest> {
    match &slot.target {
        Some(Target::Set(pointer)) => Some(pointer.digest),
        _ => None,
    }
}

/// Refuses what breaks clients of what is active under the name.
async fn compare(
    bucket: &Bucket,
    push: &Push,
    slot: &Slot,
    catalog: &Catalog,
    deadline: Instant,
) -> anyhow::Result<()> {
    let Some(target) = slot.target.clone() else { return Ok(()) };
    if push.allow_breaking {
        return Ok(());
    }
    let before = match read(bucket, target, &push.name, deadline).await {
        Ok(before) => before,
        Err(error) => {
            let remedy =
                "what is active cannot be compared with it; --allow-breaking replaces it nevertheless";
            return Err(error.context(remedy));
        }
    };
    let breaks: Vec<_> = before.breaking(catalog).iter().map(ToString::to_string).collect();
    if !breaks.is_empty() {
        bail!(
            "{}\nit breaks clients of what is active, and nothing was changed; --allow-breaking pushes it nevertheless",
            breaks.join("\n")
        );
    }
    Ok(())
}

/// Refuses what a gateway could not serve beside the other contracts of the bucket.
async fn join(
    bucket: &Bucket,
    name: &str,
    (catalog, size): (&Arc<Catalog>, u64),
    deadline: Instant,
) -> anyhow::Result<()> {
    let (mut all, names, mut total) = (vec![catalog.clone()], bucket.names(deadline).await?, size);
    if names.len() >= NAMES && !names.iter().any(|known| known == name) {
        bail!("the bucket has {} names, and at most {NAMES} are read: use one of them", names.len());
    }
    for other in names.into_iter().filter(|other| other != name) {
        let Slot { target: Some(target), .. } = bucket.slot(&other, deadline).await? else { continue };
        if let Target::Set(pointer) = &target {
            total = total.saturating_add(pointer.size);
        }
        match read(bucket, target, &other, deadline).await {
            Ok(other) => all.push(other),
            // Not this push's fault.
            Err(error) => cli::note!("warning: {error:#}"),
        }
    }
    if total > SETS as u64 {
        bail!("with this set, the active ones have {total} bytes, and at most {} MiB are read", SETS >> 20);
    }
    Catalog::join(&all).map(drop).context("beside the other contracts of the bucket")
}

/// The catalog that a name points at.
async fn read(
    bucket: &Bucket,
    target: Target,
    name: &str,
    deadline: Instant,
) -> anyhow::Result<Arc<Catalog>> {
    let pointer = target.pointer(name)?;
    let set = match bucket.set(&pointer.digest, deadline).await {
        Err(error @ (BucketError::NoSet(_) | BucketError::Damaged { .. })) => {
            return Err(error).with_context(|| format!("active/{name}"));
        }
        set => set?,
    };
    Catalog::builder(&set).routed().build().with_context(|| format!("active/{name}"))
}
