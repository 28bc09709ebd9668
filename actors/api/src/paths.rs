//! Paths before they are matched: exact, decoded once, and which methods a known one takes.

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What stays as it is in a segment; everything else is written in one form, so that names can be compared.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// No route can have this path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoSuchPath;

/// Brings a path into the one form that routes are matched in.
pub(crate) fn normalise(uri: &mut Uri) -> Result<(), NoSuchPath> {
    let path = uri.path();
    // The matcher would take a trailing slash for the path without it.
    if path.len() > 1 && path.ends_with('/') {
        return Err(NoSuchPath);
    }
    if !path.contains('%') {
        return Ok(());
    }
    let mut canonical = String::with_capacity(path.len());
    for segment in path.split('/').skip(1) {
        let decoded = percent_decode_str(segment).decode_utf8().map_err(|_| NoSuchPath)?;
        if decoded.contains(['/', '\0']) {
            return Err(NoSuchPath);
        }
        canonical.push('/');
        canonical.extend(utf8_percent_encode(&decoded, PLAIN));
    }
    if let Some(query) = uri.query() {
        canonical.push('?');
        canonical.push_str(query);
    }
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(canonical).map_err(|_| NoSuchPath)?);
    *uri = Uri::from_parts(parts).map_err(|_| NoSuchPath)?;
    Ok(())
}

/// A parameter of a normalised path, as it was meant.
pub(crate) fn decode(parameter: String) -> String {
    if !parameter.contains('%') {
        return parameter;
    }
    match percent_decode_str(&parameter).decode_utf8() {
        Ok(Cow::Owned(text)) => text,
        Ok(Cow::Borrowed(text)) => text.to_owned(),
        Err(_) => parameter.clone(),
    }
}

/// Whether a path is answered without a credential and holds nothing worth hiding.
pub(crate) fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/healthz" | "/readyz")
}

/// Methods of a known path, for the `Allow` of an answer that refuses another one.
pub(crate) fn allowed_methods(path: &str) -> &'static str {
    if is_open(path) {
        return "GET, HEAD";
    }
    let mut segments = path.split('/').skip(1);
    match (segments.next(), segments.next(), segments.next()) {
        (Some("job"), Some(_), Some("cancel" | "retry")) | (Some("jobs"), Some("retry"), None) => "POST",
        (Some("plugin"), Some(_), Some(_))
        | (Some("plugins" | "system"), Some(_), _)
        | (Some("pipeline"), Some(_), None) => "POST",
        _ => "GET",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> Result<String, NoSuchPath> {
        let mut uri: Uri = text.parse().unwrap();
        normalise(&mut uri).map(|()| uri.to_string())
    }

    #[test]
    fn paths_are_exact_and_decoded_once() {
        assert_eq!(normal("/plugin/echo?x=%2F"), Ok("/plugin/echo?x=%2F".into()));
        assert_eq!(normal("/%70lugin/echo?x=1"), Ok("/plugin/echo?x=1".into()));
        assert_eq!(normal("/plugin/a%20b"), Ok("/plugin/a%20b".into()));
        assert_eq!(normal("/plugin/%2565cho"), Ok("/plugin/%2565cho".into()));
        for none in ["/plugin/a%2Fb", "/plugin/a%00b", "/plugin/%ff", "/healthz/", "//"] {
            assert_eq!(normal(none), Err(NoSuchPath), "{none}");
        }
    }

    #[test]
    fn parameters_come_out_as_they_were_meant() {
        assert_eq!(decode("echo".into()), "echo");
        assert_eq!(decode("a%20b%25".into()), "a b%");
    }
}
