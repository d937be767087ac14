//! CSV in which every line is a record: an unclosed quote invalidates its own line, and never the following ones. Lines
//! end with LF or CR LF, or all with CR. Must not depend on the meaning of the columns.

/// The maximum length of a line in bytes; a product and a count have less than a hundred.
const LONGEST: usize = 64 * 1_024;
/// Maximum characters shown of an invalid value.
const SHOWN: usize = 80;

/// A line's number (from 1), and its fields or its fault.
pub type Row = (u64, Result<Vec<String>, String>);

/// The lines of a file, without blank ones.
///
/// # Errors
/// The text is UTF-16.
pub fn rows(text: &[u8]) -> Result<impl Iterator<Item = Row>, String> {
    if [b"\xff\xfe".as_slice(), b"\xfe\xff"].iter().any(|mark| text.starts_with(mark)) {
        return Err("it is UTF-16, but must be UTF-8".to_owned());
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let end = if text.contains(&b'\n') { b'\n' } else { b'\r' };
    let lines = text.split(move |byte| *byte == end).map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines = (1..).zip(lines).filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace));
    Ok(lines.map(|(number, line)| (number, fields(line))))
}

/// A value, quoted and shortened for display.
pub fn shown(value: &str) -> String {
    let mut shown = format!("{:?}", value.chars().take(SHOWN).collect::<String>());
    if value.chars().nth(SHOWN).is_some() {
        shown += "…";
    }
    shown
}

fn fields(line: &[u8]) -> Result<Vec<String>, String> {
    if line.len() > LONGEST {
        return Err(format!("has {} bytes, more than a line may have", line.len()));
    }
    let mut rest = std::str::from_utf8(line).map_err(|error| format!("is not UTF-8: {error}"))?;
    let mut fields = Vec::new();
    loop {
        let (field, after) = field(rest)?;
        fields.push(field);
        let Some(after) = after else { return Ok(fields) };
        rest = after;
    }
}

/// The first field, and the rest after its comma.
fn field(text: &str) -> Result<(String, Option<&str>), String> {
    const STRAY: &str = "has a stray quote";
    let Some(mut rest) = text.trim_start().strip_prefix('"') else {
        let (field, after) = text.split_once(',').map_or((text, None), |(field, after)| (field, Some(after)));
        return if field.contains('"') { Err(STRAY.to_owned()) } else { Ok((field.to_owned(), after)) };
    };
    let mut value = String::new();
    loop {
        let (part, after) = rest.split_once('"').ok_or("has a quote that is not closed")?;
        value += part;
        if let Some(after) = after.strip_prefix('"') {
            value.push('"');
            rest = after;
            continue;
        }
        let after = after.trim_start();
        return match after.strip_prefix(',') {
            Some(after) => Ok((value, Some(after))),
            None if after.is_empty() => Ok((value, None)),
            None => Err(STRAY.to_owned()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<(u64, String)> {
        let say = |fields: Vec<String>| fields.join("|");
        rows(text).unwrap().map(|(line, row)| (line, row.map_or_else(|why| why, say))).collect()
    }

    fn is(text: &str, expected: &[(u64, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(line, text)| (*line, (*text).to_owned())).collect();
        assert_eq!(read(text.as_bytes()), expected, "{text:?}");
    }

    #[test]
    fn a_stray_quote_costs_its_own_line_and_no_other() {
        is("a,1\n\"b,2\nc,3\n", &[(1, "a|1"), (2, "has a quote that is not closed"), (3, "c|3")]);
        is(
            "b\",2\nc,\"3\nd,4",
            &[(1, "has a stray quote"), (2, "has a quote that is not closed"), (3, "d|4")],
        );
        is("\"a\"b,1\nc,3\n", &[(1, "has a stray quote"), (2, "c|3")]);
    }

    #[test]
    fn quotes_that_are_closed_hold_commas_and_quotes() {
        is("\"a,b\" , \"say \"\"x\"\"\"\n", &[(1, "a,b|say \"x\"")]);
        is("\"\",\n", &[(1, "|")]);
    }

    #[test]
    fn lines_end_as_on_any_system_and_keep_their_numbers() {
        is("\u{feff}a,1\r\n\r\nb,2", &[(1, "a|1"), (3, "b|2")]);
        is("a,1\rb,2\r", &[(1, "a|1"), (2, "b|2")]);
        // If lines end with LF, a CR is an ordinary character.
        is("a,1\nb\r,2\nc,3\n", &[(1, "a|1"), (2, "b\r|2"), (3, "c|3")]);
    }

    #[test]
    fn what_is_no_text_costs_its_own_line() {
        let read = read(b"a,1\n\xff,2\nb\0,3\n");
        assert!(read[1].1.contains("UTF-8") && read[2] == (3, "b\0|3".to_owned()), "{read:?}");
        assert!(rows(b"\xff\xfea\0").is_err());
    }

    #[test]
    fn a_line_that_is_too_long_costs_itself_and_is_not_shown_whole() {
        let long = "x".repeat(LONGEST + 1);
        let read = read(format!("a,1\n{long}\nb,2\n").as_bytes());
        assert!(read.len() == 3 && read[1].1.contains("more than a line may have"), "{}", read[1].1);
        assert!(shown(&long).len() < 100);
    }
}
