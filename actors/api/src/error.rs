//! Refusals and failures, in the one shape that they all have.

use std::borrow::Cow;
use std::error::Error;

use ductile_model::JobStatus;
use ductile_queue::{QueueError, RetrySkip};
use http::StatusCode;
use serde_json::{Value, json};

/// Why a request was not done. Rendered by `reply`.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    /// Stable word for programs.
    pub(crate) code: &'static str,
    /// Sentence for people. Of a 5xx answer it names nothing internal.
    pub(crate) message: Cow<'static, str>,
    /// Boxed, because it is rare and large.
    pub(crate) context: Option<Box<Value>>,
    /// Stands beside `error`, where clients look for it. Boxed, because it is rare.
    pub(crate) bytes: Option<Box<Excess>>,
    pub(crate) headers: Headers,
    /// What is really the matter, for the log.
    pub(crate) cause: Option<Box<dyn Error + Send + Sync>>,
}

/// How much was too much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Excess {
    /// Bytes that are allowed.
    pub(crate) limit: u64,
    /// Bytes that it would have been, where that is known.
    pub(crate) actual: Option<u64>,
}

/// Headers that a refusal adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Headers {
    /// No further ones.
    None,
    /// `WWW-Authenticate: Bearer`.
    Authenticate,
    /// `Retry-After` in seconds.
    RetryAfter(u64),
    /// `Allow`.
    Allow(&'static str),
    /// `Connection: close`: the body was not read to its end.
    Close,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), context: None, bytes: None, headers: Headers::None, cause: None }
    }

    fn with_context(mut self, context: Value) -> Self {
        self.context = Some(Box::new(context));
        self
    }

    fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    fn with_cause(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }

    pub(crate) fn invalid_json() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", "invalid JSON body")
    }

    pub(crate) fn invalid_payload() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_payload", "payload must be a JSON object")
    }

    pub(crate) fn parameter(name: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", message).with_context(json!({ "parameter": name }))
    }

    /// The command is not said and can not be guessed.
    pub(crate) fn which_command(commands: &[&str]) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", "command is required: the plugin has several")
            .with_context(json!({ "parameter": "command", "commands": commands }))
    }

    pub(crate) fn unauthenticated(message: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", message).with_headers(Headers::Authenticate)
    }

    pub(crate) fn scope(required_any: &[impl AsRef<str>]) -> Self {
        let required: Vec<_> = required_any.iter().map(AsRef::as_ref).collect();
        Self::new(StatusCode::FORBIDDEN, "insufficient_scope", "insufficient scope")
            .with_context(json!({ "required_any": required }))
    }

    pub(crate) fn not_found(message: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(crate) fn method_not_allowed(allowed: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "method not allowed")
            .with_headers(Headers::Allow(allowed))
    }

    pub(crate) fn not_enabled(why: String) -> Self {
        Self::new(StatusCode::CONFLICT, "plugin_not_enabled", why)
    }

    pub(crate) fn idempotency_conflict(job: &str) -> Self {
        let message = "the Idempotency-Key was used with another payload";
        Self::new(StatusCode::CONFLICT, "idempotency_conflict", message).with_context(json!({ "job_id": job }))
    }

    pub(crate) fn sync_fanout() -> Self {
        let message = "synchronous pipeline trigger requires exactly one entry dispatch; use ?async=true for fan-out entry pipelines";
        Self::new(StatusCode::BAD_REQUEST, "sync_fanout", message)
    }

    pub(crate) fn baggage_claims(why: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "baggage_claims", why)
    }

    pub(crate) fn baggage_too_large(bytes: usize, limit: usize) -> Self {
        let message = "pipeline baggage exceeds maximum context size";
        let mut error = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "baggage_overlimit", message);
        let (limit, actual) = (u64::try_from(limit).unwrap_or(u64::MAX), u64::try_from(bytes).ok());
        error.bytes = Some(Box::new(Excess { limit, actual }));
        error
    }

    /// There is nothing left to cancel.
    pub(crate) fn not_active(status: JobStatus) -> Self {
        Self::new(StatusCode::CONFLICT, "job_not_active", format!("the job is over: it is {status}"))
            .with_context(json!({ "status": status.as_str() }))
    }

    pub(crate) fn not_retryable(why: &RetrySkip) -> Self {
        Self::new(StatusCode::CONFLICT, "job_not_retryable", format!("the job can not be retried: {why}"))
            .with_context(json!({ "reason": why.as_str() }))
    }

    pub(crate) fn payload_gone() -> Self {
        Self::new(StatusCode::GONE, "job_payload_gone", "job payload is no longer stored")
    }

    pub(crate) fn reload_failed(error: String, stage: &str, outcome: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "reload_failed", error)
            .with_context(json!({ "stage": stage, "outcome": outcome }))
    }

    pub(crate) fn reload_in_progress() -> Self {
        let message = "another reload took longer than this request could wait; ask again";
        Self::new(StatusCode::CONFLICT, "reload_in_progress", message)
    }

    pub(crate) fn body_too_large(limit: u64) -> Self {
        let mut error = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "request body too large")
            .with_headers(Headers::Close);
        error.bytes = Some(Box::new(Excess { limit, actual: None }));
        error
    }

    pub(crate) fn body_too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "request body did not arrive in time")
            .with_headers(Headers::Close)
    }

    pub(crate) fn body_broken() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", "request body could not be read")
            .with_headers(Headers::Close)
    }

    pub(crate) fn encoding() -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", "content encoding not supported")
            .with_headers(Headers::Close)
    }

    pub(crate) fn rate_limited() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "too many requests")
            .with_headers(Headers::RetryAfter(1))
    }

    pub(crate) fn queue_full() -> Self {
        Self::unavailable("queue_full", "the queue is full", 5)
    }

    pub(crate) fn sync_slots_full() -> Self {
        Self::unavailable("sync_slots_full", "too many concurrent synchronous requests", 1)
    }

    pub(crate) fn stopping() -> Self {
        Self::unavailable("stopping", "the gateway is stopping", 5)
    }

    fn unavailable(code: &'static str, message: &'static str, retry_after: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).with_headers(Headers::RetryAfter(retry_after))
    }

    pub(crate) fn internal(doing: &'static str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", doing)
    }

    /// The numbers behind the health answer could not be read.
    pub(crate) fn unhealthy(error: QueueError) -> Self {
        Self::unavailable("database_busy", "failed to compute queue depth", 1).with_cause(error)
    }

    /// A failed operation of the queue, while `doing` something.
    pub(crate) fn queue(doing: &'static str, error: QueueError) -> Self {
        match error {
            QueueError::Invalid { field, message } => Self::parameter(field, format!("{field}: {message}")),
            QueueError::Busy => Self::unavailable("database_busy", "the database is busy", 1),
            QueueError::Unavailable | QueueError::Stopping => {
                Self::unavailable("unavailable", "the queue is being restarted", 1)
            }
            QueueError::OutcomeUnknown => Self::internal(doing)
                .with_context(json!({ "outcome": "unknown" }))
                .with_cause(QueueError::OutcomeUnknown),
            QueueError::Storage(cause) => Self::internal(doing).with_cause(cause),
        }
    }
}
