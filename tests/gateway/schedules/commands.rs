//! `ductile schedule` beside a running gateway and without one.

use ductile_model::format_wire;
use serde_json::{Value, json};

use super::{
    ago, ahead, cell, change_rows, parsed, reload, several_ticks, shown, starts, wait_for_line, wait_for_starts,
    wait_until_idle, with_schedules, with_script,
};
use crate::site::{GATED, Site, show};

fn refused(site: &Site, args: &[&str]) -> String {
    let output = site.command(args).output().expect("the binary");
    assert_eq!(output.status.code(), Some(1), "{args:?}: {}", show(&output));
    assert!(output.stdout.is_empty(), "{}", show(&output));
    String::from_utf8(output.stderr).expect("UTF-8")
}

fn json_of(site: &Site, args: &[&str]) -> Value {
    serde_json::from_str(&site.run(args)).expect("JSON")
}

#[test]
fn a_pause_holds_over_reload_and_restart_until_it_is_resumed() {
    let site = with_schedules(&["{every: 300ms}"]);
    let mut gateway = site.start();
    wait_for_starts(&site, &gateway, "default", 2);
    let said = site.run(&["schedule", "pause", "clock", "default", "--reason", "moving house"]);
    assert_eq!(said, "Paused schedule clock/default\n");
    let line = wait_for_line(&mut gateway, "default", "schedule skipped");
    assert_eq!(line["reason"], "schedule_paused_manual");
    let count = starts(&site, "default").len();
    several_ticks(&site, &gateway);
    let now = shown(&gateway, "default");
    assert_eq!((&now["status"], &now["reason"]), (&json!("paused"), &json!("moving house")), "{now}");
    reload(&gateway);
    several_ticks(&site, &gateway);
    gateway.kill_nine();
    let gateway = site.start();
    several_ticks(&site, &gateway);
    assert_eq!(shown(&gateway, "default")["status"], "paused");
    assert_eq!(starts(&site, "default").len(), count, "{}", gateway.said());
    let said = site.run(&["schedule", "resume", "clock"]);
    assert!(said.starts_with("Resumed schedule clock/default"), "{said}");
    wait_for_starts(&site, &gateway, "default", count + 2);
    let now = shown(&gateway, "default");
    assert_eq!((&now["status"], now.get("reason")), (&json!("scheduled"), None), "{now}");
}

#[test]
fn a_resumed_cron_schedule_makes_up_for_nothing_and_an_interval_is_due() {
    let site = with_schedules(&[
        "{id: cron, cron: \"0 0 1 1 *\"}",
        "{id: every, every: 1h}",
        "{id: future, every: 1h, command: health}",
    ]);
    let gateway = site.start();
    wait_for_starts(&site, &gateway, "every", 1);
    wait_until_idle(&site, &gateway);
    assert_eq!(site.run(&["schedule", "pause", "clock"]).lines().count(), 3);
    let past = ductile_model::format_db(ago(60));
    change_rows(
        &site,
        &format!("UPDATE schedule_entries SET next_run_at='{past}' WHERE schedule_id IN ('cron', 'every')"),
    );
    let kept = cell(&site, "future", "next_run_at");
    site.run(&["schedule", "resume", "clock"]);
    wait_for_starts(&site, &gateway, "every", 2);
    several_ticks(&site, &gateway);
    assert_eq!(starts(&site, "cron").len(), 0);
    assert!(parsed(&cell(&site, "cron", "next_run_at")) > ahead(0));
    assert_eq!(cell(&site, "future", "next_run_at"), kept);
}

#[test]
fn what_has_run_once_runs_again_only_when_it_is_armed_again() {
    let site = with_schedules(&["{id: first, after: 300ms}"]);
    let gateway = site.start();
    wait_for_starts(&site, &gateway, "first", 1);
    wait_until_idle(&site, &gateway);
    assert!(refused(&site, &["schedule", "resume", "clock", "first"]).contains("--rearm"));
    several_ticks(&site, &gateway);
    assert_eq!(starts(&site, "first").len(), 1);
    site.run(&["schedule", "resume", "clock", "first", "--rearm"]);
    wait_for_starts(&site, &gateway, "first", 2);
    several_ticks(&site, &gateway);
    assert_eq!((starts(&site, "first").len(), cell(&site, "first", "status").as_str()), (2, "exhausted"));
}

#[test]
fn pausing_works_while_the_gateway_is_stopped() {
    let site = with_schedules(&["{id: first, after: 1h}", "{id: other, every: 1h}"]);
    site.start().stop();
    site.run(&["schedule", "pause", "clock", "first"]);
    let past = ductile_model::format_db(ago(60));
    change_rows(&site, &format!("UPDATE schedule_entries SET next_run_at='{past}' WHERE schedule_id='first'"));
    let gateway = site.start();
    several_ticks(&site, &gateway);
    assert_eq!(starts(&site, "first").len(), 0);
    site.run(&["schedule", "resume", "clock", "first"]);
    wait_for_starts(&site, &gateway, "first", 1);
}

