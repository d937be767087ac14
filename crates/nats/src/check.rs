//! Checks an existing stream against its wanted configuration: differences that break correctness are refused with the
//! field's name; those that only reduce durability are warnings. Must not depend on how streams are found or created.

use async_nats::jetstream::stream::{Config, PersistenceMode};

use crate::spec::{IDENTITY, StreamMismatch};

/// With this many replicas the data survives the loss of a node, and writes go on.
const REPLICAS: usize = 3;

/// Compares what correctness needs. Replicas, the server's size limits and descriptions are up to the operator.
pub(crate) fn check(needed: &Config, found: &Config) -> Result<(), StreamMismatch> {
    let same = |(_, show): &Field| show(found) == show(needed);
    match NEEDED.iter().find(|field| !same(field)) {
        Some((field, show)) => Err(StreamMismatch::Differs {
            stream: needed.name.clone(),
            field,
            found: show(found),
            needed: show(needed),
        }),
        None if found.metadata.get(IDENTITY).is_none_or(String::is_empty) => Err(StreamMismatch::Differs {
            stream: needed.name.clone(),
            field: "metadata",
            found: format!("no {IDENTITY}"),
            needed: format!("{IDENTITY} with a unique value, by which tokens identify the stream"),
        }),
        None => Ok(()),
    }
}

