//! `ductile system migrate`: an older database is brought up to date, whole or not at all.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::site::{GATED, Gateway, OK, Site, ductile, show};

/// All steps, in their order.
const STEPS: [&str; 20] = [
    "job-facts",
    "queue-context",
    "config-snapshots",
    "breakers",
    "schedules",
    "plugin-facts",
    "plugin-fact-seq",
    "job-log-columns",
    "job-log-started-at",
    "indexes",
    "fanout-index",
    "drop-fact-fks",
    "vault-audit",
    "stopwatch",
    "stopwatch-rollup",
    "schedule-definition",
    "ingress-seen",
    "reload-history",
    "text-json",
    "time-format",
];

/// A site without a running gateway, whose database an older program left.
fn old_site() -> (Site, PathBuf) {
    let site = Site::new().plugin("hello", OK);
    site.write_config();
    fs::create_dir(site.path("data")).expect("a directory");
    let path = site.path("data/ductile.db");
    let connection = Connection::open(&path).expect("a database");
    connection.execute_batch("PRAGMA foreign_keys = OFF").expect("a setting");
    connection.execute_batch(include_str!("../../actors/queue/testdata/old.sql")).expect("the old database");
    // What can not be read stays as it is, which is not the matter here.
    connection.execute("DELETE FROM job_queue WHERE id = 'c'", []).expect("a deleted row");
    drop(connection);
    (site, path)
}

/// A site whose database a gateway made, changed by these statements.
fn changed_site(statements: &str) -> (Site, PathBuf) {
    let site = Site::new().plugin("hello", OK);
    let mut gateway = site.start();
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.said());
    let path = site.path("data/ductile.db");
    Connection::open(&path).expect("the database").execute_batch(statements).expect("statements");
    (site, path)
}

fn run(site: &Site, args: &[&str]) -> Output {
    site.command(&[&["system", "migrate"], args].concat()).output().expect("the binary")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn lines(statuses: &[(&str, &str)], last: &str) -> String {
    statuses.iter().map(|(step, status)| format!("{step}: {status}\n")).chain([format!("{last}\n")]).collect()
}

/// What a run prints that applies these steps.
fn applied(steps: &[&str], word: &str, last: &str) -> String {
    let status = |step: &&'static str| (*step, if steps.contains(step) { word } else { "already present" });
    lines(&STEPS.iter().map(status).collect::<Vec<_>>(), last)
}

const AT_100: &str = "database is at schema version 100";

/// Tables with their columns, and indexes with theirs: names, types, defaults, order, and what is unique.
fn shape(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).expect("the database");
    shape_of(&connection)
}

