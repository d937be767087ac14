//! Compares two catalogs: what clients of the first, or the services behind it, would notice of the second. Must not decide
//! whether that is allowed.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost_reflect::{
    Cardinality, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};

use crate::access::{Requirement, Rule};
use crate::finding::{Finding, line};
use crate::rpc::path;
use crate::snapshot::Catalog;

/// What to do about a break.
const UNDO: &str = "undo it, or add a new one beside it";

impl Catalog {
    /// What in `next` breaks clients of this catalog, or what its services agreed on: rpcs, streams, fields and enum
    /// values that are gone or mean something else, on the wire or in JSON; routes that reach another service, or reach it
    /// in another way; access rules that let fewer callers in, that tell the services less, or that keep tenants apart in another way. What is new breaks nothing.
    pub fn breaking(&self, next: &Catalog) -> Vec<Finding> {
        let mut comparison = Comparison { next, findings: Vec::new(), seen: BTreeSet::new() };
        for service in &self.services {
            if next.service(&service.name).is_none() {
                let problem = "the service was removed";
                comparison.findings.push(Finding::of_set(&service.name, problem, UNDO));
                continue;
            }
            for rpc in &service.rpcs {
                match (self.method(&rpc.path), next.method(&rpc.path)) {
                    (Some(before), Some(after)) => comparison.method(self, &before, &after),
                    (_, None) => {
                        comparison.findings.push(Finding::of_set(rpc.name(), "the rpc was removed", UNDO));
                    }
                    (None, Some(_)) => {}
                }
            }
        }
        comparison.findings
    }
}

struct Comparison<'a> {
    next: &'a Catalog,
    findings: Vec<Finding>,
    /// The types that were compared.
    seen: BTreeSet<(String, String)>,
}

impl Comparison<'_> {
    fn method(&mut self, catalog: &Catalog, before: &MethodDescriptor, after: &MethodDescriptor) {
        let streams =
            |method: &MethodDescriptor| (method.is_client_streaming(), method.is_server_streaming());
        let mut changes: Vec<String> = Vec::new();
        if streams(before) != streams(after) {
            changes.push("it streams in another way".to_owned());
        }
        for (what, before, after) in
            [("request", before.input(), after.input()), ("reply", before.output(), after.output())]
        {
            // Another name alone changes nothing on the wire.
            if before.full_name() != after.full_name()
                && before.fields().len() > 0
                && after.fields().len() == 0
            {
                changes.push(format!(
                    "its {what} is {} instead of {}",
                    after.full_name(),
                    before.full_name()
                ));
            }
        }
        changes.extend(access(catalog, self.next, before));
        changes.extend(routes(catalog, self.next, before));
        for change in changes {
            self.findings.push(Finding::of(after, change, UNDO));
        }
        self.message(&before.input(), &after.input());
        self.message(&before.output(), &after.output());
    }

    fn message(&mut self, before: &MessageDescriptor, after: &MessageDescriptor) {
        let pair = (before.full_name().to_owned(), after.full_name().to_owned());
        if !self.seen.insert(pair) {
            return;
        }
        for field in before.fields() {
            let Some(same) = after.get_field(field.number()) else {
                self.gone(&field, after);
                continue;
            };
            for change in changes(&field, &same) {
                let name = format!("{}.{}", after.full_name(), same.name());
                self.add(&after.parent_file(), same.path(), &name, change);
            }
            match (field.kind(), same.kind()) {
                (Kind::Message(before), Kind::Message(after)) => self.message(&before, &after),
                (Kind::Enum(before), Kind::Enum(after)) => self.values(&before, &after),
                _ => {}
            }
        }
    }

    fn gone(&mut self, field: &FieldDescriptor, after: &MessageDescriptor) {
        let (number, name) = (field.number(), field.name());
        let reserved = after.reserved_ranges().any(|range| range.contains(&number))
            && after.reserved_names().any(|reserved| reserved == name);
        if !reserved {
            let change = format!(
                "the field {name:?} was removed, and its number {number} and its name are not reserved"
            );
            self.add(&after.parent_file(), after.path(), after.full_name(), change);
        }
    }

    fn values(&mut self, before: &EnumDescriptor, after: &EnumDescriptor) {
        if !self.seen.insert((before.full_name().to_owned(), after.full_name().to_owned())) {
            return;
        }
        for value in before.values() {
            let (number, name) = (value.number(), value.name());
            // In JSON its name counts, and on the wire its number.
            let same = after.values().any(|value| (value.number(), value.name()) == (number, name));
            let reserved = after.reserved_ranges().any(|range| range.contains(&number))
                && after.reserved_names().any(|reserved| reserved == name);
            if !same && !reserved {
                let change = format!("the value {name} = {number} was removed, renamed or renumbered");
                self.add(&after.parent_file(), after.path(), after.full_name(), change);
            }
        }
    }

    fn add(&mut self, file: &FileDescriptor, path: &[i32], element: &str, change: String) {
        let found = Finding::at(file.name(), element, change, UNDO);
        self.findings.push(Finding { line: line(file, path), ..found });
    }
}

