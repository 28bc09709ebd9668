//! Where a job comes from and what it caused: its chain of contexts, its children, its retries by hand.

use std::collections::{BTreeMap, BTreeSet};

use ductile_model::JobId;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use crate::JobView;
use crate::report::{CausedJob, ContextRow, JobRef, Retries};
use crate::rows::{required_text, text};

/// Contexts of a chain at most: a damaged row must not make a command run for ever.
const LONGEST_CHAIN: usize = 10_000;

/// Jobs of a tree at most: more than anybody reads.
const LARGEST_TREE: usize = 1000;

/// Values that one statement takes at most.
const LONGEST_LIST: usize = 500;

/// What the event of a job that was retried by hand begins with: `retry:<original>/<job>`.
const RETRY: &str = "retry:";

/// The retries of a job: they have its parent, and their event names it. The index of events leads to them. `0` comes
/// right after `/`.
const RETRIES: &str = "SELECT id FROM job_queue INDEXED BY job_queue_event_source_idx
     WHERE parent_job_id IS ?1 AND source_event_id IS NOT NULL
       AND source_event_id >= 'retry:' || ?2 || '/' AND source_event_id < 'retry:' || ?2 || '0'
     ORDER BY created_at, id";

/// Condition on a job `q`: none of these is there.
pub(crate) const NOT_RETRIED: &str = "NOT EXISTS (SELECT 1 FROM job_queue r INDEXED BY job_queue_event_source_idx
     WHERE r.parent_job_id IS q.parent_job_id AND r.source_event_id IS NOT NULL
       AND r.source_event_id >= 'retry:' || q.id || '/' AND r.source_event_id < 'retry:' || q.id || '0')";

/// The event of a job that retries another.
pub(crate) fn retry_event(original: &JobId, retry: &JobId) -> String {
    format!("{RETRY}{original}/{retry}")
}

/// How a job stands to others by retries.
pub(crate) fn retries(connection: &Connection, job: &JobView) -> rusqlite::Result<Retries> {
    let by = retries_of(connection, &job.id, job.parent_job_id.as_ref().map(JobId::as_str))?;
    Ok(Retries { of: retry_of(job.source_event_id.as_deref()), by })
}

/// The retries of a job with this parent, oldest first.
pub(crate) fn retries_of(connection: &Connection, id: &JobId, parent: Option<&str>) -> rusqlite::Result<Vec<JobId>> {
    let mut statement = connection.prepare_cached(RETRIES)?;
    let rows = statement.query_map(params![parent, id.as_str()], |row| required_text(row, 0).map(JobId::from))?;
    rows.collect()
}

fn retry_of(source_event: Option<&str>) -> Option<JobId> {
    let (original, _) = source_event?.strip_prefix(RETRY)?.rsplit_once('/')?;
    Some(JobId::from(original))
}

/// Jobs that a job produced, oldest first.
pub(crate) fn children(connection: &Connection, id: &JobId) -> rusqlite::Result<Vec<JobRef>> {
    Ok(children_of(connection, std::slice::from_ref(id))?.into_iter().map(|(_, child)| child).collect())
}

/// Everything that a job caused, hooks included, each behind its parent, at most [`LARGEST_TREE`].
pub(crate) fn caused(connection: &Connection, id: &JobId) -> rusqlite::Result<Vec<CausedJob>> {
    let mut known = BTreeSet::from([id.clone()]);
    let mut all: Vec<CausedJob> = Vec::new();
    let mut level = vec![id.clone()];
    while !level.is_empty() {
        let mut children = children_of(connection, &level)?;
        // A damaged row may name a descendant as its parent.
        children.retain(|(_, child)| known.insert(child.id.clone()));
        children.truncate(LARGEST_TREE - all.len());
        level = children.iter().map(|(_, child)| child.id.clone()).collect();
        for (parent, job) in children {
            all.push(CausedJob { step_id: step_of(connection, &job.id)?, job, parent });
        }
    }
    Ok(all)
}

