//! What a killed gateway leaves behind, and what the next one makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::site::{GATED, OK, Site, eventually, is_alive};

/// At least 200 jobs, 20 kills at random instants: nothing acknowledged is lost, no finished job runs again, and every
/// row tells a consistent story.
#[test]
fn twenty_kills_under_load_lose_nothing_and_repeat_nothing_finished() {
    // Facts make finalisation a transaction of several tables.
    let script = r#"cat >/dev/null; echo "$DUCTILE_JOB_ID" >> "$DUCTILE_PAYLOAD_RUNS"; echo '{"status":"ok","result":"x","state_updates":{"last":"'$DUCTILE_JOB_ID'"}}'"#;
    let facts = "fact_outputs:\n  - {when: {command: poll}, from: state_updates, fact_type: run.snapshot}";
    let site = Site::new().service("max_workers: 3").plugin_with(
        "work",
        script,
        facts,
        "retry: {max_attempts: 1000, backoff_base: 10ms}",
    );
    let runs = site.path("runs");
    let payload = json!({"payload": {"runs": runs}}).to_string();
    let acknowledged = Mutex::new(Vec::new());
    for kill in 0..20 {
        let gateway = site.start();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let client = gateway.client();
                let (done, acknowledged, payload) = (&done, &acknowledged, &payload);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        // A request that the kill cuts off was not acknowledged; its job may exist or not.
                        let Ok(answer) = client.try_post("/plugin/work/poll", payload, &[]) else { return };
                        assert_eq!(answer.status, 202, "{answer:?}");
                        let id = answer.body["job_id"].as_str().expect("an id").to_owned();
                        acknowledged.lock().expect("the list").push(id);
                        std::thread::sleep(Duration::from_millis(4));
                    }
                });
            }
            let enough = 12 * (kill + 1);
            eventually(|| {
                let count = acknowledged.lock().expect("the list").len();
                if count >= enough { Ok(()) } else { Err(count) }
            })
            .expect("jobs to be accepted");
            std::thread::sleep(Duration::from_micros(fastrand::u64(0..60_000)));
            gateway.kill_nine();
            done.store(true, Ordering::Relaxed);
        });
        check_invariants(&site);
    }
    let acknowledged = acknowledged.into_inner().expect("the list");
    assert!(acknowledged.len() >= 200, "{}", acknowledged.len());
    let gateway = site.start();
    eventually(|| {
        let open: i64 = site.query("SELECT COUNT(*) FROM job_queue WHERE status IN ('queued','running')");
        if open == 0 { Ok(()) } else { Err(open) }
    })
    .unwrap_or_else(|open| panic!("{open} jobs are still open\n{}", gateway.said()));
    check_invariants(&site);
    let succeeded: BTreeSet<String> =
        site.column("SELECT id FROM job_queue WHERE status='succeeded'").into_iter().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|id| !succeeded.contains(*id)).collect();
    assert!(lost.is_empty(), "acknowledged and not succeeded: {lost:?}");
    // A job that had succeeded was never started again: its runs are its attempts at most.
    let lines = std::fs::read_to_string(&runs).expect("the runs");
    for id in &acknowledged {
        let ran = i64::try_from(lines.lines().filter(|line| line == id).count()).expect("a count");
        let attempt: i64 = site.query(&format!("SELECT attempt FROM job_queue WHERE id='{id}'"));
        assert!(ran <= attempt, "job {id} ran {ran} times in {attempt} attempts");
    }
}

