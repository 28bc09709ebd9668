//! What is let go of, what stays, and what the file gives back.

use super::*;
use crate::{JanitorRun, ProcessEnding, Retention, Stopwatch};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn retention() -> Retention {
    Retention {
        job_queue: Duration::from_secs(DAY),
        dedupe_ttl: Duration::from_secs(DAY),
        job_log: Duration::from_secs(30 * DAY),
        job_transitions: Duration::from_secs(30 * DAY),
        job_attempts: Duration::from_secs(30 * DAY),
        breaker_transitions: Duration::from_secs(90 * DAY),
    }
}

async fn ended(site: &Site, claims: &mut UnboundedReceiver<ClaimedJob>, new: NewJob, outcome: AttemptOutcome) -> JobId {
    let id = site.enqueue(new).await;
    let claimed = claim(claims).await;
    site.finish(&claimed, outcome).await;
    id
}

fn ids(site: &Site) -> Vec<String> {
    site.column("SELECT id FROM job_queue ORDER BY rowid")
}

#[tokio::test]
async fn finished_jobs_go_by_their_end_and_active_ones_never() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(2)).await;
    let mut gone = Vec::new();
    for outcome in [succeeded(), failed(FailureReason::ExitCode78), AttemptOutcome::Skipped { reason: "no".into() }] {
        gone.push(ended(&site, &mut claims, job("echo"), outcome).await);
    }
    let waiting_long = site.enqueue(job("echo")).await;
    let running_long = claim(&mut claims).await;
    assert_eq!(running_long.id, waiting_long);
    let delayed = site.enqueue(job("slow")).await;
    let claimed = claim(&mut claims).await;
    site.finish(&claimed, failed(FailureReason::PluginError)).await;
    site.other()
        .execute(
            "UPDATE job_queue SET next_retry_at = '2027-01-01 00:00:00.000000000Z' WHERE id = ?1",
            [delayed.as_str()],
        )
        .unwrap();
    site.advance(DAY as i64);
    assert!(site.store.prune(retention()).await.is_empty(), "a day old is not yet older than a day");
    site.advance(1);
    let fresh = ended(&site, &mut claims, job("echo"), succeeded()).await;
    assert_eq!(site.store.prune(retention()).await, [("job_queue", 3)]);
    assert_eq!(ids(&site), [waiting_long.as_str(), delayed.as_str(), fresh.as_str()]);
    // History outlives the queue, and tells of a job that has left it.
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_log"), 5);
    let pruned = site.queue.job(&gone[0]).await.unwrap().unwrap();
    assert!(pruned.from_log);
    assert_eq!(pruned.status, JobStatus::Succeeded);
}

#[tokio::test]
async fn a_job_stays_while_something_it_caused_is_under_way_and_a_keyed_success_for_the_whole_window() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    let parent = ended(&site, &mut claims, job("echo"), succeeded()).await;
    let child = site.enqueue(NewJob { parent_job_id: Some(parent.clone()), ..job("echo") }).await;
    let child_claim = claim(&mut claims).await;
    site.advance(2 * DAY as i64);
    assert!(site.store.prune(retention()).await.is_empty());
    site.finish(&child_claim, succeeded()).await;
    assert_eq!(site.store.prune(retention()).await, [("job_queue", 1)]);
    assert_eq!(ids(&site), [child.as_str()]);

    let success = ended(&site, &mut claims, keyed("echo", "k"), succeeded()).await;
    ended(&site, &mut claims, keyed("echo", "other"), failed(FailureReason::ExitCode78)).await;
    let longer = Retention { dedupe_ttl: Duration::from_secs(3 * DAY), ..retention() };
    site.advance(2 * DAY as i64);
    assert_eq!(site.store.prune(longer).await, [("job_queue", 2)]);
    assert_eq!(ids(&site), [success.as_str()]);
    site.advance(DAY as i64);
    site.advance(1);
    assert_eq!(site.store.prune(longer).await, [("job_queue", 1)]);
}