/// Jobs that these produced, with the parent of each; those of one parent oldest first.
fn children_of(connection: &Connection, parents: &[JobId]) -> rusqlite::Result<Vec<(JobId, JobRef)>> {
    let mut found = logged_children(connection, parents)?;
    for parent in parents {
        let queued = job_refs(
            connection,
            "SELECT id, plugin, command, status FROM job_queue WHERE parent_job_id = ?1 ORDER BY created_at, id",
            &[parent.as_str()],
        )?;
        let ids: BTreeSet<&JobId> = queued.iter().map(|child| &child.id).collect();
        found.retain(|(_, child)| !ids.contains(&child.id));
        found.extend(queued.iter().map(|child| (parent.clone(), child.clone())));
    }
    Ok(found)
}

/// Children of pruned jobs may be pruned too. Nothing in the log leads from a parent to them, but they ended after it
/// was queued: one search along time finds those of all.
fn logged_children(connection: &Connection, parents: &[JobId]) -> rusqlite::Result<Vec<(JobId, JobRef)>> {
    let mut pruned = Vec::new();
    for parent in parents {
        pruned.extend(queued_at_of_pruned(connection, parent)?.map(|at| (at, parent.as_str())));
    }
    let Some(since) = pruned.iter().map(|(at, _)| at.as_str()).min() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for parents in pruned.chunks(LONGEST_LIST) {
        let sql = format!(
            "SELECT job_id, plugin, command, status, parent_job_id FROM job_log l
             WHERE completed_at >= ?1 AND parent_job_id IN ({}) AND job_id IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM job_log later WHERE later.job_id = l.job_id AND later.attempt > l.attempt)
             ORDER BY created_at, job_id",
            numbered(parents.len())
        );
        let mut statement = connection.prepare(&sql)?;
        let values = std::iter::once(since).chain(parents.iter().map(|(_, id)| *id));
        let rows = statement
            .query_map(params_from_iter(values), |row| Ok((JobId::from(required_text(row, 4)?), job_ref(row)?)))?;
        for row in rows {
            found.push(row?);
        }
    }
    Ok(found)
}

/// When a job was queued that is only in the log; `None` for one that is still in the queue.
fn queued_at_of_pruned(connection: &Connection, id: &JobId) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached(
            "SELECT replace(created_at, 'T', ' ') FROM job_log
             WHERE job_id = ?1 AND NOT EXISTS (SELECT 1 FROM job_queue WHERE id = ?1) LIMIT 1",
        )?
        .query_row([id.as_str()], |row| required_text(row, 0))
        .optional()
}

/// Places for so many values behind the first one of a statement.
fn numbered(count: usize) -> String {
    (2..count + 2).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ")
}

fn step_of(connection: &Connection, id: &JobId) -> rusqlite::Result<String> {
    let step = connection
        .prepare_cached(
            "SELECT c.step_id FROM event_context c
             WHERE c.id = coalesce((SELECT event_context_id FROM job_queue WHERE id = ?1),
                                   (SELECT event_context_id FROM job_log WHERE job_id = ?1 LIMIT 1))",
        )?
        .query_row([id.as_str()], |row| required_text(row, 0))
        .optional()?;
    Ok(step.unwrap_or_default())
}

/// The chain of contexts from its root to this one; empty when the context is gone.
pub(crate) fn contexts(connection: &Connection, leaf: &str) -> rusqlite::Result<Vec<ContextRow>> {
    let mut chain = Vec::new();
    let mut next = Some(leaf.to_owned());
    let mut since = None;
    while let Some(id) = next.take().filter(|_| chain.len() < LONGEST_CHAIN) {
        let Some((mut context, created)) = context(connection, &id)? else { break };
        context.job = queued_job_of(connection, &id)?;
        next.clone_from(&context.parent_id);
        chain.push(context);
        since = Some(created);
    }
    chain.reverse();
    add_logged_jobs(connection, &mut chain, &since.unwrap_or_default())?;
    Ok(chain)
}