/// What must hold at every committed instant.
pub(crate) fn check_invariants(site: &Site) {
    for (what, sql) in [
        (
            "the newest transition is the status",
            "SELECT COUNT(*) FROM job_queue q WHERE q.status <> (SELECT to_status FROM job_transitions t WHERE t.job_id = q.id ORDER BY t.id DESC LIMIT 1)",
        ),
        (
            "every transition starts where the one before ended",
            "SELECT COUNT(*) FROM (SELECT from_status, LAG(to_status) OVER (PARTITION BY job_id ORDER BY id) AS before FROM job_transitions) WHERE COALESCE(from_status,'') <> COALESCE(before,'')",
        ),
        (
            "a terminal job has the log row of its last attempt",
            "SELECT COUNT(*) FROM job_queue q WHERE q.status NOT IN ('queued','running') AND NOT EXISTS (SELECT 1 FROM job_log l WHERE l.id = q.id || '-' || q.attempt)",
        ),
        (
            "a finished job succeeds once",
            "SELECT COUNT(*) FROM (SELECT job_id FROM job_log WHERE status='succeeded' GROUP BY job_id HAVING COUNT(*) > 1)",
        ),
        (
            "a claim has one attempt row",
            "SELECT COUNT(*) FROM job_queue q WHERE q.status='running' AND NOT EXISTS (SELECT 1 FROM job_attempts a WHERE a.job_id = q.id AND a.attempt = q.attempt)",
        ),
        (
            "no job has two facts of one type",
            "SELECT COUNT(*) FROM (SELECT job_id FROM plugin_facts GROUP BY job_id, fact_type HAVING COUNT(*) > 1)",
        ),
        (
            "facts exist for successes only",
            "SELECT COUNT(*) FROM plugin_facts f WHERE NOT EXISTS (SELECT 1 FROM job_log l WHERE l.job_id = f.job_id AND l.status = 'succeeded')",
        ),
        ("facts are numbered without gaps", "SELECT COALESCE(MAX(seq),0) - COUNT(*) FROM plugin_facts"),
        (
            "the newest number is the one that was given out last",
            "SELECT COALESCE((SELECT value FROM storage_sequences WHERE name = 'plugin_facts'), 0) - COALESCE(MAX(seq), 0) FROM plugin_facts",
        ),
        (
            "exactly the attempts that are over are in the log",
            "SELECT COUNT(*) FROM job_queue q WHERE (SELECT COUNT(*) FROM job_log l WHERE l.job_id = q.id) <> q.attempt - (q.status IN ('queued','running'))",
        ),
        (
            "an attempt has one timing at most",
            "SELECT COUNT(*) FROM (SELECT 1 FROM job_stopwatch GROUP BY job_id, attempt HAVING COUNT(*) > 1)",
        ),
        (
            "the state is the newest fact",
            "SELECT COUNT(*) FROM plugin_state s WHERE s.state <> (SELECT fact_json FROM plugin_facts ORDER BY seq DESC LIMIT 1)",
        ),
        (
            "completed_at is set exactly at the end",
            "SELECT COUNT(*) FROM job_queue WHERE (completed_at IS NOT NULL) <> (status NOT IN ('queued','running'))",
        ),
    ] {
        assert_eq!(site.query::<i64>(sql), 0, "{what}");
    }
    assert_eq!(site.query::<String>("PRAGMA integrity_check"), "ok");
}

/// Notes its run, fails the first time for every other job, and leaves a fact, much stderr and a large answer.
const TELLING: &str = r#"cat >/dev/null
echo "$DUCTILE_JOB_ID" >> "$DUCTILE_PAYLOAD_RUNS"
while [ -e "$0" ] && [ ! -e "$DUCTILE_PAYLOAD_GATE" ]; do sleep 0.01; done
head -c 30000 /dev/zero | tr '\0' e >&2
case "$DUCTILE_JOB_ID" in *[02468ace]) if [ ! -e "$DUCTILE_PAYLOAD_RUNS.$DUCTILE_JOB_ID" ]; then
  touch "$DUCTILE_PAYLOAD_RUNS.$DUCTILE_JOB_ID"; echo '{"status":"error","error":"the first time"}'; exit 1; fi;; esac
printf '{"status":"ok","result":"%050000d","state_updates":{"last":"%s"}}' 0 "$DUCTILE_JOB_ID""#;

/// The kill comes while the outcomes of jobs that ended together are on their way into the database.
#[test]
fn kills_while_outcomes_are_being_stored_leave_whole_ones_or_none() {
    let facts = "fact_outputs:\n  - {when: {command: poll}, from: state_updates, fact_type: last.snapshot}";
    let config = "retry: {max_attempts: 1000, backoff_base: 1ms}";
    let site = Site::new().service("max_workers: 8").plugin_with("telling", TELLING, facts, config);
    let runs = site.path("runs");
    let runs_of = |text: &str, job: &str| text.lines().filter(|line| *line == job).count();
    let mut finished: BTreeMap<String, usize> = BTreeMap::new();
    let mut jobs = BTreeSet::new();
    for round in 0..25 {
        let gateway = site.start();
        let gate = site.path(&format!("gate-{round}"));
        let payload = json!({"runs": runs, "gate": gate});
        let together: Vec<String> = (0..8).map(|_| gateway.trigger_with("telling", "poll", &payload)).collect();
        eventually(|| {
            let text = std::fs::read_to_string(&runs).unwrap_or_default();
            if together.iter().all(|job| runs_of(&text, job) > 0) { Ok(()) } else { Err(text.len()) }
        })
        .unwrap_or_else(|_| panic!("not all run in round {round}\n{}", gateway.said()));
        std::fs::write(&gate, "").expect("a file");
        // Until the first of them is over; from then on they come close behind each other.
        eventually(|| {
            match site.query::<i64>(&format!("SELECT COUNT(*) FROM job_log WHERE job_id >= '{}'", together[0])) {
                0 => Err(()),
                _ => Ok(()),
            }
        })
        .unwrap_or_else(|()| panic!("none ended in round {round}\n{}", gateway.said()));
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..30_000)));
        gateway.kill_nine();
        check_invariants(&site);
        jobs.extend(together);
        let text = std::fs::read_to_string(&runs).expect("the runs");
        for job in site.column("SELECT id FROM job_queue WHERE status = 'succeeded'") {
            let seen = runs_of(&text, &job);
            assert_eq!(*finished.entry(job.clone()).or_insert(seen), seen, "job {job} was over and ran again");
        }
    }
    let gateway = site.start();
    jobs.iter().for_each(|job| assert_eq!(gateway.wait_for(job)["status"], "succeeded"));
    check_invariants(&site);
    let without_fact: i64 = site.query(
        "SELECT COUNT(*) FROM job_queue q WHERE 1 <> (SELECT COUNT(*) FROM plugin_facts f WHERE f.job_id = q.id AND f.fact_json = json_object('last', q.id))",
    );
    assert_eq!(without_fact, 0, "each success has its own fact");
    let stored =
        "SELECT COUNT(*) FROM job_log WHERE status = 'succeeded' AND length(stderr) = 30000 AND length(result) > 50000";
    assert_eq!(site.query::<i64>(stored), i64::try_from(jobs.len()).expect("a count"));
    let text = std::fs::read_to_string(&runs).expect("the runs");
    for job in &jobs {
        let attempt: i64 = site.query(&format!("SELECT attempt FROM job_queue WHERE id = '{job}'"));
        let ran = i64::try_from(runs_of(&text, job)).expect("a count");
        assert!((1..=attempt).contains(&ran), "job {job} ran {ran} times in {attempt} attempts");
    }
}

