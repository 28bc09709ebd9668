//! What a row becomes when its schedule is not, or not any more, the one that it was written for.

use chrono::{DateTime, Utc};
use ductile_timetable::{Entry, Rule};

use super::{Definition, ScheduleRow, ScheduleStatus};

/// Whether [`reconciled`] would change a row.
pub(super) fn is_due_for_change(entry: &Entry, row: &ScheduleRow, now: DateTime<Utc>) -> bool {
    row.command != entry.command
        || row.status == ScheduleStatus::PausedInvalid
        || !is_as_defined(entry, row)
        || is_exhausted_wrongly(entry, row)
        || lacks_time(row)
        || is_too_far(entry, row, now)
}

pub(super) fn is_as_defined(entry: &Entry, row: &ScheduleRow) -> bool {
    match &row.definition {
        Definition::NotKept => true,
        Definition::Unset => false,
        Definition::Is(known) => is_the_same(known, entry),
    }
}

/// The zone of what is not cron may have been noted too; it moves nothing.
fn is_the_same(known: &str, entry: &Entry) -> bool {
    let rest = known.strip_prefix(&entry.definition());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" tz=") && !matches!(entry.rule, Rule::Cron(_)))
}

/// Only what runs once can have run for good.
fn is_exhausted_wrongly(entry: &Entry, row: &ScheduleRow) -> bool {
    row.status == ScheduleStatus::Exhausted && !entry.is_one_shot()
}

fn lacks_time(row: &ScheduleRow) -> bool {
    row.next_run_at.is_none() && row.status != ScheduleStatus::Exhausted
}

/// Computed by a clock that has been put back since.
fn is_too_far(entry: &Entry, row: &ScheduleRow, now: DateTime<Utc>) -> bool {
    let Rule::Every(interval) = &entry.rule else { return false };
    row.next_run_at.is_some_and(|next| next > interval.furthest(now))
}

/// The row as it should be for the schedule, before anything is decided. `chance` is uniform in `[0, 1]`.
pub(super) fn reconciled(entry: &Entry, found: Option<ScheduleRow>, now: DateTime<Utc>, chance: f64) -> ScheduleRow {
    let Some(mut row) = found else { return first_seen(entry, now) };
    if row.command != entry.command {
        row.command.clone_from(&entry.command);
        row.last_success_job_id = None;
        row.last_success_at = None;
        // One that was armed again after it had fired is still to run: it has to look like it until then.
        row.next_run_at = row.next_run_at.filter(|_| entry.is_one_shot()).and_then(|_| entry.first_due(now));
    }
    if row.status == ScheduleStatus::PausedInvalid || is_exhausted_wrongly(entry, &row) {
        activate(&mut row);
    }
    if row.is_of_another(entry) {
        if row.status == ScheduleStatus::Exhausted {
            activate(&mut row);
        }
        row.next_run_at = entry.due_after_change(now, row.last_run());
    }
    if row.definition != Definition::NotKept {
        row.definition = Definition::Is(entry.definition());
    }
    if lacks_time(&row) {
        give_time(entry, &mut row, now);
    }
    if let Rule::Every(interval) = &entry.rule
        && is_too_far(entry, &row, now)
    {
        row.next_run_at = Some(interval.after(now, chance));
    }
    row
}

pub(super) fn first_seen(entry: &Entry, now: DateTime<Utc>) -> ScheduleRow {
    ScheduleRow {
        plugin: entry.plugin.clone(),
        schedule_id: entry.id.clone(),
        command: entry.command.clone(),
        status: ScheduleStatus::Active,
        reason: None,
        last_fired_at: None,
        last_success_job_id: None,
        last_success_at: None,
        next_run_at: entry.first_due(now),
        definition: Definition::Is(entry.definition()),
    }
}

pub(super) fn activate(row: &mut ScheduleRow) {
    row.status = ScheduleStatus::Active;
    row.reason = None;
}

pub(super) fn exhaust(row: &mut ScheduleRow) {
    row.status = ScheduleStatus::Exhausted;
    row.reason = Some("one_shot_exhausted".to_owned());
    row.next_run_at = None;
}

/// The time of a row that has none although it is not exhausted, as if it were seen for the first time; but what has
/// fired does not fire again for it, whatever the state that somebody wrote over `exhausted`.
fn give_time(entry: &Entry, row: &mut ScheduleRow, now: DateTime<Utc>) {
    let first = entry.first_due(now);
    row.next_run_at = match (&entry.rule, row.last_fired_at) {
        (Rule::At(_) | Rule::After(_), Some(_)) => return exhaust(row),
        (Rule::Cron(cron), Some(fired)) if first.is_some_and(|slot| slot <= fired) => cron.next_after(now, &entry.zone),
        _ => first,
    };
}
