//! What happens when a schedule is due and jobs of its command are still there.

use std::fs;

use serde_json::{Value, json};

use super::{TICKS, list, logged, several_ticks, starts, wait_for_line, wait_for_starts};
use crate::site::{Gateway, OK, Site, eventually, is_alive};

/// Notes its job and process, and runs until `gate` is there, or its site is gone.
const NOTED: &str = r#"cat >/dev/null
echo "$DUCTILE_JOB_ID $$" >> "$DUCTILE_PAYLOAD_DIR/runs"
while [ -e "$0" ] && [ ! -e "$DUCTILE_PAYLOAD_DIR/gate" ]; do sleep 0.02; done
echo '{"status":"ok","result":"done"}'"#;

/// `clock` with one schedule whose jobs run until [`open`].
fn gated(schedule: &str, config: &str) -> Site {
    let site = Site::new();
    fs::create_dir(site.path("flags")).expect("a directory");
    let payload = format!("payload: {{dir: {:?}}}", site.path("flags"));
    let config = format!("{config}\n{}", list(&[&format!("{{{schedule}, {payload}}}")]));
    let site = site.service(TICKS).plugin_with("clock", NOTED, "", &config);
    site.plugin_with("witness", OK, "", "schedules:\n  - {every: 500ms}")
}

fn open(site: &Site) {
    fs::write(site.path("flags/gate"), "").expect("a file");
}

fn outstanding(site: &Site) -> (i64, i64) {
    let connection = site.database();
    let sql = "SELECT COUNT(*), coalesce(SUM(status='running'), 0) FROM job_queue
               WHERE plugin='clock' AND status IN ('queued','running')";
    connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("counts")
}

/// The process of a job, as soon as it runs.
fn process(site: &Site, gateway: &Gateway, job: &str) -> String {
    let seen = eventually(|| {
        let runs = fs::read_to_string(site.path("flags/runs")).unwrap_or_default();
        let found = runs.lines().find_map(|line| line.strip_prefix(job)?.strip_prefix(' ').map(str::to_owned));
        found.ok_or(runs)
    });
    seen.unwrap_or_else(|runs| panic!("job {job} does not run: {runs}\n{}", gateway.said()))
}

fn held(gateway: &Gateway, reason: &str) -> usize {
    logged(gateway, "default", "schedule skipped").iter().filter(|line| line["reason"] == reason).count()
}

#[test]
fn skip_waits_for_the_job_that_runs_and_says_so_once() {
    let site = gated("every: 300ms, if_running: skip", "parallelism: 4");
    let mut gateway = site.start();
    let line = wait_for_line(&mut gateway, "default", "schedule skipped");
    assert_eq!((&line["reason"], &line["level"]), (&json!("already_running"), &json!("INFO")));
    for _ in 0..2 {
        several_ticks(&site, &gateway);
        assert_eq!(outstanding(&site), (1, 1));
    }
    assert_eq!((starts(&site, "default").len(), held(&gateway, "already_running")), (1, 1), "{}", gateway.said());
    open(&site);
    wait_for_starts(&site, &gateway, "default", 3);
}

#[test]
fn a_job_of_somebody_else_holds_skip_back_too() {
    let site = gated("id: later, after: 1s", "");
    let mut gateway = site.start();
    let job = gateway.trigger_with("clock", "poll", &json!({"dir": site.path("flags")}));
    let line = wait_for_line(&mut gateway, "later", "schedule skipped");
    assert_eq!(line["reason"], "already_running");
    several_ticks(&site, &gateway);
    assert_eq!(starts(&site, "later").len(), 0);
    open(&site);
    assert_eq!(gateway.wait_for(&job)["status"], "succeeded");
    wait_for_starts(&site, &gateway, "later", 1);
}

#[test]
fn a_cron_slot_that_meets_a_running_job_is_dropped() {
    let site = gated("id: yearly, cron: \"0 0 1 1 *\"", "");
    super::left_behind(&site, &super::Row { id: "yearly", last_fired: None, next: Some(super::ahead(2)) });
    let mut gateway = site.start();
    let job = gateway.trigger_with("clock", "poll", &json!({"dir": site.path("flags")}));
    let line = wait_for_line(&mut gateway, "yearly", "slots of a schedule passed without a run");
    assert_eq!(
        (&line["reason"], &line["slots"], &line["level"]),
        (&json!("already_running"), &json!(1), &json!("WARN"))
    );
    open(&site);
    gateway.wait_for(&job);
    several_ticks(&site, &gateway);
    assert_eq!(starts(&site, "yearly").len(), 0);
    let shown = super::shown(&gateway, "yearly");
    assert_eq!((&shown["slots_dropped"], &shown["slots_late"]), (&json!(1), &json!(0)), "{shown}");
}

#[test]
fn queue_lets_as_many_wait_as_it_may_and_one_run() {
    let site = gated("every: 200ms, if_running: queue", "parallelism: 4\nmax_outstanding_polls: 3");
    let mut gateway = site.start();
    let line = wait_for_line(&mut gateway, "default", "schedule skipped");
    assert_eq!(line["reason"], "outstanding_limit");
    several_ticks(&site, &gateway);
    assert_eq!((outstanding(&site), held(&gateway, "outstanding_limit")), ((3, 1), 1), "{}", gateway.said());
    open(&site);
    let seen = eventually(|| {
        let (all, running) = outstanding(&site);
        assert!(all <= 3 && running <= 1, "{all} outstanding, {running} running");
        let started = starts(&site, "default").len();
        if started >= 8 { Ok(()) } else { Err(started) }
    });
    seen.unwrap_or_else(|seen| panic!("{seen} jobs\n{}", gateway.said()));
}

#[test]
fn cancel_ends_the_job_before_and_leaves_those_of_others_alone() {
    let site = gated("every: 1s, if_running: cancel", "parallelism: 4");
    let mut gateway = site.start();
    wait_for_starts(&site, &gateway, "default", 1);
    let first: String =
        site.query("SELECT id FROM job_queue WHERE dedupe_key='clock:poll:default' ORDER BY created_at LIMIT 1");
    let pid = process(&site, &gateway, &first);
    let other = gateway.trigger_with("clock", "poll", &json!({"dir": site.path("flags")}));
    process(&site, &gateway, &other);
    let gone: Value = gateway.wait_for(&first);
    assert_eq!(gone["status"], "dead", "{gone}");
    assert_eq!(
        site.query::<String>(&format!("SELECT last_error FROM job_queue WHERE id='{first}'")),
        "cancelled by scheduler (if_running=cancel)"
    );
    eventually(|| if is_alive(&pid) { Err(()) } else { Ok(()) }).expect("the process to be gone");
    let second: String = site
        .query("SELECT id FROM job_queue WHERE dedupe_key='clock:poll:default' ORDER BY created_at LIMIT 1 OFFSET 1");
    process(&site, &gateway, &second);
    several_ticks(&site, &gateway);
    assert_eq!(gateway.get(&format!("/job/{other}")).body["status"], "running");
    let failures: i64 = site.query("SELECT coalesce(SUM(failure_count), 0) FROM circuit_breakers WHERE plugin='clock'");
    assert_eq!(failures, 0);
    open(&site);
    let other = gateway.wait_for(&other);
    assert_eq!((&other["status"], &other["attempt"]), (&json!("succeeded"), &json!(1)));
    assert_eq!(gateway.wait_for(&first)["status"], "dead");
    gateway.stop();
}
