//! The opaque place where the next page of a list begins.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ductile_model::parse_stored;

/// The creation time as stored and the id of the last row that was shown.
pub(crate) type Place = (String, String);

/// Tells a cursor of this form from others that may come later.
const FORM: &str = "1";

pub(crate) fn encode((created_at, id): &Place) -> String {
    URL_SAFE_NO_PAD.encode(format!("{FORM}\n{created_at}\n{id}"))
}

/// `None`: not a cursor.
pub(crate) fn decode(text: &str) -> Option<Place> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let rest = text.strip_prefix(FORM)?.strip_prefix('\n')?;
    let (created_at, id) = rest.split_once('\n')?;
    parse_stored(created_at)?;
    (!id.is_empty() && id.len() <= 256).then(|| (created_at.to_owned(), id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_anything_else_is_refused() {
        let place = ("2026-01-02 03:04:05.000000120Z".to_owned(), "019b7ca9-0000-7000-8000-000000000000".to_owned());
        let text = encode(&place);
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{text}");
        assert_eq!(decode(&text), Some(place));
        let other_form = URL_SAFE_NO_PAD.encode("2\n2026-01-02 03:04:05Z\nx");
        let no_time = URL_SAFE_NO_PAD.encode("1\nyesterday\nx");
        let no_id = URL_SAFE_NO_PAD.encode("1\n2026-01-02 03:04:05Z\n");
        for bad in ["", "x", "%%%", &text[1..], &other_form, &no_time, &no_id] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
