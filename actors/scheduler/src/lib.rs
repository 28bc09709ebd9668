//! The scheduler room of a generation: what is to be done at a time.
//!
//! **Owns** the loop that looks at schedules when they are due, and the tick, which looks at all of them and drives the
//! housekeeping of the database. What has run and what is due next is in the rows of the database; the loop only
//! remembers when to look next, and what it has told already.
//!
//! **Promises.** An active generation looks at a schedule when it is due, and at every one once per
//! `service.tick_interval`; one that is in standby or drained does nothing. A job and the row that says so are one
//! transaction, so over kills, restarts and reloads no slot is lost and none fires twice. What does not run in time is
//! told: by an event, a count and a line in the log. Rounds never overlap.
//!
//! **Woken by** the earliest due schedule, by the tick, and by changes of schedules that others commit. It never polls.
//!
//! **When it dies** it is restarted and reads the rows; nothing is to be restored.
//!
//! **Not here:** when something is due (the timetable) and whether it may run (the queue).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod actor;
mod agenda;
mod housekeeping;
mod life;
mod rounds;
mod telling;

#[cfg(test)]
mod tests;

pub use actor::{SchedulerActor, SchedulerArgs, SchedulerMsg, SchedulerState};
pub use life::SchedulerLife;