fn context(connection: &Connection, id: &str) -> rusqlite::Result<Option<(ContextRow, String)>> {
    connection
        .prepare_cached(
            "SELECT id, parent_id, pipeline_name, step_id, accumulated_json, replace(created_at, 'T', ' ')
             FROM event_context WHERE id = ?1",
        )?
        .query_row([id], |row| {
            let context = ContextRow {
                id: required_text(row, 0)?,
                parent_id: text(row, 1)?.filter(|parent| !parent.is_empty()),
                pipeline: required_text(row, 2)?,
                step_id: required_text(row, 3)?,
                baggage: required_text(row, 4)?,
                job: None,
            };
            Ok((context, required_text(row, 5)?))
        })
        .optional()
}

/// The oldest job of a context that is in the queue, unless it only retries one that is not there any more.
fn queued_job_of(connection: &Connection, context: &str) -> rusqlite::Result<Option<JobRef>> {
    let oldest = connection
        .prepare_cached(
            "SELECT id, plugin, command, status, source_event_id FROM job_queue WHERE event_context_id = ?1
             ORDER BY created_at, id LIMIT 1",
        )?
        .query_row([context], |row| Ok((job_ref(row)?, text(row, 4)?)))
        .optional()?;
    Ok(oldest.filter(|(_, event)| retry_of(event.as_deref()).is_none()).map(|(job, _)| job))
}

/// Pruned jobs are found in the log, which has no index by context: one search along time finds all of a chain.
fn add_logged_jobs(connection: &Connection, chain: &mut [ContextRow], since: &str) -> rusqlite::Result<()> {
    let missing: Vec<String> =
        chain.iter().filter(|context| context.job.is_none()).map(|context| context.id.clone()).collect();
    let mut found: BTreeMap<String, JobRef> = BTreeMap::new();
    for ids in missing.chunks(LONGEST_LIST) {
        let sql = format!(
            "SELECT job_id, plugin, command, status, event_context_id FROM job_log
             WHERE completed_at >= ?1 AND event_context_id IN ({}) AND job_id IS NOT NULL
             ORDER BY created_at, job_id, attempt DESC",
            numbered(ids.len())
        );
        let mut statement = connection.prepare(&sql)?;
        let values = std::iter::once(since).chain(ids.iter().map(String::as_str));
        let mut rows = statement.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let job = job_ref(row)?;
            found.entry(required_text(row, 4)?).or_insert(job);
        }
    }
    for context in chain.iter_mut().filter(|context| context.job.is_none()) {
        context.job = match found.remove(&context.id) {
            Some(job) => Some(job),
            // Of a retry the original is gone altogether.
            None => oldest_queued(connection, &context.id)?,
        };
    }
    Ok(())
}

fn oldest_queued(connection: &Connection, context: &str) -> rusqlite::Result<Option<JobRef>> {
    let mut jobs = job_refs(
        connection,
        "SELECT id, plugin, command, status FROM job_queue WHERE event_context_id = ?1 ORDER BY created_at, id LIMIT 1",
        &[context],
    )?;
    Ok(jobs.pop())
}

fn job_refs(connection: &Connection, sql: &str, values: &[&str]) -> rusqlite::Result<Vec<JobRef>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params_from_iter(values), job_ref)?;
    rows.collect()
}

fn job_ref(row: &Row<'_>) -> rusqlite::Result<JobRef> {
    Ok(JobRef {
        id: JobId::from(required_text(row, 0)?),
        plugin: required_text(row, 1)?,
        command: required_text(row, 2)?,
        status: required_text(row, 3)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_event_of_a_retry_names_the_original() {
        assert_eq!(retry_of(Some("retry:one/two")), Some(JobId::from("one")));
        for event in [None, Some("one"), Some("retry:one"), Some("event/pipe/step")] {
            assert_eq!(retry_of(event), None, "{event:?}");
        }
    }

    #[test]
    fn the_retries_of_a_job_are_found_along_the_index() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(crate::schema::SCHEMA).unwrap();
        for parent in [None, Some("p")] {
            let plan: String = connection
                .query_row(&format!("EXPLAIN QUERY PLAN {RETRIES}"), params![parent, "a"], |row| row.get(3))
                .unwrap();
            assert!(plan.starts_with("SEARCH job_queue USING INDEX job_queue_event_source_idx"), "{plan}");
            assert!(plan.contains("(parent_job_id=? AND source_event_id>? AND source_event_id<?)"), "{plan}");
        }
    }
}
