//! `ductile job`: what happened, read straight from the database, with or without a running gateway.

mod inspect;
mod intervene;
mod logs;
pub(super) mod tree;

use clap::Subcommand;
use ductile_model::{JobId, untrusted_json};
use ductile_queue::{FoundJob, Reader};
use serde_json::Value;

use super::args::Common;
use super::report::Failure;
use super::state;

/// Characters of a short id; the shortest part of an id that stands for a job.
const SHORT: usize = 8;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Everything about one job: state, attempts, lineage, facts
    #[command(
        long_about = "Everything about one job: state, attempts, lineage, facts. The id may be shortened to its first or last 8 or more \
                      characters. With -v the payload and what each attempt printed.",
        after_help = "Examples:\n  ductile job inspect 1a2b3c4d\n  ductile job inspect -v --json 01a22d63-c2e6-74c6-836e-b59617e8e14c\n\nExit codes: 0 shown, 1 not found or not readable."
    )]
    Inspect {
        /// Id of the job, or a part of it
        job_id: String,
    },
    /// Finished attempts, newest first
    #[command(
        after_help = "Examples:\n  ductile job logs --plugin file_watch --status failed\n  ductile job logs --query 'connection refused' --from 2026-01-02T00:00:00Z --json\n\nExit codes: 0 shown, 1 wrong filter or not readable."
    )]
    Logs(logs::Filters),
    /// Give an active job of a running gateway up
    #[command(
        long_about = "Give an active job of a running gateway up. A waiting job is dead at once; of a running one the process is ended, \
                      and what it still says does not count.",
        after_help = "Examples:\n  ductile job cancel 1a2b3c4d --reason 'wrong input'\n  ductile job cancel 01a22d63-c2e6-74c6-836e-b59617e8e14c --tree\n\nExit codes: 0 cancelled, 1 not active, not found or no gateway."
    )]
    Cancel(intervene::Cancel),
    /// Queue jobs that went wrong again
    #[command(
        long_about = "Queue jobs that went wrong again, as new jobs with the same input and the same place in their pipeline. Jobs that were \
                      retried before are skipped, so that running the command twice retries nothing twice. Many come due one after the other, \
                      at --rate per second.",
        after_help = "Examples:\n  ductile job retry 1a2b3c4d\n  ductile job retry --plugin web_fetch --since 6h --dry-run\n  ductile job retry --status timed_out,dead --pipeline nightly --rate 2\n\nExit codes: 0 done, 1 nothing of what was named could be retried, or no gateway."
    )]
    Retry(intervene::Retry),
}

pub(crate) fn run(action: Action, common: &Common) -> Result<u8, Failure> {
    match action {
        Action::Inspect { job_id } => inspect::run(&job_id, common),
        Action::Logs(filters) => logs::run(&filters, common),
        Action::Cancel(arguments) => intervene::cancel(&arguments, common),
        Action::Retry(arguments) => intervene::retry(&arguments, common),
    }
}

/// The database of the configuration, read-only.
fn reader(common: &Common) -> Result<Reader, Failure> {
    state::reader(&state::path(common)?)
}

/// The job that a whole or shortened id stands for.
fn find(reader: &Reader, part: &str) -> Result<Option<JobId>, Failure> {
    match reader.find_job(part).map_err(state::failure)? {
        FoundJob::One(id) => Ok(Some(id)),
        FoundJob::None => Ok(None),
        FoundJob::Several(ids) => {
            let ids: Vec<&str> = ids.iter().map(JobId::as_str).collect();
            Err(Failure::usage(format!("{part:?} stands for several jobs: {}", ids.join(", "))))
        }
    }
}

/// The end of an id, by which people name a job: ids begin with their time, so their beginnings are alike.
fn short(id: &str) -> &str {
    let from = id.char_indices().rev().nth(SHORT - 1).map_or(0, |(at, _)| at);
    &id[from..]
}

/// Stored JSON text as a value; what is not JSON (older rows) as a string.
fn json_text(text: Option<&String>) -> Value {
    text.map_or(Value::Null, |text| untrusted_json::value(text).unwrap_or_else(|_| Value::from(text.as_str())))
}
