//! Every statement that the gateway's own connections run, and the plan that SQLite makes for it.

use std::collections::BTreeSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use rusqlite::trace::{TraceEvent, TraceEventCodes};

use super::*;
use crate::{
    CancelTarget, InspectPart, LogFilter, Reader, Retention, RetryFilter, RetryRequest, RetryScope, RetrySelection,
};

static SEEN: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(Mutex::default);

/// Part of the path of the databases whose statements are remembered; other tests run statements of their own.
const MARK: &str = "statements-";

/// Remembers what this connection runs.
pub(crate) fn watch(connection: &Connection) {
    if !connection.path().is_some_and(|path| path.contains(MARK)) {
        return;
    }
    connection.trace_v2(
        TraceEventCodes::SQLITE_TRACE_STMT,
        Some(|event| {
            if let TraceEvent::Stmt(statement, _) = event {
                SEEN.lock().unwrap_or_else(PoisonError::into_inner).insert(statement.sql().into());
            }
        }),
    );
}

/// Tables that may have a million rows.
const LARGE: [&str; 7] =
    ["job_queue", "job_log", "job_transitions", "job_attempts", "job_stopwatch", "event_context", "plugin_facts"];

/// Statements that may read a large table whole, each with its reason.
const WHOLE: [(&str, &str); 4] = [
    ("SELECT count(*) FROM job_queue q", "the total of a list that is not filtered, or by what has no index"),
    ("SELECT count(*) FROM job_log", "the same of the log"),
    ("SELECT rowid FROM job_queue WHERE substr(created_at, 11, 1) = 'T'", "once at a start, along indexes"),
    ("PRAGMA", "no statement on tables"),
];

fn fill(connection: &Connection) {
    connection
        .execute_batch(
            "BEGIN;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO job_queue (id, plugin, command, status, submitted_by, dedupe_key, created_at, completed_at, parent_job_id)
             SELECT 'old-' || i, 'p' || i % 7, 'poll', CASE i % 50 WHEN 0 THEN 'failed' ELSE 'succeeded' END, 'api', 'k' || i,
                    printf('2026-01-01 %02d:%02d:%02d.000000000Z', i / 3600, i / 60 % 60, i % 60),
                    printf('2026-01-01 %02d:%02d:%02d.000000000Z', i / 3600, i / 60 % 60, i % 60), 'old-' || (i - 1) FROM n;
             INSERT INTO job_log (id, job_id, plugin, command, status, attempt, submitted_by, created_at, completed_at)
             SELECT id || '-1', id, plugin, command, status, 1, submitted_by, created_at, completed_at FROM job_queue;
             INSERT INTO job_transitions (job_id, to_status, created_at) SELECT id, status, completed_at FROM job_queue;
             INSERT INTO job_attempts (job_id, attempt, created_at) SELECT id, 1, completed_at FROM job_queue;
             COMMIT; ANALYZE;",
        )
        .unwrap();
}

