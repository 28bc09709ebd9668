//! Pipelines under kills: every instance runs to its end, no step is lost and none runs twice.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::pipelines::{emitting, quiet, settle};
use super::site::{Gateway, PATIENCE, Site};

/// Starts pipelines until the gateway is killed at some moment after a few of them; the first jobs of those that were
/// accepted.
fn start_until_killed(gateway: Gateway, pause: Duration) -> Vec<String> {
    let client = gateway.client();
    let (accepted, seen) = std::sync::mpsc::channel();
    let starting = std::thread::spawn(move || {
        // A request that the kill cuts off was not accepted; its instance may exist or not.
        while let Ok(answer) = client.try_post("/pipeline/chain", "{}", &[]) {
            assert_eq!(answer.status, 202, "{answer:?}");
            accepted.send(answer.body["job_id"].as_str().expect("an id").to_owned()).expect("somebody who waits");
        }
    });
    let mut started: Vec<String> = (0..5).map(|_| seen.recv_timeout(PATIENCE).expect("an accepted start")).collect();
    std::thread::sleep(pause);
    gateway.kill_nine();
    starting.join().expect("the stream of starts");
    started.extend(seen);
    started
}

/// Of each instance, its jobs as `step status after-step`, by step.
fn instances(site: &Site) -> BTreeMap<String, Vec<String>> {
    let connection = site.database();
    let mut statement = connection
        .prepare(
            "SELECT json_extract(c.accumulated_json, '$.ductile.pipeline_instance_id'),
                    c.step_id || ' ' || q.status || ' ' || ifnull(pc.step_id, '-')
             FROM job_queue q JOIN event_context c ON c.id = q.event_context_id
             LEFT JOIN job_queue p ON p.id = q.parent_job_id LEFT JOIN event_context pc ON pc.id = p.event_context_id
             ORDER BY 2",
        )
        .expect("a statement");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        let (instance, job) = row.expect("a row");
        found.entry(instance).or_default().push(job);
    }
    found
}

/// At any committed instant: no context without its job, no job without its context, no step twice in an instance.
fn assert_whole(site: &Site, seed: u64) {
    for (what, sql) in [
        (
            "every context of a step has its one job",
            "SELECT count(*) FROM event_context c WHERE c.step_id <> ''
               AND (SELECT count(*) FROM job_queue q WHERE q.event_context_id = c.id) <> 1",
        ),
        (
            "every job has its context",
            "SELECT count(*) FROM job_queue q WHERE NOT EXISTS (SELECT 1 FROM event_context c WHERE c.id = q.event_context_id)",
        ),
        (
            "no job has two successors",
            "SELECT count(*) FROM (SELECT 1 FROM job_queue WHERE parent_job_id IS NOT NULL GROUP BY parent_job_id HAVING count(*) > 1)",
        ),
        (
            "a step that is over has its successor, and one that is not over has none",
            "SELECT count(*) FROM job_queue q JOIN event_context c ON c.id = q.event_context_id WHERE c.step_id <> 'three'
               AND (q.status = 'succeeded') <> EXISTS (SELECT 1 FROM job_queue s WHERE s.parent_job_id = q.id)",
        ),
    ] {
        assert_eq!(site.query::<i64>(sql), 0, "{what}; seed {seed}");
    }
}

#[test]
fn kills_at_any_instant_lose_no_step_and_double_none() {
    let next = |kind: &str| json!([{"type": kind, "payload": {"n": 1}}]);
    let retry = "retry: {max_attempts: 50, backoff_base: 10ms}";
    let site = Site::new()
        .plugin_with("one", &emitting("1", &next("a")), "", retry)
        .plugin_with("two", &emitting("2", &next("b")), "", retry)
        .plugin_with("three", &quiet("3"), "", retry)
        .extra(
            "
pipelines:
  - name: chain
    on: go
    steps:
      - {id: one, uses: one}
      - {id: two, uses: two, if: {path: payload.n, op: eq, value: 1}}
      - {id: three, uses: three}
",
        );
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut accepted = Vec::new();
    for _ in 0..8 {
        accepted.extend(start_until_killed(site.start(), Duration::from_micros(random.u64(0..60_000))));
        assert_whole(&site, seed);
    }
    let gateway = site.start();
    settle(&site, &gateway);
    assert_whole(&site, seed);
    let whole = ["one succeeded -", "three succeeded two", "two succeeded two__switch", "two__switch succeeded one"];
    let found = instances(&site);
    for (instance, jobs) in &found {
        assert_eq!(jobs, &whole, "instance {instance}; seed {seed}\n{}", gateway.said());
    }
    assert!(found.len() >= accepted.len(), "{} of {}; seed {seed}", found.len(), accepted.len());
    let entries = site.column("SELECT id FROM job_queue WHERE parent_job_id IS NULL");
    let lost: Vec<_> = accepted.iter().filter(|job| !entries.contains(job)).collect();
    assert!(lost.is_empty(), "accepted and gone: {lost:?}; seed {seed}");
}
