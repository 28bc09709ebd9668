//! From values and errors to responses.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};
use warp::reply::Response;

use crate::context::Context;
use crate::error::{ApiError, Headers};

pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// An answer that went well.
#[derive(Debug)]
pub(crate) struct Reply {
    status: StatusCode,
    json: Vec<u8>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Reply {
    /// 200 with a JSON value.
    pub(crate) fn ok(value: &impl Serialize) -> Result<Self, ApiError> {
        Self::with_status(StatusCode::OK, value)
    }

    pub(crate) fn with_status(status: StatusCode, value: &impl Serialize) -> Result<Self, ApiError> {
        // Room for a usual answer, so that the buffer does not grow step by step.
        let mut json = Vec::with_capacity(256);
        if let Err(error) = serde_json::to_writer(&mut json, value) {
            let mut failed = ApiError::internal("failed to write the answer");
            failed.cause = Some(Box::new(error));
            return Err(failed);
        }
        json.push(b'\n');
        Ok(Self { status, json, headers: Vec::new() })
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn into_response(self) -> Response {
        let mut response = json(self.status, self.json);
        response.headers_mut().extend(self.headers);
        response
    }
}

/// The response to what a handler came to.
pub(crate) fn respond(context: &Context, outcome: Result<Reply, ApiError>) -> Response {
    match outcome {
        Ok(reply) => reply.into_response(),
        Err(error) => refuse(context, error),
    }
}

/// The response to a refusal or failure. The cause goes to the log, under the request id.
pub(crate) fn refuse(context: &Context, error: ApiError) -> Response {
    if let Some(cause) = &error.cause {
        tracing::error!(
            request_id = context.request_id(),
            code = error.code,
            doing = %error.message,
            error = chain(&**cause),
            "a request failed"
        );
    }
    let mut object = Map::new();
    object.insert("error".to_owned(), Value::String(error.message.into_owned()));
    object.insert("code".to_owned(), Value::String(error.code.to_owned()));
    object.insert("request_id".to_owned(), Value::String(context.request_id().to_owned()));
    if let Some(value) = error.context {
        object.insert("context".to_owned(), *value);
    }
    if let Some(bytes) = error.bytes {
        if let Some(actual) = bytes.actual {
            object.insert("bytes_actual".to_owned(), actual.into());
        }
        object.insert("bytes_limit".to_owned(), bytes.limit.into());
    }
    let mut bytes = Value::Object(object).to_string().into_bytes();
    bytes.push(b'\n');
    let mut response = json(error.status, bytes);
    let headers = response.headers_mut();
    match error.headers {
        Headers::None => {}
        Headers::Authenticate => drop(headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
        Headers::RetryAfter(seconds) => drop(headers.insert(RETRY_AFTER, HeaderValue::from(seconds))),
        Headers::Allow(methods) => drop(headers.insert(ALLOW, HeaderValue::from_static(methods))),
        Headers::Close => drop(headers.insert(CONNECTION, HeaderValue::from_static("close"))),
    }
    response
}

fn json(status: StatusCode, bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Bytes::from(bytes).into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error with its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
