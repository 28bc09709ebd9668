//! Answers that a door gives by itself, in the shape that every error of the gateway has.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};

use crate::{Body, Response};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A body that is there as a whole.
#[must_use]
pub fn full_body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// Whether a client may name its request so: 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
#[must_use]
pub fn valid_request_id(text: &[u8]) -> bool {
    (1..=64).contains(&text.len()) && text.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
}

/// The id a client gave its request, when it is one.
pub(crate) fn given_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(REQUEST_ID).filter(|value| valid_request_id(value.as_bytes())).cloned()
}

/// The service panicked.
pub(crate) fn panicked(request_id: Option<HeaderValue>) -> Response {
    error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "internal error", request_id)
}

/// No service came back in time.
pub(crate) fn no_service(request_id: Option<HeaderValue>) -> Response {
    let text = "the service is being restarted";
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text, request_id);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn error(status: StatusCode, code: &str, text: &str, request_id: Option<HeaderValue>) -> Response {
    let request_id = request_id.unwrap_or_else(|| {
        HeaderValue::from_maybe_shared(Bytes::from(ductile_model::new_id()))
            .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    });
    // Neither the texts nor a valid request id hold anything that JSON would escape.
    let id = request_id.to_str().unwrap_or_default();
    let json = format!("{{\"error\":\"{text}\",\"code\":\"{code}\",\"request_id\":\"{id}\"}}\n");
    let mut response = Response::new(full_body(json));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(REQUEST_ID, request_id);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_of_clients_are_short_and_plain() {
        for good in ["a", "019b7ca9-AB._x", &"x".repeat(64)] {
            assert!(valid_request_id(good.as_bytes()), "{good}");
        }
        for bad in ["", "a b", "\"", "ä", &"x".repeat(65)] {
            assert!(!valid_request_id(bad.as_bytes()), "{bad}");
        }
    }
}
