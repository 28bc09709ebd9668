//! The queue and the store: the one SQLite file and the only writer of it in a gateway.
//!
//! **Owns** the database: one writer thread with the only read-write connection, a pool of readers, the schema, and
//! the job state machine as rows.
//!
//! **Promises.** An answer to `enqueue` means the row is committed. The outcome of an attempt, with everything it
//! causes, is one transaction. Events are published after the commit that they tell about.
//!
//! **Woken by** an operation, by the next due retry, and once a second for rows that other processes wrote.
//!
//! **When it dies**: the [`Store`] is a resource of the process and outlives the actor; the actor is restarted and
//! finds everything in the database. After a kill, [`Store::recover`] brings the rows of running attempts back.
//!
//! **Commands** look at the database through a [`Reader`] and change it through a [`Maintainer`], beside a gateway or
//! without one: the writer never counts on being the only process that writes.
//!
//! **Not here:** running plugins, and when a schedule is due.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod actor;
mod additive;
mod board;
mod breaker;
mod breaker_rows;
mod cancel;
mod claim;
mod enqueue;
mod error;
mod events;
mod facts;
mod finalise;
mod generation;
mod handle;
mod history;
mod janitor;
mod lineage;
mod maintainer;
mod migrate;
mod open;
mod outcome;
mod prune;
mod read;
mod reader;
mod readers;
mod report;
mod retention;
mod retry;
mod rows;
mod running;
mod schedule;
mod schema;
mod scope;
mod shape;
mod snapshot;
mod state;
mod stopwatch;
mod store;
mod successors;
mod tidy;
mod types;
mod watches;
mod writer;

#[cfg(test)]
mod tests;

pub use actor::{EnqueueRequest, QueueActor, QueueArgs, QueueMsg};
pub use breaker_rows::{BreakerReason, BreakerReport, BreakerRow, BreakerState, BreakerTransition, ResetBreaker};
pub use error::{QueueError, StoreError};
pub use handle::QueueHandle;
pub use janitor::JanitorRun;
pub use maintainer::Maintainer;
pub use migrate::{
    MigrateError, MigrateOptions, MigrationCandidate, MigrationExtent, MigrationMode, MigrationReport, Progress,
    StepStatus, migrate, migration_candidate,
};
pub use open::{SchemaGap, schema_gaps};
pub use prune::{ChangeMode, StopwatchFilter, StopwatchPart};
pub use reader::Reader;
pub use report::{
    AttemptRow, CausedJob, ContextRow, FactRow, FoundJob, InspectPart, Inspection, JobRef, LogFilter, LogRow, Retries,
    TransitionRow,
};
pub use retention::{Pruned, Retention};
pub use retry::{Attempts, Retried, RetryFilter, RetryReport, RetryRequest, RetryScope, RetrySelection, RetrySkip};
pub use schedule::{
    CatchUpLook, CaughtUp, Definition, Due, Evaluated, ScheduleChange, ScheduleChanged, ScheduleNews, ScheduleOverview,
    ScheduleRow, ScheduleStatus, ScheduleView, ScheduledJob, SkipReason, glance,
};
pub use snapshot::snapshot;
pub use store::{Store, StoreOptions, Synchronous};
pub use successors::{Begun, EndOrigin, Ended, Hooks, NewContext, PipelineStart, Routed, Successor, Told};
pub use types::{
    ActivateGeneration, AttemptLog, AttemptOutcome, BreakerPolicy, CancelTarget, Cancelled, ClaimPolicy, ClaimedJob,
    DuplicateReason, Enqueued, Finalise, Finalised, InterruptKind, JobContext, JobFilter, JobPage, JobView, NewJob,
    ProcessEnding, Recovered, ReloadEntry, ReloadRecord, SnapshotRow, StateUpdate, Stopwatch, TreeNode, TreeWait,
};
