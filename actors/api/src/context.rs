//! What is known about a request before it is matched.

use bytes::Bytes;
use ductile_config::ApiToken;
use ductile_listeners::{Peer, valid_request_id};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::error::ApiError;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What the credential of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential {
    /// No `Authorization` at all.
    Absent,
    /// Something else than `Bearer <token>`.
    Malformed,
    /// A token that is not configured.
    Unknown,
    /// The configured token at this place.
    Token(usize),
}

impl Credential {
    /// Looks at a request. The time it takes does not depend on which token matches, or whether one does.
    pub(crate) fn of(headers: &HeaderMap, tokens: &[ApiToken]) -> Self {
        let Some(header) = headers.get(AUTHORIZATION) else { return Self::Absent };
        let Some(presented) = header.as_bytes().strip_prefix(b"Bearer ") else { return Self::Malformed };
        let presented = presented.trim_ascii();
        if presented.is_empty() {
            return Self::Unknown;
        }
        let digest = blake3::hash(presented);
        let mut found = u64::MAX;
        for (index, token) in tokens.iter().enumerate() {
            // Of two entries with the same value the first counts.
            let hit = token.digest.ct_eq(digest.as_bytes()) & found.ct_eq(&u64::MAX);
            found.conditional_assign(&(index as u64), hit);
        }
        usize::try_from(found).ok().filter(|index| *index < tokens.len()).map_or(Self::Unknown, Self::Token)
    }
}

/// A request, without its body and path.
#[derive(Debug)]
pub(crate) struct Context {
    request_id: HeaderValue,
    pub(crate) peer: Peer,
    pub(crate) credential: Credential,
    uri: Uri,
    idempotency_key: Option<HeaderValue>,
    content_encoding: Option<HeaderValue>,
    content_length: Option<u64>,
}

impl Context {
    pub(crate) fn new(headers: &HeaderMap, uri: &Uri, peer: Peer, tokens: &[ApiToken]) -> Self {
        let given = headers.get(REQUEST_ID).filter(|value| valid_request_id(value.as_bytes()));
        Self {
            request_id: given.cloned().unwrap_or_else(new_request_id),
            peer,
            credential: Credential::of(headers, tokens),
            uri: uri.clone(),
            idempotency_key: headers.get(IDEMPOTENCY_KEY).cloned(),
            content_encoding: headers.get(CONTENT_ENCODING).cloned(),
            content_length: headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()),
        }
    }

    pub(crate) fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    pub(crate) fn request_id_header(&self) -> HeaderValue {
        self.request_id.clone()
    }

    /// The path as it came, for the log.
    pub(crate) fn path(&self) -> &str {
        self.uri.path()
    }

    pub(crate) fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    pub(crate) fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Whether the body comes as it is.
    pub(crate) fn is_plainly_encoded(&self) -> bool {
        self.content_encoding.as_ref().is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"))
    }

    /// The key that makes the request safe to repeat.
    pub(crate) fn idempotency_key(&self) -> Result<Option<&str>, ApiError> {
        let Some(value) = &self.idempotency_key else { return Ok(None) };
        let bytes = value.as_bytes();
        let text = value.to_str().ok().filter(|_| (1..=255).contains(&bytes.len()));
        match text.filter(|text| text.bytes().all(|b| b.is_ascii_graphic())) {
            Some(text) => Ok(Some(text)),
            None => {
                let rule = "Idempotency-Key must be 1 to 255 visible ASCII characters";
                Err(ApiError::parameter("Idempotency-Key", rule))
            }
        }
    }

    /// Whether the other end is this machine.
    pub(crate) fn is_local(&self) -> bool {
        self.peer.remote.ip().to_canonical().is_loopback()
    }
}

fn new_request_id() -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(ductile_model::new_id()))
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use ductile_config::Scopes;

    use super::*;

    fn token(value: &str) -> ApiToken {
        ApiToken {
            label: value.to_owned(),
            digest: *blake3::hash(value.as_bytes()).as_bytes(),
            scopes: Scopes::default(),
        }
    }

    fn credential(header: Option<&'static str>) -> Credential {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(header));
        }
        Credential::of(&headers, &[token("first"), token("second"), token("first")])
    }

    #[test]
    fn a_bearer_token_is_found_by_its_digest_and_the_first_entry_wins() {
        assert_eq!(credential(Some("Bearer first")), Credential::Token(0));
        assert_eq!(credential(Some("Bearer   second ")), Credential::Token(1));
    }

    #[test]
    fn nothing_else_is_a_credential() {
        assert_eq!(credential(None), Credential::Absent);
        for malformed in ["first", "bearer first", "Basic Zmlyc3Q=", "Bearer", "BEARER first"] {
            assert_eq!(credential(Some(malformed)), Credential::Malformed, "{malformed}");
        }
        for unknown in ["Bearer ", "Bearer    ", "Bearer firs", "Bearer firstx", "Bearer third"] {
            assert_eq!(credential(Some(unknown)), Credential::Unknown, "{unknown}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        assert_eq!(Credential::of(&headers, &[]), Credential::Unknown);
    }
}
