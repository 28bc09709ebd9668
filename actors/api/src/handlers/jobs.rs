//! Looking at jobs.

use chrono::{DateTime, Utc};
use ductile_config::Family;
use ductile_model::{JobId, JobStatus};
use ductile_queue::{JobFilter, JobPage};
use http::HeaderValue;
use http::header::LINK;
use serde::Serialize;

use crate::context::Context;
use crate::cursor;
use crate::error::ApiError;
use crate::query::Query;
use crate::reply::Reply;
use crate::state::Api;
use crate::views::{self, Detail};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;

/// Which parts are asked for beside the job itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Include {
    payload: bool,
    log: bool,
}

impl Include {
    fn of(query: &Query<'_>) -> Result<Self, ApiError> {
        let mut include = Self::default();
        for word in query.get("include").unwrap_or_default().split(',').filter(|word| !word.is_empty()) {
            match word {
                "payload" => include.payload = true,
                "log" => include.log = true,
                _ => return Err(ApiError::parameter("include", "include must be payload, log or both")),
            }
        }
        Ok(include)
    }
}

/// `GET /job/{id}`.
pub(crate) async fn show(api: &Api, context: &Context, id: &str) -> Result<Reply, ApiError> {
    let token = api.require(context, Family::JobStatus)?;
    let detail = Detail::of(token.scopes.allows(Family::JobResult));
    let include = Include::of(&Query::parse(context.query()))?;
    let failed = |error| ApiError::queue("failed to read the job", error);
    let job = api.queue.job(&JobId::from(id)).await.map_err(failed)?.ok_or_else(not_found)?;
    if detail == Detail::Status || include == Include::default() {
        return Reply::ok(&views::Job::new(&job, detail));
    }
    let attempts = if include.log { api.queue.attempts(&job.id).await.map_err(failed)? } else { Vec::new() };
    let mut view = views::Job::new(&job, detail);
    if include.payload {
        view = view.with_payload(&job);
    }
    if include.log {
        view = view.with_log(&job, &attempts);
    }
    Reply::ok(&view)
}

/// `GET /job/{id}/tree`.
pub(crate) async fn tree(api: &Api, context: &Context, id: &str) -> Result<Reply, ApiError> {
    let token = api.require(context, Family::JobTree)?;
    let detail = Detail::of(token.scopes.allows(Family::JobResult));
    let tree = api.queue.tree(&JobId::from(id)).await;
    let nodes = tree.map_err(|error| ApiError::queue("failed to read the job tree", error))?.ok_or_else(not_found)?;
    Reply::ok(&views::tree(&nodes, detail))
}

#[derive(Serialize)]
struct Page<'a> {
    jobs: Vec<views::Row<'a>>,
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<&'a str>,
}

/// `GET /jobs`.
pub(crate) async fn list(api: &Api, context: &Context) -> Result<Reply, ApiError> {
    api.require(context, Family::JobStatus)?;
    let query = Query::parse(context.query());
    let page = api.queue.jobs(filter(&query)?).await;
    let page = page.map_err(|error| ApiError::queue("failed to list jobs", error))?;
    page_reply(&page, &query)
}

fn page_reply(page: &JobPage, query: &Query<'_>) -> Result<Reply, ApiError> {
    let cursor = page.next.as_ref().map(cursor::encode);
    let jobs = page.jobs.iter().map(views::Row::new).collect();
    let reply = Reply::ok(&Page { jobs, total: page.total, next_cursor: cursor.as_deref() })?;
    let Some(cursor) = cursor else { return Ok(reply) };
    let link = format!("</jobs?{}>; rel=\"next\"", query.with("cursor", &cursor));
    // The query is percent-encoded, so it is always a legal header.
    Ok(match HeaderValue::try_from(link) {
        Ok(link) => reply.header(LINK, link),
        Err(_) => reply,
    })
}

fn filter(query: &Query<'_>) -> Result<JobFilter, ApiError> {
    Ok(JobFilter {
        plugin: query.text("plugin"),
        command: query.text("command"),
        status: query.text("status").map(|word| status(&word)).transpose()?,
        submitted_by: query.text("submitted_by"),
        from: instant(query, "from", "invalid from timestamp")?,
        to: instant(query, "to", "invalid to timestamp")?,
        after: query.get("cursor").map(place).transpose()?,
        limit: query.get("limit").map_or(Ok(DEFAULT_LIMIT), limit)?,
    })
}

fn status(word: &str) -> Result<JobStatus, ApiError> {
    JobStatus::parse_filter(word).ok_or_else(|| ApiError::parameter("status", "invalid status filter"))
}

fn place(text: &str) -> Result<cursor::Place, ApiError> {
    cursor::decode(text).ok_or_else(|| ApiError::parameter("cursor", "invalid cursor"))
}

fn limit(text: &str) -> Result<u32, ApiError> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number || text.bytes().all(|b| b == b'0') {
        return Err(ApiError::parameter("limit", "limit must be a positive integer"));
    }
    match text.parse() {
        Ok(limit) if limit <= MAX_LIMIT => Ok(limit),
        _ => Err(ApiError::parameter("limit", "limit must be <= 200")),
    }
}

fn instant(query: &Query<'_>, name: &'static str, complaint: &'static str) -> Result<Option<DateTime<Utc>>, ApiError> {
    let Some(text) = query.text(name) else { return Ok(None) };
    // An offset written without escaping its plus sign arrives with a blank.
    let at = DateTime::parse_from_rfc3339(&text.replace(' ', "+"));
    at.map(|at| Some(at.to_utc())).map_err(|_| ApiError::parameter(name, complaint))
}

fn not_found() -> ApiError {
    ApiError::not_found("job not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<JobFilter, String> {
        filter(&Query::parse(Some(query))).map_err(|error| error.message.into_owned())
    }

    #[test]
    fn limits_are_never_clamped() {
        assert_eq!(read("").unwrap().limit, 50);
        assert_eq!(read("limit=200").unwrap().limit, 200);
        for text in ["0", "-1", "x", "", "1.5", "+1"] {
            let wrong = read(&format!("limit={}", text.replace('+', "%2B"))).unwrap_err();
            assert_eq!(wrong, "limit must be a positive integer", "{text}");
        }
        for text in ["201", "99999999999999999999999"] {
            assert_eq!(read(&format!("limit={text}")).unwrap_err(), "limit must be <= 200", "{text}");
        }
    }

    #[test]
    fn filters_are_read_and_wrong_ones_named() {
        let filter = read("plugin=echo&status=OK&from=2026-01-02T03:04:05+01:00&submitted_by=api").unwrap();
        assert_eq!(filter.plugin.as_deref(), Some("echo"));
        assert_eq!(filter.status, Some(JobStatus::Succeeded));
        assert_eq!(filter.from.unwrap().to_rfc3339(), "2026-01-02T02:04:05+00:00");
        assert_eq!(read("status=bogus").unwrap_err(), "invalid status filter");
        assert_eq!(read("from=yesterday").unwrap_err(), "invalid from timestamp");
        assert_eq!(read("to=2026-01-02").unwrap_err(), "invalid to timestamp");
        assert_eq!(read("cursor=x").unwrap_err(), "invalid cursor");
    }
}