#[tokio::test]
async fn facts_and_logs_go_by_their_age_but_those_of_active_jobs_stay() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    ended(&site, &mut claims, job("echo"), succeeded()).await;
    let active = site.enqueue(job("echo")).await;
    claim(&mut claims).await;
    site.other()
        .execute_batch(
            "INSERT INTO circuit_breaker_transitions VALUES ('t', 'p', 'poll', NULL, 'open', 3, 'x', NULL, '2025-10-01 00:00:00.000000000Z');
             INSERT INTO ingress_seen VALUES ('w', 'h', NULL, NULL, '2026-01-01 00:00:00.000000000Z', '2026-01-03 00:00:00.000000000Z');
             INSERT INTO ingress_seen VALUES ('w', 'i', NULL, NULL, '2026-01-01 00:00:00.000000000Z', '2027-01-03 00:00:00.000000000Z');",
        )
        .unwrap();
    site.advance(31 * DAY as i64);
    let mut pruned = site.store.prune(retention()).await;
    pruned.sort_unstable();
    assert_eq!(
        pruned,
        [
            ("circuit_breaker_transitions", 1),
            ("ingress_seen", 1),
            ("job_attempts", 1),
            ("job_log", 1),
            ("job_queue", 1),
            ("job_transitions", 3),
        ]
    );
    assert_eq!(site.column("SELECT DISTINCT job_id FROM job_transitions"), [active.as_str()]);
    assert_eq!(site.column("SELECT job_id FROM job_attempts"), [active.as_str()]);
}

#[tokio::test]
async fn a_round_takes_five_thousand_rows_of_a_table_and_the_next_one_goes_on() {
    let site = Site::new().await;
    site.other()
        .execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000)
             INSERT INTO job_log (id, job_id, plugin, command, status, attempt, submitted_by, created_at, completed_at)
             SELECT 'j' || i || '-1', 'j' || i, 'p', 'poll', 'succeeded', 1, 'api',
                    '2025-01-01 00:00:00.000000000Z', '2025-01-01 00:00:01.000000000Z' FROM n",
        )
        .unwrap();
    assert_eq!(site.store.prune(retention()).await, [("job_log", 5000)]);
    assert_eq!(site.store.prune(retention()).await, [("job_log", 1000)]);
    assert!(site.store.prune(retention()).await.is_empty());
}

#[tokio::test]
async fn contexts_go_leaf_first_and_stay_as_long_as_anything_refers_to_them_or_to_what_grew_from_them() {
    let site = Site::new().await;
    let old = "2025-01-01 00:00:00.000000000Z";
    let context = |id: &str, parent: &str| {
        let parent = if parent.is_empty() { "NULL".to_owned() } else { format!("'{parent}'") };
        let sql = format!("INSERT INTO event_context VALUES ('{id}', {parent}, 'p', 's', '{{}}', '{old}')");
        site.other().execute(&sql, []).unwrap();
    };
    for (id, parent) in
        [("a", ""), ("a1", "a"), ("a2", "a1"), ("b", ""), ("b1", "b"), ("b2", "b1"), ("c", ""), ("d", "")]
    {
        context(id, parent);
    }
    site.enqueue(NewJob { event_context_id: Some("b1".into()), ..job("echo") }).await;
    site.other()
        .execute(
            "INSERT INTO job_log (id, job_id, plugin, command, status, attempt, submitted_by, created_at, completed_at, event_context_id)
             VALUES ('x-1', 'x', 'p', 'poll', 'dead', 1, 'api', '2026-01-02 00:00:00.000000000Z', '2026-01-02 00:00:00.000000000Z', 'c')",
            [],
        )
        .unwrap();
    // The ages are equal, so that leaves are found by what they are; each round gets to at least the next layer.
    let mut rounds = 0;
    while !site.store.prune(retention()).await.is_empty() {
        rounds += 1;
    }
    assert!((1..=3).contains(&rounds), "{rounds}");
    assert_eq!(site.column("SELECT id FROM event_context ORDER BY id"), ["b", "b1", "c"]);
}

