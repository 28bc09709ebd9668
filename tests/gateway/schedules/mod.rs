//! What runs by itself: schedules of a real gateway, over kills, reloads and commands beside it.

mod breaking;
mod changes;
mod commands;
mod computed;
mod firing;
mod kills;
mod missed;
mod overlap;
mod windows;

use std::fs;
use std::sync::OnceLock;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use ductile_model::format_db;
use serde_json::{Value, json};

use crate::site::{Gateway, OK, Site, eventually};

/// Ticks much shorter than the intervals of the tests, so that many pass between two runs, and a worker for everyone.
const TICKS: &str = "tick_interval: 200ms\nmax_workers: 6";

/// Plugins with schedules: `clock` is looked at, `witness` runs on and shows that time passes.
fn with_script(script: &str, config: &str) -> Site {
    let site = Site::new().service(TICKS).plugin_with("clock", script, "", config);
    site.plugin_with("witness", OK, "", "schedules:\n  - {every: 500ms}")
}

/// The same with a plugin that answers ok. One line for each schedule, as `{…}`.
fn with_schedules(schedules: &[&str]) -> Site {
    with_script(OK, &list(schedules))
}

/// The lines of a plugin's schedules.
fn list(schedules: &[&str]) -> String {
    let lines: String = schedules.iter().map(|schedule| format!("  - {schedule}\n")).collect();
    format!("schedules:\n{lines}")
}

/// A row of a schedule of `clock`, as an earlier gateway may have left it.
struct Row<'a> {
    id: &'a str,
    last_fired: Option<DateTime<Utc>>,
    next: Option<DateTime<Utc>>,
}

impl Row<'_> {
    fn sql(&self) -> String {
        let text = |at: Option<DateTime<Utc>>| at.map_or("NULL".to_owned(), |at| format!("'{}'", format_db(at)));
        format!(
            "INSERT OR REPLACE INTO schedule_entries
                 (plugin, schedule_id, command, status, last_fired_at, next_run_at, updated_at)
             VALUES ('clock', '{}', 'poll', 'active', {}, {}, {});",
            self.id,
            text(self.last_fired),
            text(self.next),
            text(Some(Utc::now())),
        )
    }
}

/// A database of a gateway that ran before, with this row in it.
fn left_behind(site: &Site, row: &Row<'_>) {
    static TEMPLATE: OnceLock<Site> = OnceLock::new();
    let target = site.path("data/ductile.db");
    if !target.exists() {
        let template = TEMPLATE.get_or_init(|| {
            let site = Site::new();
            site.start().stop();
            site
        });
        fs::create_dir(site.path("data")).expect("a directory");
        let target = target.to_str().expect("UTF-8");
        template.database().execute("VACUUM INTO ?1", [target]).expect("a database");
    }
    change_rows(site, &row.sql());
}

/// Writes to the database as somebody else.
fn change_rows(site: &Site, sql: &str) {
    site.outsider().execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// A text replaced in the configuration on disk.
fn edit(site: &Site, from: &str, to: &str) {
    let path = site.path("config/config.yaml");
    let config = fs::read_to_string(&path).expect("the configuration");
    assert!(config.contains(from), "{from:?} is not in\n{config}");
    fs::write(path, config.replacen(from, to, 1)).expect("the configuration");
}

fn reload(gateway: &Gateway) {
    let answer = gateway.post("/system/reload", &json!({}));
    assert_eq!(answer.status, 200, "{answer:?}\n{}", gateway.said());
}

fn ago(seconds: i64) -> DateTime<Utc> {
    Utc::now() - TimeDelta::seconds(seconds)
}

fn ahead(seconds: i64) -> DateTime<Utc> {
    Utc::now() + TimeDelta::seconds(seconds)
}

/// A time as the database has it.
fn parsed(text: &str) -> DateTime<Utc> {
    let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.fZ");
    time.unwrap_or_else(|error| panic!("{text:?}: {error}")).and_utc()
}

/// When the regular jobs of a schedule of `clock` were queued, in order.
fn starts(site: &Site, id: &str) -> Vec<DateTime<Utc>> {
    let sql = format!("SELECT created_at FROM job_queue WHERE dedupe_key='clock:poll:{id}' ORDER BY created_at");
    site.column(&sql).iter().map(|text| parsed(text)).collect()
}

/// Waits until a schedule of `clock` has started so many jobs; they may be more.
fn wait_for_starts(site: &Site, gateway: &Gateway, id: &str, count: usize) -> Vec<DateTime<Utc>> {
    let seen = eventually(|| {
        let starts = starts(site, id);
        if starts.len() >= count { Ok(starts) } else { Err(starts) }
    });
    seen.unwrap_or_else(|seen| panic!("{id} started only {seen:?}\n{}", gateway.said()))
}

/// Waits until a query gives this text.
fn wait_for_text(site: &Site, gateway: &Gateway, sql: &str, wanted: &str) {
    let seen = eventually(|| {
        let seen = site.column(sql).join("\n");
        if seen == wanted { Ok(()) } else { Err(seen) }
    });
    seen.unwrap_or_else(|seen| panic!("{sql}: {seen:?} instead of {wanted:?}\n{}", gateway.said()));
}

/// Waits until no job of `clock` waits or runs.
fn wait_until_idle(site: &Site, gateway: &Gateway) {
    let sql = "SELECT COUNT(*) FROM job_queue WHERE plugin='clock' AND status IN ('queued','running')";
    wait_for_text(site, gateway, sql, "Integer(0)");
}

/// Waits until several ticks have passed.
fn several_ticks(site: &Site, gateway: &Gateway) {
    let count = || -> i64 { site.query("SELECT COUNT(*) FROM job_queue WHERE plugin='witness'") };
    let before = count();
    let seen = eventually(|| if count() >= before + 3 { Ok(()) } else { Err(count()) });
    seen.unwrap_or_else(|seen| panic!("the witness stopped at {seen}\n{}", gateway.said()));
}

/// A column of the row of a schedule of `clock`, empty when it is null.
fn cell(site: &Site, id: &str, column: &str) -> String {
    site.query(&format!(
        "SELECT coalesce({column}, '') FROM schedule_entries WHERE plugin='clock' AND schedule_id='{id}'"
    ))
}

/// What the API tells of a schedule of `clock`.
fn shown(gateway: &Gateway, id: &str) -> Value {
    let answer = gateway.get("/scheduler/jobs");
    assert_eq!(answer.status, 200, "{answer:?}");
    let jobs = answer.body["jobs"].as_array().expect("jobs").clone();
    let found = jobs.into_iter().find(|job| job["plugin"] == "clock" && job["schedule_id"] == id);
    found.unwrap_or_else(|| panic!("{id} is not in {}", answer.body))
}

/// The lines of the log with this message about a schedule of `clock`.
fn logged(gateway: &Gateway, id: &str, message: &str) -> Vec<Value> {
    let log = gateway.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| is_about(line, id, message)).collect()
}

fn is_about(line: &Value, id: &str, message: &str) -> bool {
    line["plugin"] == "clock" && line["schedule_id"] == id && line["message"] == message
}

fn wait_for_line(gateway: &mut Gateway, id: &str, message: &str) -> Value {
    gateway.wait_for_log(message, |line| is_about(line, id, message))
}

/// Any two runs that follow each other are at least so far apart.
fn assert_apart(starts: &[DateTime<Utc>], least: TimeDelta) {
    for pair in starts.windows(2) {
        assert!(pair[1] - pair[0] >= least, "{} and {} are closer than {least}", pair[0], pair[1]);
    }
}