fn shape_of(connection: &Connection) -> Vec<String> {
    let sql = "
        SELECT 'column ' || m.name || ' ' || format('%02d', c.cid) || ' ' || c.name || ' ' || c.type || ' '
               || c.\"notnull\" || ' ' || ifnull(c.dflt_value, '-') || ' ' || c.pk
        FROM sqlite_master m, pragma_table_info(m.name) c
        WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'
        UNION ALL
        SELECT 'index ' || m.name || ' ' || l.name || ' ' || l.\"unique\" || l.partial || l.origin || ' '
               || (SELECT group_concat(ifnull(i.name, '?'), ',') FROM pragma_index_info(l.name) i)
        FROM sqlite_master m, pragma_index_list(m.name) l WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'
        UNION ALL
        SELECT 'reference ' || m.name FROM sqlite_master m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table'
        ORDER BY 1";
    let mut statement = connection.prepare(sql).expect("a query");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

fn fresh_shape() -> Vec<String> {
    let memory = Connection::open_in_memory().expect("memory");
    memory.execute_batch(include_str!("../../schema.sql")).expect("the schema");
    shape_of(&memory)
}

fn count(path: &Path, table: &str) -> i64 {
    let connection = Connection::open(path).expect("the database");
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a count")
}

/// What a gateway warned of that has to do with its database.
fn warnings(gateway: &Gateway) -> Vec<Value> {
    let lines = gateway.log().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>();
    lines.into_iter().filter(|line| line["level"] == "WARN" && line["component"] == "queue").collect()
}

const OLD_TABLES: [&str; 7] =
    ["job_queue", "job_transitions", "job_attempts", "job_log", "plugin_facts", "plugin_state", "schedule_entries"];

fn counts(path: &Path) -> Vec<i64> {
    OLD_TABLES.iter().map(|table| count(path, table)).collect()
}

/// Files beside the database.
fn beside(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.parent().expect("a directory")).expect("the directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn an_old_database_gets_the_schema_of_a_fresh_one_keeps_its_rows_and_serves() {
    let (site, path) = old_site();
    let before = counts(&path);
    let (status, refused) = site.start_refused();
    assert_eq!(status.code(), Some(1));
    assert!(refused.contains("run \"ductile system migrate\" (step plugin-fact-seq)"), "{refused}");
    let output = run(&site, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let all_but_one: Vec<&str> = STEPS.iter().copied().filter(|step| *step != "job-facts").collect();
    assert_eq!(stdout(&output), applied(&all_but_one, "applied", AT_100), "{}", show(&output));
    let said = stderr(&output);
    let backup = said.lines().find_map(|line| line.strip_prefix("snapshot: ")).expect("a snapshot").to_owned();
    let stamp = backup.strip_prefix(&format!("{}.pre-migrate-", path.display())).expect("the name of a snapshot");
    chrono::NaiveDateTime::parse_from_str(stamp, "%Y%m%dT%H%M%SZ").expect("a time");
    assert_eq!(fs::metadata(&backup).expect("the snapshot").permissions().mode() & 0o777, 0o600);
    assert_eq!(counts(Path::new(&backup)), before);
    assert_eq!(count(Path::new(&backup), "pragma_table_info('plugin_facts') WHERE name = 'seq'"), 0);
    assert_eq!((shape(&path), counts(&path)), (fresh_shape(), before.clone()));
    assert_eq!(fs::metadata(&path).expect("the database").permissions().mode() & 0o777, 0o600);

    let bytes = fs::read(&path).expect("the database");
    let output = run(&site, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert_eq!((stdout(&output), stderr(&output)), (applied(&[], "", AT_100), String::new()));
    assert!(fs::read(&path).expect("the database") == bytes, "a second run changes nothing");
    assert_eq!(beside(&path).len(), 3, "database, lock and one snapshot: {:?}", beside(&path));

    let gateway = site.start();
    assert_eq!(gateway.wait_for(&gateway.trigger("hello", "poll"))["status"], "succeeded", "{}", gateway.said());
    assert_eq!(warnings(&gateway), Vec::<Value>::new(), "nothing is missing any more");
    let mut wide: Vec<String> =
        site.column("SELECT created_at FROM job_log UNION ALL SELECT created_at FROM plugin_facts");
    wide.retain(|time| time.len() != 30);
    assert!(wide.is_empty(), "{wide:?}");
}

#[test]
fn a_narrow_event_index_is_rebuilt() {
    let (site, path) = changed_site(
        "DROP INDEX job_queue_event_source_idx;
         CREATE UNIQUE INDEX job_queue_event_source_idx ON job_queue (parent_job_id, source_event_id)
         WHERE source_event_id IS NOT NULL",
    );
    assert!(site.start_refused().1.contains("wrong index job_queue_event_source_idx"));
    let output = run(&site, &["--no-backup"]);
    assert_eq!(stdout(&output), applied(&["fanout-index"], "applied", AT_100), "{}", show(&output));
    assert_eq!(beside(&path), ["ductile.db", "ductile.pid"], "no snapshot was asked for");
    site.start();
}

#[test]
fn a_dry_run_names_the_steps_and_changes_no_byte() {
    let (site, path) = old_site();
    let before = (fs::read(&path).expect("the database"), beside(&path));
    let output = run(&site, &["--dry-run"]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let all_but_one: Vec<&str> = STEPS.iter().copied().filter(|step| *step != "job-facts").collect();
    assert_eq!(stdout(&output), applied(&all_but_one, "would apply", "database is at schema version 0"));
    let output = run(&site, &["--dry-run", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let status = |step: &str| if step == "job-facts" { "already present" } else { "would apply" };
    let steps: Vec<Value> = STEPS.iter().map(|step| json!({"name": step, "status": status(step)})).collect();
    let expected = json!({
        "db": path, "backup": null, "dry_run": true, "from_version": 0, "to_version": 100, "steps": steps, "ok": true,
    });
    assert_eq!(document, expected);
    assert!((fs::read(&path).expect("the database"), beside(&path)) == before);
}

#[test]
fn json_tells_the_steps_the_versions_and_the_snapshot_and_nothing_else_is_on_stdout() {
    let (site, path) = changed_site("DROP TABLE vault_audit; PRAGMA user_version = 0");
    let output = ductile(&["system", "migrate", "--json", "--db"]).arg(&path).output().expect("the binary");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let status = |step: &str| if step == "vault-audit" { "applied" } else { "already present" };
    let steps: Vec<Value> = STEPS.iter().map(|step| json!({"name": step, "status": status(step)})).collect();
    let backup = document["backup"].clone();
    assert!(backup.as_str().is_some_and(|name| Path::new(name).exists()), "{document}");
    let expected = json!({
        "db": path, "backup": backup, "dry_run": false, "from_version": 0, "to_version": 100, "steps": steps,
        "ok": true,
    });
    assert_eq!(document, expected);
    assert_eq!(site.query::<i64>("PRAGMA user_version"), 100);
}

#[test]
fn a_step_that_fails_is_named_and_leaves_the_steps_before_it() {
    let (site, path) = changed_site(
        "DROP INDEX job_queue_event_source_idx; DROP INDEX job_log_completed_at_idx;
         INSERT INTO job_queue (id, plugin, command, status, submitted_by, created_at, parent_job_id, source_event_id)
         VALUES ('a', 'p', 'c', 'dead', 'api', '2026-01-02 03:04:05.000000000Z', 'root', 'event'),
                ('b', 'p', 'c', 'dead', 'api', '2026-01-02 03:04:05.000000000Z', 'root', 'event')",
    );
    let output = run(&site, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(stdout(&output).ends_with("indexes: applied\nfanout-index: failed\n"), "{}", show(&output));
    assert!(stderr(&output).contains("step fanout-index failed: "), "{}", show(&output));
    assert!(shape(&path).iter().any(|line| line.contains("job_log_completed_at_idx")));
    let output = run(&site, &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&document["ok"], &document["steps"][10]["status"]), (&json!(false), &json!("failed")));
    assert!(document["error"].as_str().is_some_and(|text| text.starts_with("step fanout-index failed: ")));
    assert_eq!(count(&path, "job_queue"), 2);
}

#[test]
fn a_column_that_rows_can_not_do_without_is_refused_before_any_change() {
    let (site, path) = changed_site("ALTER TABLE job_log RENAME COLUMN attempt TO tries; DROP TABLE vault_audit");
    let before = (fs::read(&path).expect("the database"), beside(&path));
    for args in [&[][..], &["--dry-run"]] {
        let output = run(&site, args);
        assert_eq!(output.status.code(), Some(1), "{}", show(&output));
        assert!(stderr(&output).starts_with("can not migrate job_log.attempt"), "{}", show(&output));
        assert!((fs::read(&path).expect("the database"), beside(&path)) == before);
    }
}

#[test]
fn a_running_gateway_is_not_migrated_under() {
    let (site, path) = changed_site("DROP TABLE vault_audit");
    let gateway = site.start();
    let text = format!("gateway is running (pid {}): stop it before migrating", gateway.pid());
    for args in [&[][..], &["--dry-run"], &["--no-backup", "--vacuum"]] {
        let output = run(&site, args);
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), String::new()), "{}", show(&output));
        assert_eq!(stderr(&output), format!("{text}\n"));
    }
    let output = run(&site, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&document["error"], &document["code"]), (&json!(text), &json!(75)));
    let link = site.path("link.db");
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    let output = ductile(&["system", "migrate", "--db"]).arg(&link).output().expect("the binary");
    assert_eq!(stderr(&output), format!("{text}\n"), "{}", show(&output));
    assert_eq!(site.query::<i64>("SELECT count(*) FROM sqlite_master WHERE name = 'vault_audit'"), 0);
    assert!(!beside(&path).iter().any(|name| name.contains("pre-migrate")), "{:?}", beside(&path));
}

#[test]
fn additive_tables_come_beside_a_running_gateway_and_are_used_at_once() {
    let (site, path) = changed_site(
        "DROP TABLE vault_audit; DROP TABLE job_stopwatch; DROP TABLE job_stopwatch_rollup_daily;
         DROP TABLE janitor_heartbeat; DROP TABLE ingress_seen; DROP TABLE reload_history",
    );
    let site = site.plugin("gated", GATED);
    let gateway = site.start();
    let gated = gateway.trigger_with("gated", "poll", &json!({"gate": site.path("gate")}));
    gateway.wait_for_status(&gated, |status| status == "running");
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200);
    let output = site.command(&["system", "reload", "--history"]).output().expect("the binary");
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "No reloads recorded.\n"));
    assert!(stderr(&output).contains("ductile system migrate --additive"), "{}", show(&output));
    let output = run(&site, &["--additive"]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    let additive = ["vault-audit", "stopwatch", "stopwatch-rollup", "ingress-seen", "reload-history"];
    assert_eq!(stdout(&output), lines(&additive.map(|step| (step, "applied")), AT_100));
    assert_eq!(stderr(&output), "");
    assert_eq!(shape_of(&site.database()), fresh_shape());
    assert!(!beside(&path).iter().any(|name| name.contains("pre-migrate")), "{:?}", beside(&path));
    assert_eq!(gateway.post("/system/reload", &json!({})).status, 200);
    assert_eq!(site.column("SELECT outcome FROM reload_history"), ["ok"], "the table is used without a restart");
    fs::write(site.path("gate"), "").expect("a file");
    assert_eq!(gateway.wait_for(&gated)["status"], "succeeded");
    assert_eq!(gateway.wait_for(&gateway.trigger("hello", "poll"))["status"], "succeeded");
    assert_eq!(site.query::<i64>("SELECT count(*) FROM job_queue WHERE status <> 'succeeded'"), 0);
    let output = run(&site, &["--additive"]);
    assert_eq!(stdout(&output), lines(&additive.map(|step| (step, "already present")), AT_100));
}

