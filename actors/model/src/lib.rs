//! The words every room of the gateway uses.
//!
//! **Owns** nothing at run time: ids, time, durations and sizes, the job life cycle, retry arithmetic, the secret
//! type, the event hub, the vocabulary of refusals, and the two small pieces that every actor crate needs
//! ([`Link`] and [`RestartWindow`]). It depends on no other room.
//!
//! **Promises.** Everything here is pure or in memory; nothing reads the disk, the environment or the process
//! table. Time and randomness are parameters. After a crash there is nothing to restore: the event hub starts
//! empty, and the database is the record.

mod age_file;
mod cancellation;
mod duration;
mod hub;
mod id;
mod job;
mod lifecycle;
mod link;
mod name;
mod refusal;
mod retry;
mod secret;
mod size;
mod slots;
mod supervision;
mod time;
pub mod untrusted_json;
mod yaml_word;

pub use age_file::{age_file, is_age_encrypted};
pub use cancellation::Cancellation;
pub use duration::{DurationError, format_duration, parse_duration};
pub use hub::{EventHub, EventRecord, RING_CAPACITY, Replay, SUBSCRIBER_BUFFER, Subscription};
pub use id::{JobId, SnapshotId, new_id};
pub use job::{FailureReason, IllegalTransition, JobEvent, JobStatus, Producer};
pub use lifecycle::Lifecycle;
pub use link::{ASK_LIMIT, AskError, Link, LinkOwner};
pub use name::{CORE_PRINCIPAL, LONGEST_PRINCIPAL, is_hyphenated, is_principal};
pub use refusal::{Outcome, Problem, Refusal};
pub use retry::{Decision, backoff_delay, decide};
pub use secret::Secret;
pub use size::{SizeError, parse_size};
pub use slots::SlotCounts;
pub use supervision::{Component, RestartWindow, Verdict};
pub use time::{Clock, ManualClock, SystemClock, format_db, format_wire, parse_stored};
pub use yaml_word::YamlWord;

/// Version of this build, as in `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