#[test]
fn unknown_plugins_and_schedules_are_refused_with_a_reason() {
    let site = with_schedules(&["{id: first, after: 1h}"]);
    site.start().stop();
    for action in ["next", "pause", "resume"] {
        assert!(refused(&site, &["schedule", action, "nobody"]).contains("nobody"));
        let said = refused(&site, &["schedule", action, "clock", "second"]);
        assert!(said.contains("second") && said.contains("first"), "{said}");
    }
    assert!(refused(&site, &["schedule", "list", "nobody"]).contains("nobody"));
}

#[test]
fn the_list_tells_everything_of_every_schedule_with_the_gateway_running_or_stopped() {
    let site =
        with_schedules(&["{id: zulu, every: 1h}", "{id: alpha, cron: \"0 9 * * 1-5\", timezone: Europe/Berlin}"]);
    let mut gateway = site.start();
    wait_for_starts(&site, &gateway, "zulu", 1);
    wait_until_idle(&site, &gateway);
    let running = json_of(&site, &["schedule", "list", "clock", "--json"]);
    gateway.stop();
    assert_eq!(json_of(&site, &["schedule", "list", "clock", "--json"]), running);
    assert_eq!(json_of(&site, &["system", "scheduler", "list", "clock", "--json"]), running);
    let all = running["schedules"].as_array().expect("a list");
    let keys = [
        "plugin",
        "schedule_id",
        "command",
        "mode",
        "expression",
        "timezone",
        "status",
        "reason",
        "last_fired_at",
        "last_success_at",
        "next_run_at",
        "breaker",
    ];
    for (schedule, key) in all.iter().flat_map(|schedule| keys.map(|key| (schedule, key))) {
        assert!(schedule.get(key).is_some(), "{key} is not in {schedule}");
    }
    let ids: Vec<_> = all.iter().map(|schedule| &schedule["schedule_id"]).collect();
    assert_eq!(ids, ["zulu", "alpha"], "in the order of the configuration");
    assert_eq!(
        (&all[1]["mode"], &all[1]["expression"], &all[1]["timezone"]),
        (&json!("cron"), &json!("0 9 * * 1-5"), &json!("Europe/Berlin"))
    );
    assert_eq!((&all[0]["breaker"], &all[0]["status"]), (&json!("closed"), &json!("active")));
    assert_eq!(site.run(&["schedule", "list"]), site.run(&["system", "scheduler", "list"]));
}

#[test]
fn active_shows_the_jobs_of_schedules_that_wait_or_run_and_nothing_else() {
    let gate = tempfile::tempdir().expect("a directory");
    let payload = format!("payload: {{gate: {:?}}}", gate.path().join("gate"));
    let site = with_script(GATED, &format!("parallelism: 4\n{}", super::list(&[&format!("{{every: 1h, {payload}}}")])));
    let gateway = site.start();
    let started = wait_for_starts(&site, &gateway, "default", 1);
    let other = gateway.trigger_with("clock", "poll", &json!({"gate": gate.path().join("gate")}));
    gateway.wait_for_status(&other, |status| status == "running");
    // The witness comes and goes.
    site.run(&["schedule", "pause", "witness"]);
    super::wait_for_text(
        &site,
        &gateway,
        "SELECT COUNT(*) FROM job_queue WHERE plugin='witness' AND status IN ('queued','running')",
        "Integer(0)",
    );
    let seen = json_of(&site, &["schedule", "active", "--json"]);
    assert_eq!(seen, json_of(&site, &["system", "scheduler", "--json"]));
    assert_eq!((&seen["service_name"], &seen["count"]), (&json!("site"), &json!(1)), "{seen}");
    let poll = &seen["active_polls"][0];
    assert_eq!(
        (&poll["plugin"], &poll["dedupe_key"], &poll["status"]),
        (&json!("clock"), &json!("clock:poll:default"), &json!("running"))
    );
    assert_eq!(poll["created_at"], format_wire(started[0]));
    std::fs::write(gate.path().join("gate"), "").expect("a file");
    wait_until_idle(&site, &gateway);
    assert_eq!(json_of(&site, &["system", "scheduler", "--json"])["count"], 0);
}

#[test]
fn the_api_lists_by_plugin_and_then_as_configured_and_needs_a_scope() {
    let site = with_schedules(&[
        "{id: zulu, every: 1h}",
        "{id: alpha, after: 1h}",
        "{id: mike, cron: \"@daily\", timezone: Europe/Berlin}",
    ]);
    let gateway = site.start();
    several_ticks(&site, &gateway);
    let body = gateway.get("/scheduler/jobs").body;
    let text = |job: &Value| {
        format!("{} {} {} {}", job["plugin"], job["schedule_id"], job["mode"], job["status"]).replace('"', "")
    };
    let seen: Vec<_> = body["jobs"].as_array().expect("jobs").iter().map(text).collect();
    assert_eq!(
        seen,
        [
            "clock zulu every scheduled",
            "clock alpha after scheduled",
            "clock mike cron scheduled",
            "witness default every scheduled"
        ]
    );
    assert_eq!(shown(&gateway, "mike")["timezone"], "Europe/Berlin");
    let stored = format_wire(parsed(&cell(&site, "alpha", "next_run_at")));
    assert_eq!(shown(&gateway, "alpha")["next_run_at"], stored);
    assert_eq!(crate::site::Client::new(gateway.address(), "").get("/scheduler/jobs").status, 401);
}
