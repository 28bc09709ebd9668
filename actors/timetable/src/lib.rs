//! The timetable: when something is due. Intervals, cron expressions, time zones, windows and days off.
//!
//! **Owns** nothing. Everything here is a function of its arguments: the present instant and chance are parameters, and
//! nothing is remembered, so it can neither die nor be woken.
//!
//! **Promises.** The same question gets the same answer, on every machine that has the same zone data; a search that
//! finds nothing ends.
//!
//! **Not here:** what has run, and what may run now: that is in the rows, and with the queue.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod cron;
mod entry;
mod interval;
mod missed;
mod upcoming;
mod weekday;
mod window;
mod zone;

pub use cron::{Cron, CronError};
pub use entry::{CatchUp, Entry, HeldBack, Overlap, Rule};
pub use interval::{Interval, IntervalError, parse_interval};
pub use missed::Missed;
pub use weekday::{WeekdayError, Weekdays, parse_weekday};
pub use window::{Window, WindowError};
pub use zone::{Zone, ZoneError};

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// An instant so much later; the end of time when that is beyond it.
#[must_use]
pub fn later(at: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    let moved = TimeDelta::from_std(by).ok().and_then(|by| at.checked_add_signed(by));
    moved.unwrap_or(DateTime::<Utc>::MAX_UTC)
}