/// Everything that a gateway does all day.
async fn live(site: &Site) {
    let mut claims = site.activate(policy(4)).await;
    let id = site.enqueue(keyed("echo", "k")).await;
    let waiting = site.queue.wait_for_tree(&id, Duration::ZERO);
    waiting.await.unwrap();
    let claimed = claim(&mut claims).await;
    site.finish(&claimed, with_state(r#"{"n":1}"#, &["fact"])).await;
    let routed =
        NewJob { parent_job_id: Some(id.clone()), source_event_id: Some("e".into()), ..keyed("echo", "other") };
    site.enqueue(NewJob { submitted_by: Producer::Route, ..routed }).await;
    let claimed = claim(&mut claims).await;
    site.finish(&claimed, failed(FailureReason::PluginError)).await;
    site.advance(60);
    schedules::day(site, &mut claims).await;
    while let Ok(Some(claimed)) = tokio::time::timeout(Duration::ZERO, claims.recv()).await {
        site.finish(&claimed, failed(FailureReason::ExitCode78)).await;
    }
    let target = CancelTarget::Scheduled { plugin: "poller".into(), command: "poll".into() };
    site.store.cancel(target, "x".into()).await.unwrap();
    let cancelled = site.enqueue(job("echo")).await;
    site.store.cancel(CancelTarget::Tree(cancelled), "x".into()).await.unwrap();
    let request = RetryRequest {
        selection: RetrySelection::Matching(RetryFilter { plugin: Some("p1".into()), ..RetryFilter::default() }),
        scope: RetryScope::Unresolved,
        per_second: 1,
        limit: 3,
        attempts: Arc::new(|_, _| Some(1)),
    };
    site.store.retry(request).await.unwrap();
    schedules::looks(site).await;
    read(site, &id).await;
    let day = Duration::from_secs(3600);
    let keep = Retention {
        job_queue: day,
        dedupe_ttl: day,
        job_log: day,
        job_transitions: day,
        job_attempts: day,
        breaker_transitions: day,
    };
    site.advance(40 * 24 * 3600);
    site.store.prune(keep).await;
    site.store.run_janitor(site.clock.now(), day).await.unwrap();
}

async fn read(site: &Site, id: &JobId) {
    use crate::JobFilter;
    site.queue.job(id).await.unwrap();
    site.queue.attempts(id).await.unwrap();
    site.queue.tree(id).await.unwrap();
    site.queue.circuits_open().await.unwrap();
    let list = JobFilter { limit: 50, ..JobFilter::default() };
    for filter in [
        list.clone(),
        JobFilter { plugin: Some("p1".into()), ..list.clone() },
        JobFilter { plugin: Some("p1".into()), command: Some("poll".into()), ..list.clone() },
        JobFilter { status: Some(JobStatus::Failed), ..list.clone() },
        JobFilter { after: Some(("2026-01-02 00:00:00.000000000Z".into(), "x".into())), ..list.clone() },
        JobFilter { from: Some(site.clock.now()), to: Some(site.clock.now()), ..list },
    ] {
        site.queue.jobs(filter).await.unwrap();
    }
    let reader = Reader::open(&site.path()).unwrap();
    let logs = LogFilter { limit: 50, ..LogFilter::default() };
    for filter in [
        logs.clone(),
        LogFilter { job_id: Some(id.to_string()), ..logs.clone() },
        LogFilter { plugin: Some("p1".into()), ..logs.clone() },
        LogFilter { status: Some(JobStatus::Failed), ..logs.clone() },
        LogFilter { from: Some(site.clock.now()), ..logs },
    ] {
        reader.logs(&filter).unwrap();
    }
    reader.inspect(id, &[InspectPart::Log, InspectPart::Caused]).unwrap();
}

fn plan_of(connection: &Connection, sql: &str) -> Option<Vec<String>> {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).ok()?;
    let rows = statement.query_map([], |row| row.get::<_, String>(3)).ok()?;
    rows.collect::<rusqlite::Result<_>>().ok()
}

/// Whether a plan reads every row of a large table. A walk along an index ends when its page is full, unless the rows
/// must be sorted first.
fn reads_whole(sql: &str, plan: &[String]) -> bool {
    let sorts = plan.iter().any(|step| step == "USE TEMP B-TREE FOR ORDER BY");
    plan.iter().any(|step| {
        let mut words = step.split(' ');
        let large = words.next() == Some("SCAN") && words.next().is_some_and(|n| LARGE.contains(&n) || n.len() == 1);
        large && !(step.contains(" INDEX ") && sql.contains("LIMIT") && !sorts)
    })
}

#[tokio::test]
async fn no_statement_of_the_gateway_reads_a_large_table_whole() {
    let directory = tempfile::Builder::new().prefix(MARK).tempdir().unwrap();
    let site = Site::in_directory(directory).await;
    fill(&site.other());
    let site = site.reopen().await;
    site.store.recover(None).await.unwrap();
    live(&site).await;
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for part in ["INSERT INTO job_attempts", "FROM (SELECT 1 FROM job_queue INDEXED BY", "UPDATE schedule_entries"] {
        assert!(seen.iter().any(|sql| sql.contains(part)), "statements are seen: {seen:#?}");
    }
    let mut wrong = wrong_plans(&site.other(), &seen);
    // A young database has no statistics: the plans must not depend on them.
    wrong.extend(wrong_plans(&Site::new().await.other(), &seen));
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn wrong_plans(connection: &Connection, seen: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for sql in seen {
        if WHOLE.iter().any(|(start, _)| sql.trim_start().starts_with(start)) {
            continue;
        }
        let Some(plan) = plan_of(connection, sql) else { continue };
        if reads_whole(sql, &plan) {
            wrong.push(format!("{sql}\n    {}", plan.join("\n    ")));
        }
    }
    wrong
}
