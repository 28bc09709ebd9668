//! Environment files: `KEY=VALUE` lines.

use super::interpolate::is_name;
use crate::yaml::Fault;

/// The assignments of a file in order. Messages never show a value.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<(String, String)>, Vec<Fault>> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(vec![Fault { line: 1, message: "the file is not valid UTF-8".to_owned() }]);
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        match assignment(line) {
            Ok(Some(pair)) => found.push(pair),
            Ok(None) => {}
            Err(message) => faults.push(Fault { line: index + 1, message: message.to_owned() }),
        }
    }
    if faults.is_empty() { Ok(found) } else { Err(faults) }
}

fn assignment(line: &str) -> Result<Option<(String, String)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (key, value) = line.split_once('=').ok_or("the line is not KEY=VALUE")?;
    let key = key.trim();
    if !is_name(key) {
        return Err("the part before = is not a variable name (letters, digits and _, not beginning with a digit)");
    }
    Ok(Some((key.to_owned(), unquote(value.trim()).to_owned())))
}

/// Removes one pair of quotes.
fn unquote(value: &str) -> &str {
    ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_documented() {
        let text = b"# c\n\n A = 1 \nexport B=\"x y\"\nC='it''s'\nD=a=b\nE=\nF=\"\nG=\"a'\n";
        let pairs = parse(text).unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            pairs,
            [("A", "1"), ("B", "x y"), ("C", "it''s"), ("D", "a=b"), ("E", ""), ("F", "\""), ("G", "\"a'")]
        );
    }

    #[test]
    fn bad_lines_are_named_by_number_and_never_shown() {
        let faults = parse(b"A=1\nhunter2\n1x=hunter2\n").unwrap_err();
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [2, 3]);
        assert!(faults.iter().all(|fault| !fault.message.contains("hunter2")));
    }
}
