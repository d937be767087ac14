//! Messages whose records are in any sequence, by an index of them: last wins, and parts of a message are merged. Must not
//! read a record more than once for each message that directly contains it.
//!
//! A message may come in several parts, which are read as if they were one.

use std::collections::HashMap;

use super::Writer;
use crate::fault::{Fault, Outcome, data, deeper};
use crate::plan::{Card, Field, Message, Op};
use crate::record::{Range, Records};

/// A record of a known field. Its value is read again where it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    /// The index of the field in its table.
    field: u16,
    wire_type: u8,
    /// Where the value begins.
    at: u32,
}

impl<'a> Writer<'a> {
    pub(super) fn indexed(&mut self, message: u32, parts: &[Range], depth: u32) -> Outcome<()> {
        let plan = self.plan;
        let table = plan.message(message);
        let records = self.records_of(table, parts, depth)?;
        let start = self.out.len();
        let mut next = 0;
        for run in records.chunk_by(|one, other| one.field == other.field) {
            let index = usize::from(run[0].field);
            table.write_absent(&plan.texts, next, index, &mut self.out);
            next = index + 1;
            let field = &table.fields[index];
            field.key.write(&plan.texts, &mut self.out);
            self.run(field, run, depth).map_err(|fault| fault.under(table.name(index)))?;
        }
        table.write_absent(&plan.texts, next, table.fields.len(), &mut self.out);
        self.close(start, b'{', b'}');
        Ok(())
    }

    /// One field alone, or the one that is set. The others are read and checked.
    pub(super) fn indexed_alone(
        &mut self,
        message: u32,
        wanted: Option<usize>,
        parts: &[Range],
        depth: u32,
    ) -> Outcome<()> {
        let table = self.plan.message(message);
        let records = self.records_of(table, parts, depth)?;
        let mut is_found = false;
        let mut written = Vec::new();
        for run in records.chunk_by(|one, other| one.field == other.field) {
            let index = usize::from(run[0].field);
            let at = self.out.len();
            self.run(&table.fields[index], run, depth)
                .map_err(|fault| self.under_alone(message, index, fault))?;
            if wanted.is_none_or(|wanted| wanted == index) {
                is_found = true;
                written = self.out.split_off(at);
            }
            self.out.truncate(at);
        }
        self.out.append(&mut written);
        if !is_found {
            self.write_default(table, wanted);
        }
        Ok(())
    }

    /// The records of known fields, by field, and of each field in their sequence. Of a oneof those of the last member.
    fn records_of(&mut self, table: &Message, parts: &[Range], depth: u32) -> Outcome<Vec<Record>> {
        if u32::try_from(self.bytes.len()).is_err() {
            return data("has more than 4 GiB");
        }
        let mut found = Vec::new();
        // By oneof: the member that is set, and where its first record is since it is.
        let mut oneofs: HashMap<u16, (u16, u32)> = HashMap::new();
        for part in parts {
            let mut records = Records::new(self.bytes, *part);
            while !records.is_at_end() {
                self.step()?;
                let tag = records.tag()?;
                let Some(index) = table.find(tag >> 3) else {
                    records.skip(tag, depth)?;
                    continue;
                };
                let field = &table.fields[index];
                if tag != field.tag && !matches!(field.card, Card::Repeated { .. }) {
                    return Err(Fault::data("has another wire type").under(table.name(index)));
                }
                let record =
                    Record { field: index as u16, wire_type: (tag & 7) as u8, at: records.at as u32 };
                records.value(tag & 7)?;
                found.push(record);
                if let Card::Oneof(oneof) = field.card {
                    let set = oneofs.entry(oneof).or_insert((record.field, record.at));
                    if set.0 != record.field {
                        *set = (record.field, record.at);
                    }
                }
            }
        }
        if !oneofs.is_empty() {
            found.retain(|record| match table.fields[usize::from(record.field)].card {
                Card::Oneof(oneof) => {
                    oneofs.get(&oneof).is_some_and(|set| set.0 == record.field && set.1 <= record.at)
                }
                _ => true,
            });
        }
        found.sort_unstable_by_key(|record| (record.field, record.at));
        Ok(found)
    }

    /// The value of a field, of all its records.
    fn run(&mut self, field: &Field, run: &[Record], depth: u32) -> Outcome<()> {
        let whole = |record: &Record| Records::new(self.bytes, self.value_at(record));
        match field.card {
            Card::Repeated { .. } => {
                let start = self.out.len();
                let mut count = 0;
                for record in run {
                    let tag = field.number << 3 | u32::from(record.wire_type);
                    let mut records = Records::new(self.bytes, self.value_at(record));
                    self.elements(field, tag, &mut records, depth, &mut count)?;
                }
                self.close(start, b'[', b']');
                Ok(())
            }
            Card::Map { key } => self.indexed_map(field, key, run, depth),
            Card::Implicit | Card::Explicit | Card::Oneof(_) => {
                let wire_type = field.op.wire_type();
                if field.op.is_message() {
                    let parts = run.iter().map(|record| Ok(whole(record).value(2)?.range));
                    let parts = parts.collect::<Outcome<Vec<Range>>>()?;
                    return self.message(field.op, &parts, deeper(depth)?);
                }
                match run.last() {
                    Some(record) => {
                        let value = whole(record).value(wire_type.into())?;
                        self.value(field.op, value, depth)
                    }
                    None => data("has no record"),
                }
            }
        }
    }

    fn value_at(&self, record: &Record) -> Range {
        Range { from: record.at as usize, to: self.bytes.len() }
    }

    /// A map of which keys may be repeated: the last entry counts, at the place of the first.
    fn indexed_map(&mut self, field: &Field, key: Op, run: &[Record], depth: u32) -> Outcome<()> {
        let mut places = HashMap::new();
        let mut entries: Vec<Range> = Vec::new();
        for record in run {
            self.step()?;
            let entry = Records::new(self.bytes, self.value_at(record)).value(2)?.range;
            let found = self.entry(field, key, entry, depth, |_| {})?;
            let place = *places.entry(self.key(key, found)).or_insert(entries.len());
            match entries.get_mut(place) {
                Some(earlier) => *earlier = entry,
                None => entries.push(entry),
            }
        }
        let start = self.out.len();
        for entry in entries {
            self.step()?;
            let mut values = Vec::new();
            let found = self.entry(field, key, entry, depth, |value| values.push(value))?;
            self.write_key(key, found)?;
            let written = if field.op.is_message() {
                let parts: Vec<Range> = values.iter().map(|value| value.range).collect();
                deeper(depth).and_then(|depth| self.message(field.op, &parts, depth))
            } else {
                self.value(field.op, values.last().copied().unwrap_or_default(), depth)
            };
            written.map_err(|fault| self.under_entry(key, found, fault))?;
        }
        self.close(start, b'{', b'}');
        Ok(())
    }
}