/// What makes acknowledged writes less durable than they could be, and the remedy: it never lowers the number of
/// replicas. `wanted` is the replica count for new streams; none if nobody creates any.
pub(crate) fn warnings(found: &[Config], wanted: Option<usize>) -> Vec<String> {
    let names = |wrong: &dyn Fn(usize) -> bool| {
        let wrong = found.iter().filter(|config| wrong(config.num_replicas));
        wrong.map(|config| config.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let few = names(&|replicas| replicas < REPLICAS);
    let fewer = names(&|replicas| wanted.is_some_and(|wanted| replicas < wanted));
    let more = names(&|replicas| wanted.is_some_and(|wanted| replicas > wanted));
    let wanted = wanted.unwrap_or(usize::MAX);
    let mut warnings = Vec::new();
    if !few.is_empty() {
        warnings.push(format!(
            "fewer than {REPLICAS} replicas: the loss of a node may lose acknowledged writes, or stop all writes \
             until the node is back ({few}); on a cluster, as the role \
             provisioner: `nats stream edit NAME --replicas {REPLICAS} -f`"
        ));
    }
    if !fewer.is_empty() {
        warnings.push(format!(
            "GW_STREAM_REPLICAS is {wanted}, but existing streams have fewer and keep them ({fewer}); as the role \
             provisioner: `nats stream edit NAME --replicas {wanted} -f`"
        ));
    }
    if let Some(most) = found.iter().map(|config| config.num_replicas).max().filter(|most| *most > wanted) {
        warnings.push(format!(
            "GW_STREAM_REPLICAS is {wanted}, but existing streams have more and keep them ({more}): set \
             GW_STREAM_REPLICAS={most}, so that a stream that is created again has as many"
        ));
    }
    warnings
}

/// A field's name, and how its value is shown.
type Field = (&'static str, fn(&Config) -> String);

/// The fields that correctness needs, by their names on the server.
const NEEDED: &[Field] = &[
    ("subjects", |config| {
        let mut subjects = config.subjects.clone();
        subjects.sort_unstable();
        subjects.join(" ")
    }),
    ("retention", |config| format!("{:?}", config.retention)),
    ("discard", |config| format!("{:?}", config.discard)),
    ("storage", |config| format!("{:?}", config.storage)),
    // Async acknowledges before it writes: no server can keep such a promise.
    ("persist_mode", |config| format!("{:?}", config.persist_mode.unwrap_or(PersistenceMode::Default))),
    ("max_age", |config| format!("{:?}", config.max_age)),
    ("max_msgs", |config| limit(config.max_messages)),
    ("max_msgs_per_subject", |config| limit(config.max_messages_per_subject)),
    ("no_ack", |config| config.no_ack.to_string()),
    ("sealed", |config| config.sealed.to_string()),
    ("deny_delete", |config| config.deny_delete.to_string()),
    ("deny_purge", |config| config.deny_purge.to_string()),
    ("allow_direct", |config| config.allow_direct.to_string()),
    ("mirror_direct", |config| config.mirror_direct.to_string()),
    ("allow_rollup_hdrs", |config| config.allow_rollup.to_string()),
    ("republish", |config| {
        let to = config.republish.as_ref();
        to.map(|to| format!("{} to {}, headers only: {}", to.source, to.destination, to.headers_only))
            .unwrap_or_default()
    }),
    ("mirror", |config| config.mirror.as_ref().map(|mirror| mirror.name.clone()).unwrap_or_default()),
    ("sources", |config| config.sources.as_ref().map_or(0, Vec::len).to_string()),
    ("subject_transform", |config| config.subject_transform.is_some().to_string()),
    ("allow_msg_ttl", |config| config.allow_message_ttl.to_string()),
    ("allow_msg_counter", |config| config.allow_message_counter.to_string()),
];

/// The server writes "no limit" as -1, the library writes it as 0.
fn limit(messages: i64) -> String {
    if messages <= 0 { "no limit".to_owned() } else { messages.to_string() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_nats::jetstream::stream::{
        DiscardPolicy, RetentionPolicy, Source, StorageType, SubjectTransform,
    };

    use super::*;
    use crate::spec::samples;

    type Change = fn(&mut Config);

    /// One way to break each needed field.
    const BROKEN: &[(&str, Change)] = &[
        ("subjects", |config| config.subjects.push("more".to_owned())),
        ("retention", |config| config.retention = RetentionPolicy::WorkQueue),
        ("discard", |config| config.discard = DiscardPolicy::Old),
        ("storage", |config| config.storage = StorageType::Memory),
        ("persist_mode", |config| config.persist_mode = Some(PersistenceMode::Async)),
        ("max_age", |config| config.max_age = Duration::from_secs(1)),
        ("max_msgs", |config| config.max_messages = 1),
        ("max_msgs_per_subject", |config| config.max_messages_per_subject = 1),
        ("no_ack", |config| config.no_ack = true),
        ("sealed", |config| config.sealed = true),
        ("deny_delete", |config| config.deny_delete ^= true),
        ("deny_purge", |config| config.deny_purge ^= true),
        ("allow_direct", |config| config.allow_direct = true),
        ("mirror_direct", |config| config.mirror_direct = true),
        ("allow_rollup_hdrs", |config| config.allow_rollup ^= true),
        ("republish", |config| {
            config.republish = match config.republish.take() {
                Some(_) => None,
                None => samples(1)[0].republish.clone(),
            }
        }),
        ("mirror", |config| config.mirror = Some(Source { name: "other".to_owned(), ..Source::default() })),
        ("sources", |config| config.sources = Some(vec![Source::default()])),
        ("subject_transform", |config| {
            config.subject_transform =
                Some(SubjectTransform { source: "a".to_owned(), destination: "b".to_owned() })
        }),
        ("allow_msg_ttl", |config| config.allow_message_ttl = true),
        ("allow_msg_counter", |config| config.allow_message_counter = true),
        ("metadata", |config| config.metadata.clear()),
    ];

    #[test]
    fn whatever_correctness_needs_is_refused_by_its_name_when_it_differs() {
        let needed: Vec<_> = NEEDED.iter().map(|(name, _)| *name).chain(["metadata"]).collect();
        assert_eq!(BROKEN.iter().map(|(name, _)| *name).collect::<Vec<_>>(), needed);
        for config in samples(3) {
            assert!(check(&config, &config).is_ok());
            for (name, change) in BROKEN {
                let mut found = config.clone();
                change(&mut found);
                let refused = check(&config, &found);
                assert!(
                    matches!(&refused, Err(StreamMismatch::Differs { field, .. }) if field == name),
                    "{refused:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_the_operators_is_not_refused() {
        let [needed, ..] = samples(3);
        let mut found =
            Config { num_replicas: 1, max_bytes: 1 << 30, max_message_size: 1 << 20, ..needed.clone() };
        (found.max_messages, found.max_messages_per_subject) = (-1, -1);
        found.description = None;
        assert!(check(&needed, &found).is_ok());
    }

    #[test]
    fn no_hint_takes_replicas_from_a_stream() {
        for (wanted, one, others) in (0..125).map(|n| (n % 5 + 1, n / 5 % 5 + 1, n / 25 + 1)) {
            let mut found = samples(others);
            found[1].num_replicas = one;
            for warning in warnings(&found, Some(wanted)) {
                let hinted = warning.split_once("--replicas ").map(|(_, rest)| rest.trim_end_matches(" -f`"));
                let Some(hinted) = hinted.map(|number| number.parse::<usize>().unwrap()) else { continue };
                let named = found.iter().filter(|config| warning.contains(&config.name));
                assert!(named.clone().count() > 0, "{warning}");
                assert!(named.clone().all(|config| config.num_replicas < hinted), "{warning}");
            }
        }
    }

    #[test]
    fn few_replicas_and_another_number_than_wanted_are_said() {
        assert_eq!(warnings(&samples(3), Some(3)), Vec::<String>::new());
        let one = warnings(&samples(1), Some(1));
        assert!(one.len() == 1 && one[0].contains("ONE, TWO"), "{one:?}");
        assert_eq!(warnings(&samples(1), Some(3)).len(), 2);
        let mut mixed = samples(3);
        mixed[1].num_replicas = 1;
        let mixed = warnings(&mixed, Some(3));
        assert!(mixed.len() == 2 && mixed.iter().all(|text| text.contains("(TWO)")), "{mixed:?}");
    }
}