#[tokio::test]
async fn a_database_without_the_additive_tables_is_pruned_all_the_same() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    site.other()
        .execute_batch("DROP TABLE ingress_seen; DROP TABLE job_stopwatch; DROP TABLE janitor_heartbeat; DROP INDEX event_context_parent_idx")
        .unwrap();
    let id = site.enqueue(job("echo")).await;
    let claimed = claim(&mut claims).await;
    let end = Finalise { stopwatch: Some(watch(5, ProcessEnding::Ok)), ..site.end_of(&claimed, succeeded()) };
    assert_eq!(site.store.finalise(end).await.unwrap(), stored(JobStatus::Succeeded));
    site.advance(2 * DAY as i64);
    assert_eq!(site.store.prune(retention()).await, [("job_queue", 1)]);
    assert_eq!(site.store.run_janitor(site.clock.now(), retention().job_log).await.unwrap(), None);
    assert!(site.queue.job(&id).await.unwrap().is_some());
}

#[tokio::test]
async fn without_its_optional_indexes_a_step_is_left_out_and_the_others_go_on() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    ended(&site, &mut claims, job("echo"), succeeded()).await;
    site.other()
        .execute_batch(
            "INSERT INTO event_context VALUES ('c', NULL, 'p', 's', '{}', '2025-01-01 00:00:00.000000000Z');
             INSERT INTO ingress_seen VALUES ('w', 'h', NULL, NULL, '2025-01-01 00:00:00.000000000Z', '2025-01-03 00:00:00.000000000Z');
             INSERT INTO job_stopwatch (job_id, plugin, attempt, enter_wall_ns, exit_wall_ns, dur_ns, runtime_pre_ns, runtime_post_ns, status, recorded_at)
             VALUES ('j', 'p', 1, 0, 0, 1, 0, 0, 'ok', '2025-01-01 00:00:00.000000000Z');",
        )
        .unwrap();
    site.advance(40 * DAY as i64);
    let made_by_hand: Vec<(String, String)> = [
        "job_queue_parent_idx",
        "event_context_created_at_idx",
        "ingress_seen_expires_idx",
        "job_stopwatch_plugin_recorded_idx",
    ]
    .map(|name| (name.to_owned(), site.one(&format!("SELECT sql FROM sqlite_master WHERE name = '{name}'"))))
    .into();
    for (name, _) in &made_by_hand {
        site.other().execute(&format!("DROP INDEX {name}"), []).unwrap();
    }
    let mut lost: Vec<_> = crate::schema_gaps(&site.path()).unwrap().into_iter().map(|gap| gap.lost).collect();
    lost.sort_unstable();
    let stay = ["contexts", "finished jobs", "marks of events that were seen", "old timings"];
    assert!(lost.len() == 4 && lost.iter().zip(stay).all(|(lost, stays)| lost.starts_with(stays)), "{lost:?}");
    assert_eq!(
        site.store.prune(retention()).await,
        [("job_log", 1), ("job_transitions", 3), ("job_attempts", 1)],
        "these have what they need"
    );
    assert_eq!(janitor(&site).await, Some(JanitorRun { rolled_up: 1, deleted: 0 }));
    for (_, sql) in &made_by_hand {
        site.other().execute(sql, []).unwrap();
    }
    assert_eq!(site.store.prune(retention()).await, [("job_queue", 1), ("ingress_seen", 1), ("event_context", 1)]);
    site.advance(HOUR as i64);
    assert_eq!(janitor(&site).await, Some(JanitorRun { rolled_up: 0, deleted: 1 }));
}

#[tokio::test]
async fn a_context_stays_as_long_as_jobs_do_that_may_be_queued_again() {
    let site = Site::new().await;
    site.other()
        .execute("INSERT INTO event_context VALUES ('c', NULL, 'p', 's', '{}', '2026-01-01 00:00:00.000000000Z')", [])
        .unwrap();
    let short =
        Retention { job_log: Duration::from_secs(HOUR), job_queue: Duration::from_secs(3 * DAY), ..retention() };
    assert!(site.store.prune(short).await.is_empty());
    site.advance(2 * DAY as i64);
    assert_eq!(site.store.prune(short).await, [("event_context", 1)]);
}

