//! Which browser pages may read the answers.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    VARY,
};
use http::{HeaderMap, HeaderValue, Method};

/// What a list of allowed origins says about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cors {
    /// No `Origin`, or one that is not listed: no header at all.
    None,
    /// Everybody may read, without credentials of the browser.
    Anybody,
    /// This origin may.
    Origin(HeaderValue),
}

impl Cors {
    pub(crate) fn of(origin: Option<&HeaderValue>, allowed: &[String]) -> Self {
        let Some(origin) = origin else { return Self::None };
        if allowed.iter().any(|entry| entry == "*") {
            Self::Anybody
        } else if allowed.iter().any(|entry| entry.as_bytes() == origin.as_bytes()) {
            Self::Origin(origin.clone())
        } else {
            Self::None
        }
    }

    /// Whether the request only asks whether another one would be allowed, and would be.
    pub(crate) fn answers_preflight(&self, method: &Method, headers: &HeaderMap) -> bool {
        *self != Self::None && method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Headers of every answer.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        match self {
            Self::None => {}
            Self::Anybody => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
                expose(headers);
            }
            Self::Origin(origin) => {
                headers.insert(VARY, HeaderValue::from_static("Origin"));
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                expose(headers);
            }
        }
    }

    /// Headers of the answer to a preflight, beside those of every answer.
    pub(crate) fn mark_preflight(headers: &mut HeaderMap) {
        let allowed = "Accept, Authorization, Content-Type, X-CSRF-Token, Idempotency-Key, Last-Event-ID, X-Request-Id";
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("300"));
    }
}

fn expose(headers: &mut HeaderMap) {
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Link, X-Request-Id, Retry-After, Idempotency-Replayed"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(origin: Option<&'static str>, allowed: &[&str]) -> HeaderMap {
        let allowed: Vec<String> = allowed.iter().map(|&text| text.to_owned()).collect();
        let mut headers = HeaderMap::new();
        Cors::of(origin.map(HeaderValue::from_static).as_ref(), &allowed).mark(&mut headers);
        headers
    }

    #[test]
    fn without_an_origin_or_with_one_that_is_not_listed_there_is_no_header() {
        assert!(marked(None, &["*"]).is_empty());
        assert!(marked(Some("https://evil.example"), &["https://good.example"]).is_empty());
        assert!(marked(Some("https://good.example.evil"), &["https://good.example"]).is_empty());
    }

    #[test]
    fn a_listed_origin_may_send_credentials_and_a_star_never_does() {
        let listed = marked(Some("https://good.example"), &["https://good.example"]);
        assert_eq!(listed["access-control-allow-origin"], "https://good.example");
        assert_eq!(listed["access-control-allow-credentials"], "true");
        assert_eq!(listed["vary"], "Origin");
        let star = marked(Some("https://good.example"), &["https://good.example", "*"]);
        assert_eq!(star["access-control-allow-origin"], "*");
        assert!(!star.contains_key("access-control-allow-credentials"));
    }
}
