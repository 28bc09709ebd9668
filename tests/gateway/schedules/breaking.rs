//! Schedules and the breakers of their commands.

use std::fs;

use chrono::TimeDelta;

use super::{list, parsed, several_ticks, starts, wait_for_text, wait_until_idle};
use crate::site::{Gateway, OK, Site, eventually};

/// Holds while `hold` is there, and fails when `broken` is.
const FRAGILE: &str = r#"cat >/dev/null
while [ -e "$0" ] && [ -e "$DUCTILE_PAYLOAD_DIR/hold" ]; do sleep 0.02; done
if [ -e "$DUCTILE_PAYLOAD_DIR/broken" ]; then echo '{"status":"error","error":"broken","retry":false}'
else echo '{"status":"ok","result":"done"}'; fi"#;

const TRANSITIONS: &str = "SELECT from_state || '>' || to_state || ' ' || failure_count || ' ' || reason
    FROM circuit_breaker_transitions WHERE plugin='clock' ORDER BY created_at, rowid";

/// A gateway whose breaker of `clock` is open because its polls fail.
fn broken(reset_after: &str) -> (Site, Gateway) {
    let site = Site::new();
    fs::create_dir(site.path("flags")).expect("a directory");
    fs::write(site.path("flags/broken"), "").expect("a file");
    let payload = format!("payload: {{dir: {:?}}}", site.path("flags"));
    let schedules =
        list(&[&format!("{{id: one, every: 300ms, {payload}}}"), &format!("{{id: two, every: 300ms, {payload}}}")]);
    let config = format!("circuit_breaker: {{threshold: 3, reset_after: {reset_after}}}\n{schedules}");
    let site = site.service(super::TICKS).plugin_with("clock", FRAGILE, "", &config);
    let site = site.plugin_with("witness", OK, "", "schedules:\n  - {every: 500ms}");
    let mut gateway = site.start();
    gateway.wait_for_log("a breaker to hold schedules back", |line| {
        line["message"] == "schedule skipped" && line["plugin"] == "clock" && line["reason"] == "circuit_open"
    });
    (site, gateway)
}

fn breaker(site: &Site) -> String {
    site.query("SELECT state || ' ' || failure_count FROM circuit_breakers WHERE plugin='clock' AND command='poll'")
}

fn outstanding(site: &Site) -> i64 {
    site.query("SELECT COUNT(*) FROM job_queue WHERE plugin='clock' AND status IN ('queued','running')")
}

fn count(site: &Site) -> usize {
    starts(site, "one").len() + starts(site, "two").len()
}

#[test]
fn an_open_breaker_holds_schedules_back_until_it_is_reset_and_no_one_else() {
    let (site, gateway) = broken("1h");
    assert_eq!((breaker(&site), count(&site)), ("open 3".to_owned(), 3));
    several_ticks(&site, &gateway);
    let payload = serde_json::json!({"dir": site.path("flags")});
    let job = gateway.wait_for(&gateway.trigger_with("clock", "poll", &payload));
    assert_eq!(job["status"], "failed", "{job}");
    assert_eq!((breaker(&site), count(&site)), ("open 3".to_owned(), 3));
    fs::remove_file(site.path("flags/broken")).expect("the file");
    assert_eq!(site.run(&["system", "reset", "clock"]), "Reset circuit breaker for clock (poll)\n");
    let seen = eventually(|| if count(&site) > 4 { Ok(()) } else { Err(count(&site)) });
    seen.unwrap_or_else(|seen| panic!("{seen} jobs\n{}", gateway.said()));
    wait_for_text(&site, &gateway, "SELECT state FROM circuit_breakers WHERE plugin='clock'", "closed");
}

#[test]
fn two_schedules_of_a_command_try_a_broken_one_only_once() {
    let (site, mut gateway) = broken("2s");
    fs::write(site.path("flags/hold"), "").expect("a file");
    wait_for_text(&site, &gateway, "SELECT state FROM circuit_breakers WHERE plugin='clock'", "half_open");
    several_ticks(&site, &gateway);
    assert_eq!(outstanding(&site), 1, "{}", gateway.said());
    let opened: String = site.query(
        "SELECT created_at FROM circuit_breaker_transitions WHERE plugin='clock' AND to_state='open' ORDER BY rowid DESC LIMIT 1",
    );
    let newest: String = site.query("SELECT MAX(created_at) FROM job_queue WHERE plugin='clock'");
    assert!(parsed(&newest) - parsed(&opened) >= TimeDelta::seconds(2), "opened {opened}, tried {newest}");
    let tried = count(&site);
    fs::remove_file(site.path("flags/broken")).expect("the file");
    fs::remove_file(site.path("flags/hold")).expect("the file");
    wait_for_text(&site, &gateway, "SELECT state FROM circuit_breakers WHERE plugin='clock'", "closed");
    let transitions = site.column(TRANSITIONS);
    assert_eq!(transitions[0], "closed>open 3 failure_threshold");
    // On a busy machine a try may have failed before this one: the number is not looked at.
    let (before, last) = (&transitions[transitions.len() - 2], &transitions[transitions.len() - 1]);
    assert!(before.starts_with("open>half_open ") && before.ends_with(" cooldown_elapsed"), "{transitions:?}");
    assert_eq!(last, "half_open>closed 0 success");
    let seen = eventually(|| if count(&site) > tried + 2 { Ok(()) } else { Err(count(&site)) });
    seen.unwrap_or_else(|seen| panic!("{seen} jobs\n{}", gateway.said()));
    gateway
        .wait_for_log("what was held back", |line| line["message"] == "schedule ran late" && line["plugin"] == "clock");
}

#[test]
fn a_try_that_fails_opens_the_breaker_again() {
    let (site, gateway) = broken("1s");
    let seen = eventually(|| {
        let seen = site.column(TRANSITIONS);
        if seen.len() >= 3 { Ok(seen) } else { Err(seen) }
    })
    .unwrap_or_else(|seen| panic!("{seen:?}\n{}", gateway.said()));
    let expected =
        ["closed>open 3 failure_threshold", "open>half_open 3 cooldown_elapsed", "half_open>open 4 failure_threshold"];
    assert_eq!(seen[..3], expected);
    fs::remove_file(site.path("flags/broken")).expect("the file");
    wait_for_text(&site, &gateway, "SELECT state FROM circuit_breakers WHERE plugin='clock'", "closed");
    wait_until_idle(&site, &gateway);
}
