//! Finished attempts.

use chrono::{DateTime, Utc};
use ductile_model::{JobStatus, format_wire};
use ductile_queue::{LogFilter, LogRow};
use serde_json::{Value, json};

use super::{json_text, reader, unreadable};
use crate::cli::args::Common;
use crate::cli::report::{self, Failure, line};

#[derive(Debug, clap::Args)]
pub(crate) struct Filters {
    /// Exact job id
    #[arg(long, value_name = "ID")]
    job_id: Option<String>,
    /// Exact plugin
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Exact command
    #[arg(long, value_name = "CMD")]
    command: Option<String>,
    /// Outcome: succeeded, failed, timed_out, dead, skipped (also ok, error)
    #[arg(long)]
    status: Option<String>,
    /// Producer, such as api, route or webhook
    #[arg(long, value_name = "NAME")]
    submitted_by: Option<String>,
    /// Ended at or after, RFC 3339
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Ended at or before, RFC 3339
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Text in error, stderr or result, in any case
    #[arg(long, value_name = "TEXT")]
    query: Option<String>,
    /// Rows at most, 1 to 200
    #[arg(long, default_value = "50", value_name = "N")]
    limit: String,
    /// Show results too
    #[arg(long)]
    include_result: bool,
}

pub(super) fn run(filters: &Filters, common: &Common) -> Result<u8, Failure> {
    let filter = checked(filters)?;
    let (total, rows) = reader(common)?.logs(&filter).map_err(unreadable)?;
    if common.json {
        report::json(&json!({"total": total, "logs": rows.iter().map(row_json).collect::<Vec<_>>()}));
        return Ok(0);
    }
    let colour = report::colour(common.no_color);
    line(format_args!("Job Logs (total={total})"));
    rows.iter().for_each(|row| show(row, colour));
    Ok(0)
}

fn checked(filters: &Filters) -> Result<LogFilter, Failure> {
    let status = match &filters.status {
        Some(word) => Some(JobStatus::parse_filter(word).ok_or_else(|| Failure::usage("invalid status filter"))?),
        None => None,
    };
    let limit = filters.limit.parse().ok().filter(|limit| (1..=200).contains(limit));
    Ok(LogFilter {
        job_id: filters.job_id.clone(),
        plugin: filters.plugin.clone(),
        command: filters.command.clone(),
        status,
        submitted_by: filters.submitted_by.clone(),
        from: timestamp(filters.from.as_deref(), "invalid from timestamp")?,
        to: timestamp(filters.to.as_deref(), "invalid to timestamp")?,
        query: filters.query.clone(),
        limit: limit.ok_or_else(|| Failure::usage("limit must be between 1 and 200"))?,
        include_result: filters.include_result,
    })
}

fn timestamp(text: Option<&str>, wrong: &str) -> Result<Option<DateTime<Utc>>, Failure> {
    text.map(|text| DateTime::parse_from_rfc3339(text).map(|at| at.with_timezone(&Utc)))
        .transpose()
        .map_err(|_| Failure::usage(wrong))
}

fn row_json(row: &LogRow) -> Value {
    json!({
        "job_id": row.job_id,
        "log_id": row.log_id,
        "plugin": row.plugin,
        "command": row.command,
        "status": row.status,
        "attempt": row.attempt,
        "submitted_by": row.submitted_by,
        "created_at": row.created_at.map(format_wire),
        "completed_at": row.completed_at.map(format_wire),
        "last_error": row.last_error,
        "stderr": row.stderr,
        "result": json_text(row.result.as_ref()),
        "enqueued_config_snapshot_id": row.enqueued_snapshot,
        "started_config_snapshot_id": row.started_snapshot,
    })
}

fn show(row: &LogRow, colour: bool) {
    let at = row.completed_at.map_or_else(|| "?".to_owned(), format_wire);
    line(format_args!(
        "- {at} {} {}:{} job={} attempt={} submitted_by={}",
        report::paint_status(&row.status, colour),
        row.plugin,
        row.command,
        row.job_id,
        row.attempt,
        row.submitted_by
    ));
    for (name, text) in [("last_error", &row.last_error), ("stderr", &row.stderr), ("result", &row.result)] {
        if let Some(text) = text {
            line(format_args!("    {name}: {}", text.trim_end().replace('\n', "\n      ")));
        }
    }
}