fn watch(millis: u64, ending: ProcessEnding) -> Stopwatch {
    let at = parse_stored("2026-01-02 03:04:05Z").unwrap();
    Stopwatch {
        entered_at: at,
        exited_at: at + TimeDelta::milliseconds(i64::try_from(millis).unwrap()),
        process: Duration::from_millis(millis),
        before: Duration::from_micros(10),
        after: Duration::from_micros(20),
        ending,
        spans: r#"[{"name":"x"}]"#.into(),
    }
}

#[tokio::test]
async fn each_attempt_with_a_process_leaves_its_timing_also_one_that_came_too_late() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    site.other()
        .execute(
            "INSERT INTO event_context VALUES ('c', NULL, 'nightly', 'save',
                 '{\"ductile\":{\"pipeline_instance_id\":\"i-1\"}}', '2026-01-02 03:04:05.000000000Z')",
            [],
        )
        .unwrap();
    site.enqueue(NewJob { event_context_id: Some("c".into()), ..job("echo") }).await;
    let claimed = claim(&mut claims).await;
    let failed = failed(FailureReason::Timeout);
    let end = Finalise { stopwatch: Some(watch(5, ProcessEnding::TimedOut)), ..site.end_of(&claimed, failed) };
    site.store.finalise(end.clone()).await.unwrap();
    assert_eq!(site.store.finalise(end).await.unwrap(), Finalised::Stale);
    assert_eq!(
        site.column(
            "SELECT plugin || ' ' || pipeline || ' ' || step_id || ' ' || pipeline_instance_id || ' ' || attempt || ' ' || dur_ns || ' ' ||
                    runtime_pre_ns || ' ' || runtime_post_ns || ' ' || status || ' ' || subs_json || ' ' || (exit_wall_ns - enter_wall_ns)
             FROM job_stopwatch"
        ),
        ["echo nightly save i-1 1 5000000 10000 20000 timeout [{\"name\":\"x\"}] 5000000"; 2]
    );
}

async fn janitor(site: &Site) -> Option<JanitorRun> {
    site.store.run_janitor(site.clock.now(), retention().job_log).await.unwrap()
}

#[tokio::test]
async fn finished_days_are_summed_up_once_and_old_raw_rows_go_after_that() {
    let site = Site::new().await;
    let mut claims = site.activate(policy(1)).await;
    for (plugin, millis) in [("a", 10), ("a", 30), ("a", 20), ("b", 7)] {
        site.enqueue(job(plugin)).await;
        let claimed = claim(&mut claims).await;
        let end = Finalise { stopwatch: Some(watch(millis, ProcessEnding::Ok)), ..site.end_of(&claimed, succeeded()) };
        site.store.finalise(end).await.unwrap();
    }
    assert_eq!(janitor(&site).await, Some(JanitorRun::default()), "today is not over");
    assert_eq!(janitor(&site).await, None, "once an hour");
    site.advance(DAY as i64);
    assert_eq!(janitor(&site).await, Some(JanitorRun { rolled_up: 2, deleted: 0 }));
    assert_eq!(
        site.column(
            "SELECT printf('%s %s%s%s %s %d %d %d %d %d %d %d', plugin, pipeline, step_id, status, day_utc, sample_count,
                           sum_dur_ns / 1000000, min_dur_ns / 1000000, max_dur_ns / 1000000, p50_dur_ns / 1000000,
                           p90_dur_ns / 1000000, p99_dur_ns / 1000000)
             FROM job_stopwatch_rollup_daily ORDER BY plugin"
        ),
        ["a ok 2026-01-02 3 60 10 30 20 30 30", "b ok 2026-01-02 1 7 7 7 7 7 7"]
    );
    site.advance(30 * DAY as i64);
    assert_eq!(janitor(&site).await, Some(JanitorRun { rolled_up: 0, deleted: 4 }));
    assert_eq!(
        site.column("SELECT name || ' ' || last_status || ' ' || last_error || rows_rolled_up || ' ' || rows_deleted FROM janitor_heartbeat"),
        ["stopwatch ok 0 4"]
    );
}

