//! The hourly janitor of the timings: finished days are summed up, and raw rows that are old and summed up go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ductile_model::{format_db, parse_stored};
use rusqlite::{Connection, OptionalExtension, params};
use tracing::{debug, info};

use crate::additive::soft;
use crate::retention::before;
use crate::rows::{required_text, text};
use crate::scope::Scope;
use crate::{QueueError, Store, schema, stopwatch};

/// Name of its heartbeat.
const NAME: &str = "stopwatch";
const ROLLUP: &str = "job_stopwatch_rollup_daily";
const HEARTBEAT: &str = "janitor_heartbeat";
/// Without it the search for old rows would read the whole table under the write lock.
const RAW_INDEX: &str = "job_stopwatch_plugin_recorded_idx";
/// A day counts as finished so long after its end: its last rows may be on their way.
const SETTLED: TimeDelta = TimeDelta::minutes(5);
/// Time between two runs, over restarts too.
const EVERY: TimeDelta = TimeDelta::hours(1);
/// Rows that go in one transaction, and in one run.
const STEP: usize = 250;
const PER_RUN: usize = 500_000;

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JanitorRun {
    /// Rows of daily summaries that were written.
    pub rolled_up: usize,
    /// Raw rows that were deleted.
    pub deleted: usize,
}

/// What is summed up together: pipeline, step, status.
type Group = (String, String, String);

/// One row of the summary.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Summary {
    plugin: String,
    group: Group,
    count: i64,
    sum: i64,
    min: i64,
    max: i64,
    p50: i64,
    p90: i64,
    p99: i64,
}

impl Store {
    /// Runs the janitor when its last run is an hour ago, and leaves its heartbeat. Raw rows older than `keep` go, once
    /// their day is summed up.
    ///
    /// # Errors
    /// The database failed; the heartbeat says so where it can.
    pub async fn run_janitor(&self, now: DateTime<Utc>, keep: Duration) -> Result<Option<JanitorRun>, QueueError> {
        let ran = *self.janitor_ran();
        if !self.read(move |connection| is_due(connection, ran, now)).await? {
            return Ok(None);
        }
        *self.janitor_ran() = Some(now);
        let mut run = JanitorRun::default();
        let outcome = self.janitor(now, keep, &mut run).await;
        let error = outcome.as_ref().err().map(ToString::to_string);
        let beaten = self.write(move |scope| beat(scope, run, error.as_deref())).await;
        outcome.and(beaten)?;
        if run != JanitorRun::default() {
            info!(rolled_up = run.rolled_up, deleted = run.deleted, "timings summed up");
        }
        Ok(Some(run))
    }

    async fn janitor(&self, now: DateTime<Utc>, keep: Duration, run: &mut JanitorRun) -> Result<(), QueueError> {
        let finished = format_db(now - SETTLED);
        let finished = day_of(&finished).to_owned();
        let days = self.read(move |connection| raw_days(connection, &finished, Summed::No)).await?;
        for (day, plugins) in days {
            let read_day = day.clone();
            let summaries = self.read(move |connection| summaries(connection, &read_day, &plugins)).await?;
            run.rolled_up += self.write(move |scope| write_day(scope, &day, &summaries)).await?;
        }
        let older = before(now, keep);
        let until = older.clone();
        let days = self.read(move |connection| days_to_delete(connection, &until)).await?;
        for (day, plugins) in days {
            for plugin in plugins {
                self.delete_raw(&plugin, &day, &older, run).await?;
            }
        }
        Ok(())
    }

    /// Takes old rows of a plugin's day away, as long as the run has not done enough.
    async fn delete_raw(&self, plugin: &str, day: &str, older: &str, run: &mut JanitorRun) -> Result<(), QueueError> {
        while run.deleted < PER_RUN {
            let (plugin, day, older) = (plugin.to_owned(), day.to_owned(), older.to_owned());
            let gone = self.write(move |scope| delete_raw(scope, &plugin, &day, &older)).await?;
            run.deleted += gone;
            if gone < STEP {
                break;
            }
        }
        Ok(())
    }
}

