//! Lists of who may call: a line each, with some words and then perhaps a customer, who may have blanks in the name.
//! Pure.

use std::str;

use anyhow::{Context, bail};
use contract::limits::Reader;

use crate::reload::Contents;

/// A line of a list: its number, its first words, and the customer that the rest of it is.
pub(super) type Line<'a, const N: usize> = (usize, [&'a str; N], Option<Box<str>>);

/// The lines of a list that are neither empty nor remarks (`#`).
pub(super) fn lines<const N: usize>(
    contents: &[Contents],
) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Line<'_, N>>>> {
    let text = str::from_utf8(contents.first().map(|file| file.as_slice()).unwrap_or_default())?;
    let lines = text.lines().map(str::trim).zip(1..);
    Ok(lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#')).map(|(line, number)| {
        let mut rest = line;
        let mut words = [""; N];
        for word in &mut words {
            if rest.is_empty() {
                bail!("line {number} has fewer than {N} words");
            }
            let (first, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            (*word, rest) = (first, after.trim_start());
        }
        let customer = match rest {
            "" => None,
            text => {
                let customer = Reader::default().customer_id("customer", text);
                Some(customer.with_context(|| format!("line {number}: what follows is no customer"))?)
            }
        };
        Ok((number, words, customer))
    }))
}