#[tokio::test]
async fn a_failed_run_of_the_janitor_leaves_its_cause() {
    let site = Site::new().await;
    site.other()
        .execute_batch(
            "INSERT INTO job_stopwatch (job_id, plugin, attempt, enter_wall_ns, exit_wall_ns, dur_ns, runtime_pre_ns, runtime_post_ns, status, recorded_at)
             VALUES ('j', 'p', 1, 0, 0, 'not a number', 0, 0, 'ok', '2026-01-01 00:00:00.000000000Z')",
        )
        .unwrap();
    assert!(site.store.run_janitor(site.clock.now(), retention().job_log).await.is_err());
    assert_eq!(site.column("SELECT last_status || ' ' || (last_error <> '') FROM janitor_heartbeat"), ["err 1"]);
}

fn insert_timing(site: &Site, plugin: &str, recorded_at: &str) {
    site.other()
        .execute(
            "INSERT INTO job_stopwatch (job_id, plugin, attempt, enter_wall_ns, exit_wall_ns, dur_ns, runtime_pre_ns, runtime_post_ns, status, recorded_at)
             VALUES ('j', ?1, 1, 0, 0, 1, 0, 0, 'ok', ?2)",
            [plugin, recorded_at],
        )
        .unwrap();
}

#[tokio::test]
async fn a_day_is_over_five_minutes_after_its_end_and_what_comes_later_goes_with_it() {
    let site = Site::new().await;
    insert_timing(&site, "p", "2026-01-02 23:59:59.000000000Z");
    // Four minutes past midnight.
    site.advance((parse_stored("2026-01-03 00:04:00Z").unwrap() - site.clock.now()).num_seconds());
    assert_eq!(janitor(&site).await, Some(JanitorRun::default()));
    site.advance(HOUR as i64);
    assert_eq!(janitor(&site).await, Some(JanitorRun { rolled_up: 1, deleted: 0 }));
    insert_timing(&site, "p", "2026-01-02 23:59:59.500000000Z");
    insert_timing(&site, "late", "2026-01-02 23:59:59.500000000Z");
    insert_timing(&site, "p", "2026-01-03 00:00:00.000000000Z");
    site.advance(30 * DAY as i64);
    assert_eq!(janitor(&site).await, Some(JanitorRun { rolled_up: 1, deleted: 4 }));
    assert_eq!(site.column("SELECT plugin || sample_count FROM job_stopwatch_rollup_daily"), ["p1", "p1"]);
}

#[tokio::test]
async fn without_its_heartbeat_the_janitor_runs_all_the_same_once_an_hour() {
    let site = Site::new().await;
    site.other().execute_batch("DROP TABLE janitor_heartbeat").unwrap();
    insert_timing(&site, "p", "2026-01-01 00:00:00.000000000Z");
    assert_eq!(janitor(&site).await, Some(JanitorRun { rolled_up: 1, deleted: 0 }));
    assert_eq!(janitor(&site).await, None);
    site.advance(HOUR as i64);
    assert_eq!(janitor(&site).await, Some(JanitorRun::default()));
}

/// Looks until it is so.
async fn until(is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("it did not come true");
}

#[tokio::test]
async fn before_anything_is_activated_the_queue_of_others_is_seen_and_what_they_freed_is_given_back() {
    let site = Site::new().await;
    let log = site.directory.path().join("ductile.db-wal");
    until(|| std::fs::metadata(&log).unwrap().len() == 0).await;
    site.other()
        .execute_batch(
            "INSERT INTO job_queue (id, plugin, command, status, submitted_by, created_at)
             VALUES ('x', 'p', 'poll', 'queued', 'cli', '2026-01-02 03:04:06.000000000Z');
             CREATE TABLE large (data BLOB); INSERT INTO large VALUES (zeroblob(4000000)); DROP TABLE large;",
        )
        .unwrap();
    until(|| site.queue.depth() == 1).await;
    until(|| site.one::<i64>("PRAGMA page_count") < 500 && std::fs::metadata(&log).unwrap().len() == 0).await;
}