/// Notes its own pid and that of a background child in a session of its own, then waits for the gate.
const LINGERING: &str = r#"cat >/dev/null
echo $$ >> "$DUCTILE_PAYLOAD_OUT"
if [ ! -e "$DUCTILE_PAYLOAD_GATE" ]; then
  setsid sleep 600 >/dev/null 2>&1 & echo $! >> "$DUCTILE_PAYLOAD_OUT"
  while [ -e "$0" ] && [ ! -e "$DUCTILE_PAYLOAD_GATE" ]; do sleep 0.02; done
fi
echo '{"status":"ok","result":"done"}'"#;

#[test]
fn a_killed_gateway_leaves_no_plugin_beside_the_recovered_attempt() {
    let site = Site::new().plugin("linger", LINGERING);
    let gateway = site.start();
    let out = site.path("pids");
    let job = gateway.trigger_with("linger", "poll", &json!({"out": out, "gate": site.path("gate")}));
    let pids = eventually(|| {
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        let pids: Vec<String> = text.lines().map(str::to_owned).collect();
        if pids.len() == 2 { Ok(pids) } else { Err(pids) }
    })
    .expect("two processes");
    gateway.kill_nine();
    assert!(pids.iter().all(|pid| is_alive(pid)), "the plugin outlives the gateway");
    std::fs::write(site.path("gate"), "").expect("a file");
    let gateway = site.start();
    assert!(!pids.iter().any(|pid| is_alive(pid)), "leftovers were ended before anything started: {pids:?}");
    let seen = gateway.wait_for(&job);
    assert_eq!((&seen["status"], &seen["attempt"]), (&json!("succeeded"), &json!(2)));
    let reason: String = site.query("SELECT last_error FROM job_log WHERE attempt = 1");
    assert_eq!(reason, "attempt 1 interrupted: gateway stopped while it was running");
}

#[test]
fn a_job_without_attempts_left_is_dead_after_a_crash() {
    let site = Site::new().plugin_with("linger", LINGERING, "", "retry: {max_attempts: 1}");
    let gateway = site.start();
    let job = gateway.trigger_with("linger", "poll", &json!({"out": site.path("pids"), "gate": site.path("gate")}));
    gateway.wait_for_status(&job, |status| status == "running");
    gateway.kill_nine();
    let gateway = site.start();
    let seen = gateway.wait_for(&job);
    assert_eq!((&seen["status"], &seen["attempt"]), (&json!("dead"), &json!(1)));
    assert_eq!(seen["last_error"], "Job marked dead during crash recovery: max attempts (1) reached");
    let log: String = site.query("SELECT id || ' ' || status FROM job_log");
    assert_eq!(log, format!("{job}-1 dead"));
}

#[test]
fn a_kill_during_the_first_start_never_spoils_the_next() {
    for round in 0..50 {
        let site = Site::new().plugin("hello", OK);
        site.write_config();
        let gateway = site.launch(&[]);
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..40_000)));
        gateway.kill_nine();
        let gateway = site.start();
        assert_eq!(gateway.get("/readyz").status, 200, "round {round}");
    }
}

#[test]
fn an_accepted_job_survives_a_kill_right_after_its_answer() {
    let site = Site::new().plugin("hello", OK);
    for _ in 0..5 {
        let gateway = site.start();
        let job = gateway.trigger("hello", "poll");
        gateway.kill_nine();
        let gateway = site.start();
        assert_eq!(gateway.wait_for(&job)["status"], "succeeded");
    }
}

#[test]
fn plugins_that_wait_end_when_their_site_is_gone() {
    let script = format!("echo $$ > pid; {}", GATED);
    let site = Site::new().plugin("waits", &script);
    let gateway = site.start();
    gateway.trigger_with("waits", "poll", &json!({"gate": site.path("gate")}));
    let pid = eventually(|| {
        let text = std::fs::read_to_string(site.path("pid")).unwrap_or_default();
        if text.ends_with('\n') { Ok(text) } else { Err(()) }
    })
    .expect("a process");
    gateway.kill_nine();
    assert!(is_alive(&pid), "it outlives the gateway");
    drop(site);
    eventually(|| if is_alive(&pid) { Err(()) } else { Ok(()) }).expect("its end");
}
