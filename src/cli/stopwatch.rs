//! `ductile stopwatch`: what is kept of the timing of plugins, straight in the database.

use chrono::{DateTime, Utc};
use clap::{Subcommand, ValueEnum};
use ductile_model::{format_wire, parse_duration};
use ductile_queue::{ChangeMode, StopwatchFilter, StopwatchPart};
use serde_json::{Map, json};

use super::args::Common;
use super::report::{self, Failure};
use super::state;

const TABLE: &str = "job_stopwatch";

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Delete old timing rows
    #[command(
        long_about = "Delete timing rows of plugin processes that are older than this, oldest first. Daily summaries stay. Works \
                      with the gateway running or stopped.",
        after_help = "Examples:\n  ductile stopwatch prune --older-than 7d --dry-run\n  ductile stopwatch prune --older-than 24h --plugin file_watch --status timeout\n\nExit codes: 0 done, 1 anything else."
    )]
    Prune(Which),
    /// Delete what plugins reported about their inner steps, and keep the rows
    #[command(
        long_about = "Delete what plugins reported about their inner steps in timing rows that are older than this, oldest first. The \
                      rows stay. Works with the gateway running or stopped.",
        after_help = "Examples:\n  ductile stopwatch prune-subs --older-than 2w\n  ductile stopwatch prune-subs --older-than 24h --span fetch.body --json\n\nExit codes: 0 done, 1 anything else."
    )]
    PruneSubs {
        #[command(flatten)]
        which: Which,
        /// Only inner steps of this name
        #[arg(long, value_name = "NAME")]
        span: Option<String>,
    },
}

/// Which rows.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// Age that rows must have, such as 24h, 7d, 2w
    #[arg(long, value_name = "DUR")]
    older_than: String,
    /// Exact plugin
    #[arg(long, value_name = "NAME")]
    plugin: Option<String>,
    /// Exact step of a pipeline
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    /// How the process ended
    #[arg(long)]
    status: Option<Status>,
    /// Count, but change nothing
    #[arg(long)]
    dry_run: bool,
    /// Rows at most
    #[arg(long, default_value = "5000", value_name = "N", allow_negative_numbers = true)]
    limit: String,
}

/// How a plugin process ended, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Status {
    /// Answered ok.
    Ok,
    /// Failed.
    Err,
    /// Ran too long.
    Timeout,
    /// Could not be watched.
    CaptureError,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Err => "err",
            Self::Timeout => "timeout",
            Self::CaptureError => "capture_error",
        }
    }
}

/// What is to be done, checked.
struct Request {
    action: &'static str,
    part: StopwatchPart,
    filter: StopwatchFilter,
    limit: u64,
    mode: ChangeMode,
}

pub(crate) fn run(action: Action, common: &Common) -> Result<u8, Failure> {
    let request = match action {
        Action::Prune(which) => Request::new("prune", StopwatchPart::Rows, which)?,
        Action::PruneSubs { which, span } => {
            Request::new("prune-subs", span.map_or(StopwatchPart::Spans, StopwatchPart::SpansNamed), which)?
        }
    };
    let mut database = state::maintainer(&state::path(common)?)?;
    state::note_missing(&database.missing_tables().map_err(state::failure)?, TABLE);
    let affected = database
        .prune_stopwatch(&request.part, &request.filter, request.limit, request.mode)
        .map_err(state::failure)?;
    show(&request, affected, common);
    Ok(0)
}

impl Request {
    fn new(action: &'static str, part: StopwatchPart, which: Which) -> Result<Self, Failure> {
        let limit = which.limit.parse().ok().filter(|limit| *limit > 0);
        Ok(Self {
            action,
            part,
            filter: StopwatchFilter {
                older_than: before(&which.older_than)?,
                plugin: which.plugin,
                step: which.step,
                status: which.status.map(|status| status.as_str().to_owned()),
            },
            limit: limit.ok_or_else(|| Failure::usage("limit must be a number of at least 1"))?,
            mode: if which.dry_run { ChangeMode::Preview } else { ChangeMode::Apply },
        })
    }

    /// The filters that were given, and the empty text for the others.
    fn filters(&self) -> [(&'static str, &str); 4] {
        let span = match &self.part {
            StopwatchPart::SpansNamed(name) => name.as_str(),
            StopwatchPart::Rows | StopwatchPart::Spans => "",
        };
        [
            ("plugin", self.filter.plugin.as_deref().unwrap_or_default()),
            ("step", self.filter.step.as_deref().unwrap_or_default()),
            ("status", self.filter.status.as_deref().unwrap_or_default()),
            ("span", span),
        ]
    }
}

/// The instant that lies so far back.
fn before(age: &str) -> Result<DateTime<Utc>, Failure> {
    let age = parse_duration(age).map_err(|error| Failure::usage(format!("--older-than: {error}")))?;
    if age.is_zero() {
        return Err(Failure::usage("--older-than must be more than 0"));
    }
    Ok(Utc::now() - age)
}

fn show(request: &Request, affected: u64, common: &Common) {
    let older_than = format_wire(request.filter.older_than);
    let filters = request.filters();
    if common.json {
        report::json(&json!({
            "action": request.action,
            "dry_run": request.mode == ChangeMode::Preview,
            "affected": affected,
            "older_than": older_than,
            "filters": filters.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<Map<_, _>>(),
        }));
        return;
    }
    let done = match (&request.part, request.mode) {
        (StopwatchPart::Rows, ChangeMode::Apply) => "deleted",
        (StopwatchPart::Rows, ChangeMode::Preview) => "would delete",
        (_, ChangeMode::Apply) => "cleared subs on",
        (_, ChangeMode::Preview) => "would clear subs on",
    };
    let given: Vec<String> =
        filters.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name}={value}")).collect();
    let given = if given.is_empty() { String::new() } else { format!(" ({})", given.join(", ")) };
    report::line(format_args!("{done} {affected} {TABLE} row(s) older than {older_than}{given}"));
}
