//! Finished attempts.

use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::{Table, presets};
use ductile_model::{JobStatus, format_wire};
use ductile_queue::{LogFilter, LogRow};
use serde_json::{Value, json};

use super::{find, json_text, reader, short};
use crate::cli::args::Common;
use crate::cli::report::{self, Failure, Form, line};
use crate::cli::state;

#[derive(Debug, clap::Args)]
pub(crate) struct Filters {
    /// Id of the job, or its first or last 8 or more characters
    #[arg(long, value_name = "ID")]
    job_id: Option<String>,
    /// Exact plugin
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Exact command
    #[arg(long, value_name = "CMD")]
    command: Option<String>,
    /// Outcome: succeeded, failed, timed_out, dead, skipped (also ok, error, pending)
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
    #[arg(long, default_value = "50", value_name = "N", allow_negative_numbers = true)]
    limit: String,
    /// Show results too
    #[arg(long)]
    include_result: bool,
}

pub(super) fn run(filters: &Filters, common: &Common) -> Result<u8, Failure> {
    let mut filter = checked(filters)?;
    let reader = reader(common)?;
    if let Some(part) = &mut filter.job_id
        && let Some(id) = find(&reader, part)?
    {
        id.as_str().clone_into(part);
    }
    let (total, rows) = reader.logs(&filter).map_err(state::failure)?;
    if common.json {
        report::json(&json!({"total": total, "logs": rows.iter().map(row_json).collect::<Vec<_>>()}));
        return Ok(0);
    }
    line(format_args!("Job Logs (total={total})"));
    match Form::of_stdout(common.no_color) {
        Form::Plain => rows.iter().for_each(show),
        Form::Terminal { .. } if rows.is_empty() => {}
        form @ Form::Terminal { .. } => show_table(&rows, form),
    }
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

/// One row with all that belongs to it, in a form that scripts may rely on.
fn show(row: &LogRow) {
    let at = row.completed_at.map_or_else(|| "?".to_owned(), format_wire);
    line(format_args!(
        "- {at} {} {}:{} job={} attempt={} submitted_by={}",
        row.status, row.plugin, row.command, row.job_id, row.attempt, row.submitted_by
    ));
    show_output(row, Form::Plain);
}

fn show_output(row: &LogRow, form: Form) {
    for (name, text) in [("last_error", &row.last_error), ("stderr", &row.stderr), ("result", &row.result)] {
        if let Some(text) = text {
            let text = form.foreign(text.trim_end()).replace('\n', "\n      ");
            line(format_args!("    {name}: {text}"));
        }
    }
}

/// The rows as a table, with what belongs to each below it. Ids are short.
fn show_table(rows: &[LogRow], form: Form) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["ENDED", "STATUS", "PLUGIN", "COMMAND", "ATTEMPT", "BY", "JOB"]);
    for row in rows {
        let ended = row.completed_at.map_or_else(|| "?".to_owned(), |at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
        let cells = [&row.plugin, &row.command, &row.attempt.to_string(), &row.submitted_by, short(&row.job_id)]
            .map(|text| form.foreign(text).replace('\n', " "));
        table.add_row([ended, row.status.clone()].into_iter().chain(cells));
    }
    let mut lines = table.lines();
    let mut next = || lines.next().unwrap_or_default();
    line(format_args!("{}", next().trim_end()));
    for row in rows {
        // Coloured only now: to the table the codes would be text that takes room. Nothing before the status has letters
        // of it.
        let text = next().replacen(&row.status, &form.status(&row.status), 1);
        line(format_args!("{}", text.trim_end()));
        show_output(row, form);
    }
}
