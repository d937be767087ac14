//! CSV files as input: columns by name, and bad lines with their numbers. Must not depend on what the columns mean.

use std::fmt;
use std::path::Path;

/// How many bad lines are printed; the rest are counted.
const PRINTED: usize = 100;

/// A file that cannot be used, and why.
#[derive(Debug)]
pub(crate) struct BadInput {
    file: String,
    lines: Vec<BadLine>,
}

/// A line that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// Its number in the file; the header is 1. 0 means the file itself.
    pub(crate) line: u64,
    /// What is wrong with it.
    pub(crate) what: String,
}

impl BadLine {
    pub(crate) fn new(line: u64, what: impl Into<String>) -> BadLine {
        BadLine { line, what: what.into() }
    }
}

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used; nothing was sent", self.file)?;
        for bad in self.lines.iter().take(PRINTED) {
            match bad.line {
                0 => write!(f, "\n  {}", bad.what)?,
                line => write!(f, "\n  line {line}: {}", bad.what)?,
            }
        }
        match self.lines.len().saturating_sub(PRINTED) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more bad lines"),
        }
    }
}

impl std::error::Error for BadInput {}

/// Reads a file, or standard input if it is `-`, with `read`. Errors name the file.
pub(crate) fn file<T>(path: &Path, read: impl Fn(&[u8]) -> Result<T, Vec<BadLine>>) -> Result<T, BadInput> {
    cli::file::read(path)
        .map_err(|error| vec![BadLine::new(0, error.to_string())])
        .and_then(|text| read(&text))
        .map_err(|lines| BadInput { file: path.display().to_string(), lines })
}

/// Reads a CSV with a header, in which every line is a record. `each` gets the wanted columns of a line, and returns
/// what is wrong with it. All bad lines are returned together.
pub(crate) fn rows<const N: usize>(
    text: &[u8],
    columns: [&str; N],
    mut each: impl FnMut([&str; N]) -> Result<(), String>,
) -> Result<(), Vec<BadLine>> {
    let mut rows = cli::rows::rows(text).map_err(|why| vec![BadLine::new(0, why)])?;
    let (line, header) = rows.next().unwrap_or((1, Ok(Vec::new())));
    let header = header.map_err(|why| vec![BadLine::new(line, why)])?;
    let places = places(&header, columns)?;
    let mut bad = Vec::new();
    for (line, row) in rows {
        let judged = row.and_then(|row| each(fields(&row, header.len(), places)?));
        bad.extend(judged.err().map(|what| BadLine::new(line, what)));
    }
    if bad.is_empty() { Ok(()) } else { Err(bad) }
}

fn places<const N: usize>(header: &[String], columns: [&str; N]) -> Result<[usize; N], Vec<BadLine>> {
    let found = columns.map(|column| header.iter().position(|name| name.trim() == column));
    let missing: Vec<&str> =
        columns.iter().zip(&found).filter(|(_, place)| place.is_none()).map(|(column, _)| *column).collect();
    if missing.is_empty() {
        return Ok(found.map(Option::unwrap_or_default));
    }
    Err(vec![BadLine::new(1, format!("the header has no column {}", missing.join(", ")))])
}

fn fields<const N: usize>(row: &[String], width: usize, places: [usize; N]) -> Result<[&str; N], String> {
    if row.len() != width {
        return Err(format!("has {} columns, the header has {width}", row.len()));
    }
    Ok(places.map(|place| row.get(place).map_or("", String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, Vec<BadLine>> {
        let mut seen = Vec::new();
        rows(text.as_bytes(), ["b", "a"], |fields| {
            seen.push(fields.join("+"));
            Ok(())
        })?;
        Ok(seen)
    }

    #[test]
    fn columns_are_found_by_name_wherever_they_stand() {
        assert_eq!(read("a, b,c\n1,2,3\n\n4,5,6\n").unwrap(), ["2+1", "5+4"]);
    }

    #[test]
    fn every_line_of_another_width_is_named() {
        let bad = read("a,b,c\n1,2\n1,2,3\n1,2,3,4\n").unwrap_err();
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(bad[0].what, "has 2 columns, the header has 3");
    }

    #[test]
    fn a_stray_quote_costs_its_own_line_alone() {
        let bad = read("a,b\n\"1,2\n3,4\n5,\"6\n7,8\n").unwrap_err();
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn a_missing_column_is_a_fault_of_the_header() {
        assert_eq!(read("a,c\n1,2\n").unwrap_err(), [BadLine::new(1, "the header has no column b")]);
    }

    #[test]
    fn an_empty_file_has_no_columns() {
        assert_eq!(read("").unwrap_err()[0].line, 1);
    }

    #[test]
    fn a_line_that_is_not_utf8_is_named_and_the_rest_is_read() {
        let mut seen = 0;
        let bad = rows(b"a\n1\n\xff\n3\n", ["a"], |_| {
            seen += 1;
            Ok(())
        })
        .unwrap_err();
        assert_eq!((seen, bad.len(), bad[0].line), (2, 1, 3));
    }

    #[test]
    fn a_file_that_is_not_there_is_bad_input() {
        let error = file(Path::new("no/such/file.csv"), |_| Ok(())).unwrap_err();
        assert!(error.to_string().starts_with("no/such/file.csv cannot be used"), "{error}");
    }
}