/// What is different about a field that still has its number.
fn changes(before: &FieldDescriptor, after: &FieldDescriptor) -> Vec<String> {
    let mut changes = Vec::new();
    let number = before.number();
    if before.name() != after.name() {
        changes.push(format!("field {number} was {:?}: a name is part of paths and bodies", before.name()));
    }
    if before.json_name() != after.json_name() {
        changes.push(format!("its name in JSON was {:?}", before.json_name()));
    }
    let (was, is) = (type_of(before), type_of(after));
    if was != is {
        changes.push(format!("its type was {was}"));
    }
    let repeated = |field: &FieldDescriptor| field.cardinality() == Cardinality::Repeated;
    if repeated(before) != repeated(after) {
        changes.push(format!("it was {}", if repeated(before) { "repeated" } else { "not repeated" }));
    }
    let optional = |field: &FieldDescriptor| !repeated(field) && field.supports_presence();
    if optional(before) != optional(after) {
        changes.push(format!("it {} be unset", if optional(before) { "could" } else { "could not" }));
    }
    let required = |field: &FieldDescriptor| field.cardinality() == Cardinality::Required;
    if !required(before) && required(after) {
        changes.push("it was not required".to_owned());
    }
    let oneof = |field: &FieldDescriptor| {
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic())?;
        Some(oneof.name().to_owned())
    };
    if oneof(before) != oneof(after) {
        changes.push(match oneof(before) {
            Some(name) => format!("it was part of the oneof {name:?}"),
            None => "it was not part of a oneof".to_owned(),
        });
    }
    changes
}

/// A type as it is written; of messages and enums that have another name, the shape is compared on its own.
fn type_of(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(message) if message.is_map_entry() => {
            let part = |number| message.get_field(number).map(|field| type_of(&field)).unwrap_or_default();
            format!("map<{}, {}>", part(1), part(2))
        }
        // JSON writes these in their own way.
        Kind::Message(message) if message.full_name().starts_with("google.protobuf.") => {
            message.full_name().to_owned()
        }
        Kind::Message(_) if field.is_group() => "group".to_owned(),
        Kind::Message(_) => "message".to_owned(),
        Kind::Enum(_) => "enum".to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

/// What is different about the access rule of an rpc.
fn access(before: &Catalog, after: &Catalog, method: &MethodDescriptor) -> Vec<String> {
    let path = path(method);
    let (before, after) = (before.rule(&path), after.rule(&path));
    let required = match (before.map(|rule| &rule.requirement), after.map(|rule| &rule.requirement)) {
        (before, after) if before == after => None,
        (None, Some(Requirement::Public)) => None,
        (Some(before), Some(after)) => Some(format!("its access was {before}, and is {after}")),
        (Some(before), None) => Some(format!("its access rule ({before}) was removed")),
        (None, Some(after)) => Some(format!("it had no access rule, and has one ({after})")),
        (None, None) => None,
    };
    let field = |rule: Option<&Arc<Rule>>| rule.and_then(|rule| rule.tenant_field.clone());
    let tenant = match (field(before), field(after)) {
        (None, None) => None,
        (Some(before), Some(after)) if before == after => None,
        (None, Some(after)) => Some(format!("its field {after:?} has to be the caller's tenant")),
        // Tenants would read and send for each other.
        (Some(before), None) => Some(format!("its field {before:?} no longer has to be the caller's tenant")),
        (Some(before), Some(after)) => {
            Some(format!("its field {before:?} had to be the caller's tenant, and now {after:?} has to be"))
        }
    };
    required.into_iter().chain(tenant).collect()
}

/// What is different about the route of an rpc.
fn routes(before: &Catalog, after: &Catalog, method: &MethodDescriptor) -> Vec<String> {
    let path = path(method);
    let (before, after) = match (before.route(&path), after.route(&path)) {
        (Some(before), Some(after)) => (before, after),
        (Some(_), None) => return vec!["its route was removed".to_owned()],
        (None, _) => return Vec::new(),
    };
    let envelope = |route: &crate::Route| format!("{:?}", route.envelope);
    [
        ("subject", before.subject.to_string(), after.subject.to_string()),
        ("queue group", before.queue_group.clone(), after.queue_group.clone()),
        ("encoding", format!("{:?}", before.encoding), format!("{:?}", after.encoding)),
        ("kind", before.kind.name().to_owned(), after.kind.name().to_owned()),
        ("settings of the kind", before.kind.settings(), after.kind.settings()),
        ("body", before.body.clone(), after.body.clone()),
        ("response_body", before.response_body.clone(), after.response_body.clone()),
        ("envelope", envelope(before), envelope(after)),
        ("metadata", before.metadata.to_string(), after.metadata.to_string()),
        ("internal", before.internal.to_string(), after.internal.to_string()),
    ]
    .into_iter()
    .filter(|(_, before, after)| before != after)
    .map(|(what, before, after)| format!("the {what} of its route was {before:?}, and is {after:?}"))
    .collect()
}