/// `ran` is the last run of this process: a database that has no heartbeat does not tell of any.
fn is_due(connection: &Connection, ran: Option<DateTime<Utc>>, now: DateTime<Utc>) -> rusqlite::Result<bool> {
    for table in [stopwatch::TABLE, ROLLUP] {
        if !schema::has_table(connection, table)? {
            return Ok(false);
        }
    }
    let last = last_beat(connection)?.or(ran);
    // A run in the future is of a clock that was wrong.
    Ok(last.is_none_or(|last| now - last >= EVERY || last > now))
}

fn last_beat(connection: &Connection) -> rusqlite::Result<Option<DateTime<Utc>>> {
    if !schema::has_table(connection, HEARTBEAT)? {
        return Ok(None);
    }
    let last = connection
        .prepare_cached("SELECT last_run_at FROM janitor_heartbeat WHERE name = ?1")?
        .query_row([NAME], |row| text(row, 0))
        .optional()?;
    Ok(last.flatten().as_deref().and_then(parse_stored))
}

/// Whether a day has its summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Summed {
    Yes,
    No,
}

/// Days with raw rows recorded before `until`, with the plugins that ran on each. The index is walked from one plugin
/// and day to the next, so the price is that of the answer.
fn raw_days(connection: &Connection, until: &str, summed: Summed) -> rusqlite::Result<BTreeMap<String, Vec<String>>> {
    let done: BTreeSet<String> = connection
        .prepare_cached("SELECT DISTINCT day_utc FROM job_stopwatch_rollup_daily")?
        .query_map([], |row| required_text(row, 0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut next = connection
        .prepare_cached("SELECT min(recorded_at) FROM job_stopwatch WHERE plugin = ?1 AND recorded_at >= ?2")?;
    let mut days: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for plugin in all_plugins(connection)? {
        let mut from = String::new();
        while let Some(first) = next.query_row([&plugin, &from], |row| text(row, 0))?.filter(|first| **first < *until) {
            let day = day_of(&first).to_owned();
            from = end_of(&day);
            if done.contains(&day) == (summed == Summed::Yes) {
                days.entry(day).or_default().push(plugin.clone());
            }
        }
    }
    Ok(days)
}

/// Days that are summed up and have rows that are old. Late rows of such a day go with it: what is summed up stays as
/// it is. None without the index that leads to them.
fn days_to_delete(connection: &Connection, older: &str) -> rusqlite::Result<BTreeMap<String, Vec<String>>> {
    if !schema::has_index(connection, RAW_INDEX)? {
        debug!(index = RAW_INDEX, "old timings are not deleted: an index is missing; run \"ductile system migrate\"");
        return Ok(BTreeMap::new());
    }
    raw_days(connection, older, Summed::Yes)
}

/// Greater than every time of the day, and no greater than any of the next.
fn end_of(day: &str) -> String {
    format!("{day}~")
}

fn day_of(stored: &str) -> &str {
    stored.get(..10).unwrap_or(stored)
}

fn all_plugins(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut next = connection.prepare_cached("SELECT min(plugin) FROM job_stopwatch WHERE plugin > ?1")?;
    let mut plugins = Vec::new();
    let mut last = String::new();
    while let Some(plugin) = next.query_row([&last], |row| text(row, 0))? {
        plugins.push(plugin.clone());
        last = plugin;
    }
    Ok(plugins)
}

fn summaries(connection: &Connection, day: &str, plugins: &[String]) -> rusqlite::Result<Vec<Summary>> {
    let mut read = connection.prepare_cached(
        "SELECT ifnull(pipeline, ''), ifnull(step_id, ''), status, dur_ns FROM job_stopwatch
         WHERE plugin = ?1 AND recorded_at >= ?2 AND recorded_at < ?2 || '~'",
    )?;
    let mut summaries = Vec::new();
    for plugin in plugins {
        let mut groups: BTreeMap<Group, Vec<i64>> = BTreeMap::new();
        let mut rows = read.query([plugin.as_str(), day])?;
        while let Some(row) = rows.next()? {
            let group = (required_text(row, 0)?, required_text(row, 1)?, required_text(row, 2)?);
            groups.entry(group).or_default().push(row.get(3)?);
        }
        summaries.extend(groups.into_iter().filter_map(|(group, durations)| summary(plugin, group, durations)));
    }
    Ok(summaries)
}

/// `None` of nothing.
fn summary(plugin: &str, group: Group, mut durations: Vec<i64>) -> Option<Summary> {
    durations.sort_unstable();
    let (min, max) = (*durations.first()?, *durations.last()?);
    Some(Summary {
        plugin: plugin.to_owned(),
        group,
        count: i64::try_from(durations.len()).unwrap_or(i64::MAX),
        sum: durations.iter().fold(0, |sum: i64, duration| sum.saturating_add(*duration)),
        min,
        max,
        p50: percentile(&durations, 50),
        p90: percentile(&durations, 90),
        p99: percentile(&durations, 99),
    })
}

/// Nearest rank: the smallest value that at least `percent` of all are not above.
fn percentile(sorted: &[i64], percent: usize) -> i64 {
    let rank = (percent * sorted.len()).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// All rows of a day, or none. What is there stays as it is.
fn write_day(scope: &Scope<'_>, day: &str, summaries: &[Summary]) -> Result<usize, QueueError> {
    let mut insert = scope.connection().prepare_cached(
        "INSERT OR IGNORE INTO job_stopwatch_rollup_daily
             (plugin, pipeline, step_id, status, day_utc, sample_count, sum_dur_ns, min_dur_ns, max_dur_ns, p50_dur_ns,
              p90_dur_ns, p99_dur_ns, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?;
    let mut written = 0;
    for row in summaries {
        let (pipeline, step, status) = &row.group;
        written += insert.execute(params![
            row.plugin,
            pipeline,
            step,
            status,
            day,
            row.count,
            row.sum,
            row.min,
            row.max,
            row.p50,
            row.p90,
            row.p99,
            scope.now_text(),
        ])?;
    }
    Ok(written)
}

const DELETE_RAW: &str = "DELETE FROM job_stopwatch WHERE id IN (
     SELECT id FROM job_stopwatch INDEXED BY job_stopwatch_plugin_recorded_idx
     WHERE plugin = ?1 AND recorded_at >= ?2 AND recorded_at < ?3 ORDER BY recorded_at LIMIT ?4)";

fn delete_raw(scope: &Scope<'_>, plugin: &str, day: &str, older: &str) -> Result<usize, QueueError> {
    let step = i64::try_from(STEP).unwrap_or(i64::MAX);
    let until = end_of(day);
    let until = older.min(&until);
    Ok(scope.connection().prepare_cached(DELETE_RAW)?.execute(params![plugin, day, until, step])?)
}

fn beat(scope: &Scope<'_>, run: JanitorRun, error: Option<&str>) -> Result<(), QueueError> {
    soft(HEARTBEAT, || {
        scope
            .connection()
            .prepare_cached(
                "INSERT INTO janitor_heartbeat (name, last_run_at, last_status, last_error, rows_rolled_up, rows_deleted)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (name) DO UPDATE SET
                     last_run_at = excluded.last_run_at, last_status = excluded.last_status,
                     last_error = excluded.last_error, rows_rolled_up = excluded.rows_rolled_up,
                     rows_deleted = excluded.rows_deleted",
            )?
            .execute(params![
                NAME,
                scope.now_text(),
                if error.is_some() { "err" } else { "ok" },
                error.unwrap_or_default(),
                i64::try_from(run.rolled_up).unwrap_or(i64::MAX),
                i64::try_from(run.deleted).unwrap_or(i64::MAX),
            ])
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let ten: Vec<i64> = (1..=10).collect();
        assert_eq!([50, 90, 99].map(|percent| percentile(&ten, percent)), [5, 9, 10]);
        assert_eq!([50, 90, 99].map(|percent| percentile(&[7], percent)), [7, 7, 7]);
    }

    proptest! {
        #[test]
        fn a_percentile_is_a_value_that_enough_are_not_above(mut values in prop::collection::vec(any::<i64>(), 1..300), percent in 1usize..=100) {
            values.sort_unstable();
            let found = percentile(&values, percent);
            let not_above = values.iter().filter(|value| **value <= found).count();
            let below = values.iter().filter(|value| **value < found).count();
            prop_assert!(not_above * 100 >= percent * values.len());
            prop_assert!(below * 100 < percent * values.len());
        }
    }
}
