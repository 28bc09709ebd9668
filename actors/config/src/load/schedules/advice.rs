//! What is allowed in a schedule and looks like a mistake.

use std::time::Duration;

use chrono::Utc;
use ductile_model::format_duration;
use ductile_timetable::{Entry, Interval, Rule, Weekdays};

use super::fields::Fields;

const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn give(fields: &mut Fields<'_>, rule: Option<&Rule>, jitter: Duration, not_on: Weekdays, tick: Duration) {
    if not_on.is_all() {
        fields.advise("not_on", "names every day of the week: it never runs");
    }
    let mode = match rule {
        None => return,
        Some(Rule::Every(interval)) => return of_interval(fields, interval, tick),
        Some(Rule::Cron(_)) => "cron",
        Some(Rule::At(_)) => "at",
        Some(Rule::After(_)) => "after",
    };
    if !jitter.is_zero() {
        fields.advise("jitter", &format!("has no effect on {mode} schedules"));
    }
    if fields.is_given("preferred_window") {
        fields.advise("preferred_window", &format!("has no effect on {mode} schedules"));
    }
}

fn of_interval(fields: &mut Fields<'_>, interval: &Interval, tick: Duration) {
    let (every, jitter) = (format_duration(interval.every), format_duration(interval.jitter));
    if interval.every < MINUTE {
        fields.advise("every", &format!("{every} is below one minute"));
    }
    if interval.every < tick {
        fields.advise("every", &format!("{every} is below service.tick_interval {}", format_duration(tick)));
    }
    if interval.jitter > interval.every {
        fields.advise("jitter", &format!("{jitter} is larger than every {every}, and is used as if equal to it"));
    }
}

/// Whether a cron expression has slots that its window and days leave.
pub(super) fn of_slots(fields: &mut Fields<'_>, entry: &Entry) {
    let is_limited = entry.only_between.is_some() && !entry.not_on.is_all();
    if is_limited && matches!(entry.rule, Rule::Cron(_)) && entry.upcoming(Utc::now()).next().is_none() {
        fields.advise("only_between", "leaves out every slot of the cron expression: it never runs");
    }
}
