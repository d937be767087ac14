//! Lists of callers, one per line: some fields, and optionally a customer, whose name may contain spaces, or `*` for all.
//! Pure.

use std::str;

use anyhow::{Context, bail};
use bridge::Tenancy;
use wire::text::is_tenant;

use crate::reload::{Contents, Made, text};

/// A line of a list: its number, its first fields, and the rest of it as the customer.
pub(super) type Line<'a, const N: usize> = (usize, [&'a str; N], Tenancy);

/// Stands for all customers: in a list, and in the array of a token's claim.
pub(super) const ALL: &str = "*";

/// Reads a list line by line, without empty lines and comments (`#`). Invalid lines are ignored, and reported without
/// their contents, which may include a secret.
pub(super) fn read<T: Default, const N: usize>(
    contents: &[Contents],
    mut take: impl FnMut(&mut T, Line<'_, N>) -> anyhow::Result<()>,
) -> anyhow::Result<Made<T>> {
    let (mut list, mut good, mut faults) = (T::default(), 0, Vec::new());
    for (line, number) in text(contents)?.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).zip(1..) {
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        match words(line, number).and_then(|line| take(&mut list, line)) {
            Ok(()) => good += 1,
            Err(error) => faults.push(format!("line {number}: {error:#}")),
        }
    }
    Ok(Made::of_lines(list, good, faults))
}

/// The fields of a line.
fn words<const N: usize>(line: &[u8], number: usize) -> anyhow::Result<Line<'_, N>> {
    let mut rest = str::from_utf8(line).ok().context("it is not UTF-8")?;
    let mut words = [""; N];
    for word in &mut words {
        if rest.is_empty() {
            bail!("it has fewer than {N} fields");
        }
        let (first, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        (*word, rest) = (first, after.trim_start());
    }
    let customer = match rest {
        "" => Tenancy::Unnamed,
        ALL => Tenancy::All,
        text => Tenancy::One(is_tenant(text).then(|| text.into()).context("the customer is invalid")?),
    };
    Ok((number, words, customer))
}