#[test]
fn an_older_database_with_optional_parts_missing_starts_with_one_warning_that_names_the_steps() {
    let (site, _) = changed_site(
        "ALTER TABLE job_log DROP COLUMN started_at; ALTER TABLE schedule_entries DROP COLUMN definition;
         DROP INDEX job_queue_parent_idx; DROP TABLE ingress_seen",
    );
    let gateway = site.start();
    let warnings = warnings(&gateway);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let message = warnings[0]["message"].as_str().expect("a message");
    assert!(message.ends_with("run \"ductile system migrate\" at the next stop"), "{message}");
    assert_eq!(warnings[0]["steps"], "indexes, ingress-seen, job-log-started-at, schedule-definition");
    let missing = "missing table ingress_seen, missing column job_log.started_at, \
                   missing column schedule_entries.definition, missing index job_queue_parent_idx";
    assert_eq!(warnings[0]["missing"], missing);
    assert_eq!(gateway.wait_for(&gateway.trigger("hello", "poll"))["status"], "succeeded");
}

#[test]
fn what_is_no_database_of_a_gateway_is_refused_and_left_alone() {
    let site = Site::new();
    site.write_config();
    fs::create_dir(site.path("data")).expect("a directory");
    let path = site.path("data/ductile.db");
    let refused = |args: &[&str]| {
        let before = (fs::read(&path).ok(), beside(&path));
        let output = run(&site, args);
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), String::new()), "{}", show(&output));
        assert!((fs::read(&path).ok(), beside(&path)) == before, "nothing is created or changed");
        stderr(&output)
    };
    assert_eq!(refused(&[]), format!("database not found: {}\n", path.display()));
    assert_eq!(refused(&["--additive"]), format!("database not found: {}\n", path.display()));
    Connection::open(&path).expect("a database").execute_batch("CREATE TABLE songs (name TEXT)").expect("a table");
    assert_eq!(refused(&[]), format!("not a gateway database: {}\n", path.display()));
    assert_eq!(refused(&["--additive"]), format!("not a gateway database: {}\n", path.display()));
    fs::write(&path, "not a database, only notes\n".repeat(100)).expect("a file");
    assert!(refused(&[]).contains("is not a SQLite database"));
    let before = fs::read(&path).expect("the file");
    assert_eq!(site.start_refused().0.code(), Some(1));
    assert!(fs::read(&path).expect("the file") == before);
    fs::write(&path, "").expect("a file");
    let files = beside(&path);
    let output = run(&site, &[]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), "nothing to migrate\n".to_owned()));
    assert_eq!((fs::read(&path).expect("the file"), beside(&path)), (Vec::new(), files));
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    let site = Site::new();
    let output = run(&site, &["--db", "x.db"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), "use only one of --config or --db\n".to_owned()));
    let output = run(&site, &["--additive", "--vacuum"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
}

#[test]
fn vacuum_shrinks_the_file_and_a_gateway_may_go_on_with_it() {
    let (site, path) = changed_site(
        "PRAGMA auto_vacuum = NONE; PRAGMA journal_mode = DELETE; VACUUM;
         INSERT INTO vault_audit (op, outcome, created_at, detail)
         VALUES ('set', 'ok', '2026-01-02 03:04:05.000000000Z', hex(zeroblob(500000)));
         DELETE FROM vault_audit",
    );
    assert_eq!(site.query::<i64>("PRAGMA auto_vacuum"), 0);
    let before = fs::metadata(&path).expect("the database").len();
    let output = run(&site, &["--vacuum"]);
    assert_eq!(stdout(&output), applied(&[], "", AT_100), "{}", show(&output));
    assert!(fs::metadata(&path).expect("the database").len() < before - 900_000);
    assert_eq!(site.query::<i64>("PRAGMA auto_vacuum"), 2);
    site.start();
}

/// Large enough that a kill meets any part of it: the snapshot, a copied table, rewritten rows, the check.
fn grow(path: &Path) {
    let connection = Connection::open(path).expect("the database");
    connection
        .execute_batch(
            "PRAGMA foreign_keys = OFF;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             INSERT INTO job_log (id, plugin, command, status, attempt, submitted_by, created_at, completed_at, stderr)
             SELECT 'j' || i || '-1', 'echo', 'poll', 'succeeded', 1, 'api', '2026-01-02T03:04:05Z',
                    '2026-01-02T03:04:06.5Z', hex(zeroblob(100)) FROM n;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             INSERT INTO plugin_facts
             SELECT 'x' || i, 'echo', 'seen', 'a', 'poll', CAST('{\"n\":' || i || '}' AS BLOB), '2026-01-02T03:04:06Z'
             FROM n;",
        )
        .expect("rows");
}

#[test]
fn a_migration_that_is_killed_at_any_instant_is_completed_by_the_next() {
    let (site, path) = old_site();
    grow(&path);
    let old = fs::read(&path).expect("the database");
    let expected = counts(&path);
    let begin = Instant::now();
    let output = run(&site, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    // Only to aim the kills; nothing is concluded from it.
    let whole = begin.elapsed();
    let mut killed = 0;
    for kill in 0..16_u32 {
        for name in beside(&path) {
            fs::remove_file(path.with_file_name(name)).expect("a file of the run before");
        }
        fs::write(&path, &old).expect("the old database");
        let journal = ["DELETE", "WAL"][kill as usize % 2];
        let connection = Connection::open(&path).expect("the database");
        connection.execute_batch(&format!("PRAGMA journal_mode = {journal}")).expect("a journal mode");
        drop(connection);
        let mut child = site
            .command(&["system", "migrate"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary");
        let instant = whole * kill / 16 + Duration::from_micros(fastrand::u64(0..10_000));
        std::thread::sleep(instant);
        child.kill().expect("a kill");
        killed += u32::from(!child.wait().expect("its status").success());
        let output = run(&site, &[]);
        assert_eq!(output.status.code(), Some(0), "killed after {instant:?}: {}", show(&output));
        assert_eq!((shape(&path), counts(&path)), (fresh_shape(), expected.clone()), "killed after {instant:?}");
        assert_eq!(stdout(&run(&site, &[])), applied(&[], "", AT_100), "killed after {instant:?}");
        let partial = beside(&path).into_iter().filter(|name| name.starts_with('.')).count();
        assert_eq!(partial, 0, "{:?}", beside(&path));
        for snapshot in beside(&path).into_iter().filter(|name| name.contains(".pre-migrate-")) {
            assert_eq!(counts(&path.with_file_name(snapshot)), expected);
        }
    }
    assert!(killed > 0, "no kill came in time");
    site.start();
}
