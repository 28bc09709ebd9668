//! Schedules over kills, reloads and crashes at any instant.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;

use super::{
    Row, ahead, assert_apart, cell, left_behind, list, parsed, reload, several_ticks, starts, wait_for_starts,
    with_schedules,
};
use crate::crash::check_invariants;
use crate::site::{OK, Site, eventually};

/// The newest job of a schedule and its row are of one transaction.
fn assert_in_step(site: &Site, id: &str) {
    let newest = starts(site, id).last().copied();
    let fired = cell(site, id, "last_fired_at");
    match newest {
        None => assert_eq!(fired, "", "{id}"),
        Some(newest) => {
            let off = (parsed(&fired) - newest).abs();
            assert!(off < TimeDelta::seconds(1), "{id}: the newest job is of {newest}, the row says {fired}");
        }
    }
}

#[test]
fn kills_at_random_instants_double_no_run_and_lose_none() {
    let site = with_schedules(&[
        "{id: often, every: 1s}",
        "{id: cancel, every: 1s, command: health, if_running: cancel}",
        "{id: first, after: 4s}",
    ]);
    for _ in 0..15 {
        site.write_config();
        let gateway = site.launch(&[]);
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..1200)));
        gateway.kill_nine();
        if !site.path("data/ductile.db").exists() || rows(&site) < 4 {
            // Killed before anything was there.
            continue;
        }
        for id in ["often", "first"] {
            assert_in_step(&site, id);
        }
        check_invariants(&site);
    }
    let gateway = site.start();
    let before = starts(&site, "often").len();
    let often = wait_for_starts(&site, &gateway, "often", before + 2);
    wait_for_starts(&site, &gateway, "first", 1);
    several_ticks(&site, &gateway);
    assert_apart(&often, TimeDelta::seconds(1));
    let others = site.column("SELECT created_at FROM job_queue WHERE command='health' ORDER BY created_at");
    assert_apart(&others.iter().map(|text| parsed(text)).collect::<Vec<_>>(), TimeDelta::seconds(1));
    assert_eq!((starts(&site, "first").len(), cell(&site, "first", "status").as_str()), (1, "exhausted"));
}

fn rows(site: &Site) -> i64 {
    let sql = "SELECT COUNT(*) FROM schedule_entries";
    site.database().query_row(sql, [], |row| row.get(0)).unwrap_or_default()
}

#[test]
fn a_slot_with_kills_and_reloads_around_it_runs_exactly_once() {
    let site =
        with_schedules(&["{id: yearly, cron: \"0 0 1 1 *\"}", "{id: minutely, cron: \"* * * * *\", command: health}"]);
    let slot = ahead(3);
    left_behind(&site, &Row { id: "yearly", last_fired: None, next: Some(slot) });
    let mut kills = 0;
    while ahead(0) < slot + TimeDelta::seconds(2) {
        let gateway = site.start();
        for _ in 0..fastrand::u8(0..4) {
            reload(&gateway);
            std::thread::sleep(Duration::from_millis(fastrand::u64(0..80)));
        }
        gateway.kill_nine();
        kills += 1;
    }
    let gateway = site.start();
    several_ticks(&site, &gateway);
    assert_eq!(starts(&site, "yearly").len(), 1, "after {kills} kills\n{}", gateway.said());
    assert!(starts(&site, "yearly")[0] >= slot - TimeDelta::milliseconds(1));
    let doubled = site.column(
        "SELECT substr(created_at, 1, 16) FROM job_queue WHERE command='health'
         GROUP BY substr(created_at, 1, 16) HAVING COUNT(*) > 1",
    );
    assert!(doubled.is_empty(), "minutes with two runs: {doubled:?}");
    assert!(site.query::<i64>("SELECT COUNT(*) FROM job_queue WHERE command='health'") >= 1);
}

#[test]
fn twenty_reloads_move_nothing_and_start_nothing() {
    let site = with_schedules(&[
        "{id: hourly, every: 1h, jitter: 10m, catch_up: run_once}",
        "{id: nightly, cron: \"0 0 1 1 *\"}",
        "{id: later, after: 1h}",
        "{id: often, every: 1s, command: health}",
    ]);
    let gateway = site.start();
    wait_for_starts(&site, &gateway, "hourly", 1);
    super::wait_until_idle(&site, &gateway);
    let rows = || {
        site.column(
            "SELECT schedule_id || ' ' || coalesce(next_run_at, '-') || ' ' || status || ' ' || coalesce(last_success_at, '-')
             FROM schedule_entries WHERE plugin='clock' AND schedule_id <> 'often' ORDER BY schedule_id",
        )
    };
    let before = rows();
    assert_eq!(before.len(), 3);
    for _ in 0..20 {
        reload(&gateway);
    }
    several_ticks(&site, &gateway);
    assert_eq!(rows(), before);
    assert_eq!(starts(&site, "hourly").len(), 1);
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue WHERE dedupe_key LIKE '%catchup%'"), 0);
    let often = site.column("SELECT created_at FROM job_queue WHERE command='health' ORDER BY created_at");
    assert_apart(&often.iter().map(|text| parsed(text)).collect::<Vec<_>>(), TimeDelta::seconds(1));
}

#[test]
fn a_scheduler_that_crashes_goes_on_where_it_was() {
    let config =
        list(&["{id: often, every: 500ms}", "{id: missed, every: 10m, catch_up: run_once}", "{id: first, after: 1s}"]);
    let site = Site::new().service(super::TICKS).plugin_with("clock", OK, "", &config);
    left_behind(&site, &Row { id: "missed", last_fired: Some(super::ago(3600)), next: Some(super::ago(3000)) });
    let mut gateway = site.start_with(&[("DUCTILE_FAULTS", "crash:scheduler")]);
    for _ in 0..3 {
        let before = starts(&site, "often").len();
        gateway.signal("USR1");
        gateway.wait_for_log("the restart", |line| line["event"] == "component.restarted");
        assert_eq!(gateway.get("/readyz").status, 200, "{}", gateway.said());
        wait_for_starts(&site, &gateway, "often", before + 2);
    }
    wait_for_starts(&site, &gateway, "first", 1);
    let caught = || -> i64 { site.query("SELECT COUNT(*) FROM job_queue WHERE dedupe_key LIKE 'clock:poll:missed%'") };
    eventually(|| if caught() > 0 { Ok(()) } else { Err(()) }).expect("what was missed");
    assert_apart(&starts(&site, "often"), TimeDelta::milliseconds(500));
    assert_eq!((caught(), starts(&site, "first").len()), (1, 1), "{}", gateway.said());
    assert_eq!(gateway.get("/readyz").body, json!({"ready": true}));
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.said());
}

#[test]
fn a_kill_while_a_job_runs_repeats_the_job_and_not_the_run() {
    let site = with_schedules(&["{every: 1h}"]);
    site.install("clock", "cat >/dev/null; sleep 0.3; echo '{\"status\":\"ok\",\"result\":\"x\"}'", "");
    let gateway = site.start();
    wait_for_starts(&site, &gateway, "default", 1);
    gateway.kill_nine();
    let gateway = site.start();
    super::wait_until_idle(&site, &gateway);
    several_ticks(&site, &gateway);
    assert_eq!(starts(&site, "default").len(), 1);
    let next = parsed(&cell(&site, "default", "next_run_at"));
    assert_eq!(next - parsed(&cell(&site, "default", "last_success_at")), TimeDelta::hours(1));
}
