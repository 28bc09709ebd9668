//! The database file as operators and their tools see it: created, refused, read and changed beside a running gateway.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use rusqlite::types::Value as Cell;
use serde_json::{Value, json};

use crate::site::{Client, GATED, OK, Site, eventually, token};

/// All rows of a query, as an operator's shell would get them.
fn rows(connection: &Connection, sql: &str) -> Vec<Vec<Cell>> {
    let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let columns = statement.column_count();
    let mut found = statement.query([]).expect("a query");
    let mut all = Vec::new();
    while let Some(row) = found.next().unwrap_or_else(|error| panic!("{sql}: {error}")) {
        all.push((0..columns).map(|column| row.get(column).expect("a value")).collect());
    }
    all
}

fn text(value: &str) -> Cell {
    Cell::Text(value.to_owned())
}

/// Names, kinds and definitions of everything in a database.
fn objects(connection: &Connection) -> Vec<Vec<Cell>> {
    rows(connection, "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

/// A database that a gateway of this site made and left in order, as bytes.
fn left_by_a_stop(site: &Site) -> Vec<u8> {
    let mut gateway = site.start();
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.said());
    fs::read(site.path("data/ductile.db")).expect("the database")
}

/// Puts a database into its place, changed by these statements.
fn place(site: &Site, bytes: &[u8], statements: &str) {
    for side in ["ductile.db-wal", "ductile.db-shm"] {
        drop(fs::remove_file(site.path("data").join(side)));
    }
    fs::write(site.path("data/ductile.db"), bytes).expect("the database");
    let connection = site.outsider();
    connection.execute_batch("PRAGMA journal_mode = DELETE").expect("one file");
    connection.execute_batch(statements).unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// The start must refuse this database, say why on stderr, and change nothing.
fn refused(site: &Site) -> String {
    let path = site.path("data/ductile.db");
    let before = fs::read(&path).expect("the database");
    let (status, stderr) = site.start_refused();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(fs::read(&path).expect("the database") == before, "a refused file is not changed: {stderr}");
    stderr
}

#[test]
fn a_new_database_is_private_under_any_umask_and_has_the_whole_schema() {
    let site = Site::new().plugin("hello", OK);
    site.write_config();
    let mut child = Command::new("sh")
        .args(["-c", "umask 000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_ductile"), "system", "start", "--config"])
        .arg(site.config())
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary");
    let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let running = lines.map_while(Result::ok).any(|line| line.contains("ductile running"));
    let seen = running.then(|| {
        let modes =
            ["", "ductile.db", "ductile.db-wal", "ductile.db-shm"].map(|name| mode(&site.path("data").join(name)));
        let fresh = Connection::open_in_memory().expect("memory");
        fresh.execute_batch(include_str!("../../schema.sql")).expect("the schema");
        (modes, objects(&site.database()), objects(&fresh))
    });
    drop(child.kill());
    drop(child.wait());
    let (modes, made, expected) = seen.expect("a gateway that runs");
    assert_eq!(modes, [0o700, 0o600, 0o600, 0o600]);
    assert_eq!(made, expected);
}

#[test]
fn a_database_that_lacks_something_required_is_refused_with_the_step_that_adds_it() {
    let site = Site::new();
    let bytes = left_by_a_stop(&site);
    for (table, step) in [
        ("storage_sequences", "plugin-fact-seq"),
        ("job_queue", ""),
        ("job_transitions", "job-facts"),
        ("job_attempts", "job-facts"),
        ("config_snapshots", "config-snapshots"),
        ("plugin_state", "plugin-facts"),
        ("plugin_facts", "plugin-facts"),
        ("event_context", "queue-context"),
        ("job_log", ""),
        ("circuit_breakers", "breakers"),
        ("circuit_breaker_transitions", "breakers"),
        ("schedule_entries", "schedules"),
    ] {
        place(&site, &bytes, &format!("DROP TABLE {table}"));
        let stderr = refused(&site);
        assert!(stderr.contains(&format!("missing table {table};")), "{stderr}");
        assert!(stderr.contains("run \"ductile system migrate\""), "{stderr}");
        assert!(stderr.contains(&format!("(step {step}")), "{stderr}");
    }
    place(&site, &bytes, "ALTER TABLE plugin_facts RENAME COLUMN seq TO other");
    let stderr = refused(&site);
    assert!(
        stderr.contains("missing column plugin_facts.seq;") && stderr.contains("(step plugin-fact-seq)"),
        "{stderr}"
    );
    place(
        &site,
        &bytes,
        "DROP INDEX job_queue_event_source_idx;
         CREATE UNIQUE INDEX job_queue_event_source_idx ON job_queue (parent_job_id, source_event_id)
         WHERE source_event_id IS NOT NULL",
    );
    let stderr = refused(&site);
    assert!(stderr.contains("wrong index job_queue_event_source_idx;"), "{stderr}");
    assert!(stderr.contains("(step fanout-index)"), "{stderr}");
}

#[test]
fn a_newer_major_version_is_refused_and_a_newer_minor_one_serves() {
    let site = Site::new().plugin("hello", OK);
    let bytes = left_by_a_stop(&site);
    place(&site, &bytes, "PRAGMA user_version = 900");
    let stderr = refused(&site);
    assert!(stderr.contains("database schema version 900 is newer than this binary (100)"), "{stderr}");
    place(&site, &bytes, "PRAGMA user_version = 107");
    let gateway = site.start();
    assert_eq!(gateway.wait_for(&gateway.trigger("hello", "poll"))["status"], "succeeded");
    assert_eq!(site.query::<i64>("PRAGMA user_version"), 107);
}

#[test]
fn a_database_of_another_program_is_refused_and_left_alone() {
    let site = Site::new();
    fs::create_dir(site.path("data")).expect("a directory");
    let path = site.path("data/ductile.db");
    site.outsider().execute_batch("CREATE TABLE songs (name TEXT); INSERT INTO songs VALUES ('x')").expect("a table");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
    let stderr = refused(&site);
    assert!(stderr.contains("ductile.db") || stderr.contains("missing table"), "{stderr}");
    assert_eq!(mode(&path), 0o644);
    assert_eq!(rows(&site.outsider(), "SELECT name FROM songs"), [[text("x")]]);
}

#[test]
fn without_an_additive_table_the_gateway_warns_once_works_and_does_not_add_it() {
    let site = Site::new().plugin("hello", OK);
    let bytes = left_by_a_stop(&site);
    for table in [
        "vault_audit",
        "job_stopwatch",
        "job_stopwatch_rollup_daily",
        "janitor_heartbeat",
        "ingress_seen",
        "reload_history",
    ] {
        place(&site, &bytes, &format!("DROP TABLE {table}"));
        let mut gateway = site.start();
        assert_eq!(gateway.wait_for(&gateway.trigger("hello", "poll"))["status"], "succeeded", "{table}");
        assert_eq!(gateway.post("/system/reload", &json!({})).status, 200, "{table}");
        assert_eq!(gateway.wait_for(&gateway.trigger("hello", "poll"))["status"], "succeeded", "{table}");
        assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.said());
        let log: Vec<Value> = gateway.log().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let missing = json!(format!("missing table {table}"));
        let warnings: Vec<&Value> =
            log.iter().filter(|line| line["level"] == "WARN" && line["missing"] == missing).collect();
        assert_eq!(warnings.len(), 1, "{table}: {}", gateway.said());
        assert!(warnings[0]["message"].as_str().is_some_and(|text| text.contains("system migrate --additive")));
        assert!(warnings[0]["without_them"].as_str().is_some_and(|text| !text.is_empty()));
        assert!(!log.iter().any(|line| line["level"] == "ERROR"), "{table}: {}", gateway.said());
        let there = format!("SELECT COUNT(*) FROM sqlite_master WHERE name = '{table}'");
        assert_eq!(site.query::<i64>(&there), 0, "{table}");
    }
}

/// A plugin whose every answer is kept as a fact.
fn with_facts(site: Site, name: &str, script: &str) -> Site {
    let facts =
        format!("fact_outputs:\n  - {{when: {{command: poll}}, from: state_updates, fact_type: {name}.snapshot}}");
    site.plugin_with(name, script, &facts, "")
}

const REPORTING: &str =
    r#"cat >/dev/null; echo '{"status":"ok","result":"x","state_updates":{"job":"'$DUCTILE_JOB_ID'"}}'"#;

#[test]
fn every_query_of_the_operators_book_runs_beside_the_gateway_and_tells_what_its_title_says() {
    let failing = r#"cat >/dev/null; if [ "$DUCTILE_COMMAND" = health ]; then echo 'lost the disk' >&2; echo '{"status":"error","error":"no disk"}'; else while [ ! -e "$DUCTILE_PAYLOAD_GATE" ]; do sleep 0.02; done; echo '{"status":"ok","result":"done","state_updates":{"n":1}}'; fi"#;
    let site = with_facts(Site::new().service("max_workers: 2").plugin("my-plugin", failing), "file_watch", REPORTING);
    let gateway = site.start();
    let connection = site.outsider();
    let slow = gateway.trigger_with("my-plugin", "poll", &json!({"gate": site.path("gate")}));
    for _ in 0..3 {
        gateway.wait_for(&gateway.trigger("file_watch", "poll"));
    }
    gateway.wait_for(&gateway.trigger("my-plugin", "health"));
    let running_for = |modifier: &str| {
        rows(
            &connection,
            &format!(
                "SELECT id, plugin, command, started_at FROM job_queue
WHERE status = 'running' AND started_at < datetime('now', '{modifier}');"
            ),
        )
    };
    let long = eventually(|| {
        let found = running_for("-2 seconds");
        if found.is_empty() { Err(()) } else { Ok(found) }
    });
    assert_eq!(long.expect("a job that runs for more than two seconds")[0][0], text(&slow));
    assert_eq!(running_for("-60 seconds"), Vec::<Vec<Cell>>::new());
    assert_eq!(running_for("-1 hour"), Vec::<Vec<Cell>>::new());
    fs::write(site.path("gate"), "").expect("a file");
    assert_eq!(gateway.wait_for(&slow)["status"], "succeeded");

    let by_status = rows(
        &connection,
        "-- jobs by status
SELECT status, COUNT(*) FROM job_queue GROUP BY status;",
    );
    assert_eq!(by_status, [[text("failed"), Cell::Integer(1)], [text("succeeded"), Cell::Integer(4)]]);
    let slowest = rows(
        &connection,
        "-- slowest successful jobs of the last day
SELECT plugin, command, (strftime('%s', completed_at) - strftime('%s', started_at)) as duration_sec
FROM job_log WHERE status = 'succeeded' AND completed_at > datetime('now', '-1 day')
ORDER BY duration_sec DESC LIMIT 10;",
    );
    assert_eq!(slowest.len(), 4);
    assert_eq!(slowest[0][..2], [text("my-plugin"), text("poll")]);
    assert!(matches!(slowest[0][2], Cell::Integer(seconds) if seconds >= 2), "{slowest:?}");
    assert!(slowest.iter().all(|row| matches!(row[2], Cell::Integer(_))), "{slowest:?}");
    let latest = rows(
        &connection,
        "-- latest error of a plugin
SELECT completed_at, last_error, stderr FROM job_log
WHERE plugin = 'my-plugin' AND status = 'failed' ORDER BY completed_at DESC LIMIT 1;",
    );
    assert_eq!(latest[0][1..], [text("no disk"), text("lost the disk\n")]);
    let facts = rows(
        &connection,
        "-- recent facts of a plugin
SELECT seq, created_at, fact_type, job_id, command, fact_json FROM plugin_facts
WHERE plugin_name = 'file_watch'
ORDER BY CASE WHEN seq IS NULL THEN 1 ELSE 0 END ASC, seq DESC, created_at DESC LIMIT 20;",
    );
    let numbers: Vec<&Cell> = facts.iter().map(|row| &row[0]).collect();
    assert_eq!(numbers, [&Cell::Integer(3), &Cell::Integer(2), &Cell::Integer(1)]);
    let state = rows(
        &connection,
        "-- current state of a plugin
SELECT state FROM plugin_state WHERE plugin_name = 'my-plugin';",
    );
    assert_eq!(state, [[text(r#"{"n":1}"#)]]);
    // Nothing has happened that these could show.
    for sql in [
        "-- active breakers
SELECT plugin, command, state, failure_count, opened_at FROM circuit_breakers WHERE state != 'closed';",
        "-- recent breaker transitions
SELECT created_at, plugin, command, from_state, to_state, reason, failure_count, job_id
FROM circuit_breaker_transitions WHERE plugin = 'my-plugin' AND command = 'poll'
ORDER BY created_at DESC LIMIT 20;",
        "-- upcoming scheduled runs
SELECT plugin, schedule_id, next_run_at, last_success_at FROM schedule_entries
WHERE status = 'active' ORDER BY next_run_at ASC;",
        "-- vault denials
SELECT created_at, op, secret_name, actor, outcome, detail FROM vault_audit
WHERE principal = 'my-plugin' ORDER BY id DESC LIMIT 20;",
    ] {
        assert_eq!(rows(&connection, sql), Vec::<Vec<Cell>>::new(), "{sql}");
    }
    connection
        .execute_batch(
            "-- maintenance
DELETE FROM job_log WHERE completed_at < datetime('now', '-7 days');
VACUUM;
PRAGMA journal_mode;   -- wal
PRAGMA synchronous;    -- per connection: 1 (NORMAL) on the gateway's own connections",
        )
        .expect("maintenance");
    assert_eq!(rows(&connection, "PRAGMA journal_mode;"), [[text("wal")]]);
    assert_eq!(rows(&connection, "SELECT COUNT(*) FROM job_log"), [[Cell::Integer(5)]], "nothing was a week old");
    assert_eq!(gateway.wait_for(&gateway.trigger("file_watch", "poll"))["status"], "succeeded");
}

/// Queues a job from any thread and gives its id.
fn trigger(client: &Client, plugin: &str) -> String {
    let answer = client.post(&format!("/plugin/{plugin}/poll"), "{}", &[]);
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.body["job_id"].as_str().expect("an id").to_owned()
}

/// Posts jobs from another thread until the work is done; gives their ids.
fn while_jobs_run(client: &Client, plugin: &str, mut work: impl FnMut()) -> Vec<String> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let posting = scope.spawn(|| {
            let mut jobs = Vec::new();
            while !done.load(Ordering::Relaxed) {
                jobs.push(trigger(client, plugin));
            }
            jobs
        });
        work();
        done.store(true, Ordering::Relaxed);
        posting.join().expect("all jobs accepted")
    })
}

#[test]
fn cleaning_up_from_outside_while_jobs_run_loses_none() {
    let site = Site::new().service("max_workers: 3").plugin("hello", OK);
    let gateway = site.start();
    let connection = site.outsider();
    let jobs = while_jobs_run(&gateway.client(), "hello", || {
        for _ in 0..5 {
            // There must be something to delete each time.
            eventually(|| match site.query::<i64>("SELECT COUNT(*) FROM job_log") {
                0 => Err(()),
                _ => Ok(()),
            })
            .expect("finished jobs");
            connection
                .execute_batch("DELETE FROM job_log; VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")
                .expect("a clean-up");
        }
    });
    assert!(jobs.len() >= 5, "{jobs:?}");
    for job in &jobs {
        let seen = gateway.wait_for(job);
        assert_eq!((&seen["status"], &seen["attempt"]), (&json!("succeeded"), &json!(1)));
    }
    assert_eq!(site.query::<String>("PRAGMA integrity_check"), "ok");
}

#[test]
fn a_reader_that_stays_disturbs_no_job_and_leaves_no_log_behind() {
    let site = Site::new().plugin("hello", OK);
    let mut gateway = site.start();
    let reader = site.database();
    reader.execute_batch("BEGIN").expect("a transaction");
    let count = |connection: &Connection| rows(connection, "SELECT COUNT(*) FROM job_queue");
    assert_eq!(count(&reader), [[Cell::Integer(0)]]);
    let jobs: Vec<String> = (0..30).map(|_| gateway.trigger("hello", "poll")).collect();
    jobs.iter().for_each(|job| assert_eq!(gateway.wait_for(job)["status"], "succeeded"));
    assert_eq!(count(&reader), [[Cell::Integer(0)]], "the reader sees its own instant");
    reader.execute_batch("COMMIT").expect("the end of the transaction");
    drop(reader);
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.said());
    assert_eq!(fs::metadata(site.path("data/ductile.db-wal")).map_or(0, |file| file.len()), 0);
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_queue WHERE status = 'succeeded'"), 30);
}

#[test]
fn facts_of_plugins_that_run_side_by_side_are_numbered_in_one_row_without_gaps() {
    let site = with_facts(with_facts(Site::new().service("max_workers: 4"), "left", REPORTING), "right", REPORTING);
    let gateway = site.start();
    let jobs: Vec<String> = std::thread::scope(|scope| {
        let posts = ["left", "right"].map(|plugin| {
            let client = gateway.client();
            scope.spawn(move || (0..250).map(|_| trigger(&client, plugin)).collect::<Vec<_>>())
        });
        posts.into_iter().flat_map(|post| post.join().expect("all jobs accepted")).collect()
    });
    jobs.iter().for_each(|job| assert_eq!(gateway.wait_for(job)["status"], "succeeded"));
    let numbers = rows(
        &site.database(),
        "SELECT COUNT(*), COUNT(DISTINCT seq), MIN(seq), MAX(seq), COUNT(DISTINCT job_id) FROM plugin_facts",
    );
    assert_eq!(numbers, [[500, 500, 1, 500, 500].map(Cell::Integer)]);
    assert_eq!(site.query::<i64>("SELECT value FROM storage_sequences WHERE name = 'plugin_facts'"), 500);
    let newest = "SELECT fact_json FROM plugin_facts f WHERE f.plugin_name = s.plugin_name ORDER BY seq DESC LIMIT 1";
    let other: i64 = site.query(&format!("SELECT COUNT(*) FROM plugin_state s WHERE state <> ({newest})"));
    assert_eq!((other, site.query::<i64>("SELECT COUNT(*) FROM plugin_state")), (0, 2));
    let backwards: i64 = site.query(
        "SELECT COUNT(*) FROM plugin_facts a JOIN plugin_facts b ON b.seq = a.seq + 1 WHERE b.created_at < a.created_at",
    );
    assert_eq!(backwards, 0, "numbers follow the commits");
}

#[test]
fn no_secret_is_in_any_file_of_the_state() {
    // Says what it was given wherever it is heard, except in an answer, which is its own.
    let telling = r#"read -r request; value=$(printf '%s' "$request" | sed -n 's/.*"pw":"\([^"]*\)".*/\1/p'); echo "was given $value" >&2; echo "$value" >> "$DUCTILE_PAYLOAD_OUT"
case "$DUCTILE_PAYLOAD_END" in hang) sleep 600;; mumble) echo "$value";; *) exit 3;; esac"#;
    let site = Site::new().plugin("mailer", OK).plugin_entry("second", "uses: mailer\nenabled: true").plugin_with(
        "telling",
        telling,
        "",
        "vault_principal: mailer\nretry: {max_attempts: 1}\ntimeouts: {poll: 500ms}",
    );
    let value = "s3cr3t-value-of-the-mailer";
    site.principal("mailer");
    site.secret("pw", value, "mailer");
    let mut gateway = site.start();
    let refused = gateway.client().post("/plugin/mailer/poll", "{not json", &[]);
    assert_eq!(refused.status, 400);
    for _ in 0..2 {
        for plugin in ["mailer", "second"] {
            assert_eq!(gateway.wait_for(&gateway.trigger(plugin, "poll"))["status"], "succeeded");
        }
        assert_eq!(gateway.post("/system/reload", &json!({})).status, 200);
    }
    let out = site.path("out");
    let payload = |end: &str| json!({"out": out, "end": end});
    for (end, status) in [("hang", "timed_out"), ("mumble", "failed"), ("break", "failed")] {
        let job = gateway.trigger_with("telling", "poll", &payload(end));
        assert_eq!(gateway.wait_for(&job)["status"], status, "{end}");
        let again = gateway.post(&format!("/job/{job}/retry"), &json!({}));
        gateway.wait_for(again.body["job_id"].as_str().expect("an id"));
    }
    let cancelled = gateway.trigger_with("telling", "poll", &payload("hang"));
    gateway.wait_for_status(&cancelled, |status| status == "running");
    gateway.post(&format!("/job/{cancelled}/cancel"), &json!({"reason": "enough"}));
    let told = fs::read_to_string(&out).expect("what was said");
    assert!(told.lines().count() >= 6 && told.lines().all(|line| line == value), "{told}");
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_log WHERE stderr = 'was given [REDACTED]\n'"), 6);
    assert_no_secret(&site, &[value, token()], "ductile.db-wal");
    // The snapshot before a migration is a file of the state, too.
    assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.said());
    site.outsider().execute_batch("DROP INDEX job_queue_parent_idx").expect("an older database");
    site.run(&["system", "migrate"]);
    assert_no_secret(&site, &[value, token()], "pre-migrate");
}

/// Looks at every byte in the directory of the database, in which there must be a file of this name.
fn assert_no_secret(site: &Site, secrets: &[&str], present: &str) {
    let files: BTreeMap<String, Vec<u8>> = fs::read_dir(site.path("data"))
        .expect("the directory")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            (path.display().to_string(), fs::read(&path).expect("a file"))
        })
        .collect();
    assert!(files.keys().any(|name| name.contains(present)), "{:?}", files.keys());
    for (name, bytes) in &files {
        for secret in secrets {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{name} holds a secret");
        }
    }
}

/// Puts a job into the queue without the gateway.
fn insert(connection: &Connection, id: &str, target: (&str, &str), key: Option<&str>, created: &str, payload: &Value) {
    connection
        .execute(
            "INSERT INTO job_queue (id, plugin, command, payload, status, submitted_by, dedupe_key, created_at)
             VALUES (?1, ?2, ?3, ?4, 'queued', 'cli', ?5, ?6)",
            (id, target.0, target.1, payload.to_string(), key, created),
        )
        .expect("a row");
}

#[test]
fn a_row_inserted_by_hand_in_an_older_form_is_run_and_listed() {
    let site = Site::new().plugin("hello", OK);
    let gateway = site.start();
    let id = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
    insert(&site.outsider(), id, ("hello", "poll"), None, "2026-01-02T03:04:05Z", &json!({}));
    let seen = gateway.wait_for(id);
    assert_eq!((&seen["status"], &seen["submitted_by"]), (&json!("succeeded"), &json!("cli")));
    let listed = gateway.get("/jobs").body;
    assert_eq!((&listed["jobs"][0]["job_id"], listed["jobs"].as_array().map(Vec::len)), (&json!(id), Some(1)));
    assert!(listed["jobs"][0]["created_at"].as_str().is_some_and(|time| time.starts_with("2026-01-02T03:04:05")));
    let document: Value = serde_json::from_str(&site.run(&["job", "inspect", id, "--json"])).expect("JSON");
    assert_eq!(document["status"], "succeeded");
}

#[test]
fn jobs_with_one_key_and_one_target_run_one_after_the_other_and_other_targets_beside_them() {
    let site = Site::new().service("max_workers: 4").plugin("gated", GATED);
    let gateway = site.start();
    let gate = json!({"gate": site.path("gate")});
    let connection = site.outsider();
    connection.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    for (id, command, second) in [("one", "poll", 1), ("two", "poll", 2), ("three", "handle", 3)] {
        let created = format!("2026-01-02 03:04:0{second}.000000000Z");
        insert(&connection, id, ("gated", command), Some("k"), &created, &gate);
    }
    connection.execute_batch("COMMIT").expect("a commit");
    let status = |id: &str| site.query::<String>(&format!("SELECT status FROM job_queue WHERE id = '{id}'"));
    let wait = |id: &str, wanted: &str| {
        let seen = eventually(|| if status(id) == wanted { Ok(()) } else { Err(status(id)) });
        seen.unwrap_or_else(|last| panic!("{id} is {last}\n{}", gateway.said()));
    };
    wait("one", "running");
    // The youngest was claimed past the second, although two workers are free.
    wait("three", "running");
    assert_eq!(status("two"), "queued");
    fs::write(site.path("gate"), "").expect("a file");
    ["one", "two", "three"].into_iter().for_each(|id| wait(id, "succeeded"));
    let overlap: i64 = site.query(
        "SELECT COUNT(*) FROM job_log a JOIN job_log b ON a.job_id = 'one' AND b.job_id = 'two' WHERE b.started_at < a.completed_at",
    );
    assert_eq!(overlap, 0);
}

#[test]
fn a_running_row_that_somebody_changes_or_deletes_is_left_so_and_frees_its_worker() {
    let site = Site::new().service("max_workers: 2").plugin("gated", GATED).plugin("hello", OK);
    let mut gateway = site.start();
    let gate = json!({"gate": site.path("gate")});
    let jobs: Vec<String> = (0..2).map(|_| gateway.trigger_with("gated", "poll", &gate)).collect();
    jobs.iter().for_each(|job| drop(gateway.wait_for_status(job, |status| status == "running")));
    let connection = site.outsider();
    connection.execute("DELETE FROM job_queue WHERE id = ?1", [&jobs[0]]).expect("a deleted row");
    connection.execute("UPDATE job_queue SET status = 'dead' WHERE id = ?1", [&jobs[1]]).expect("a changed row");
    fs::write(site.path("gate"), "").expect("a file");
    let mut open: Vec<&str> = jobs.iter().map(String::as_str).collect();
    while !open.is_empty() {
        let refused = gateway.wait_for_log("the end of the attempt to be refused", |line| {
            line["level"] == "WARN" && line["job_id"].as_str().is_some_and(|id| open.contains(&id))
        });
        open.retain(|id| refused["job_id"] != *id);
    }
    assert_eq!(gateway.wait_for(&gateway.trigger("hello", "poll"))["status"], "succeeded");
    assert_eq!(site.query::<String>("SELECT group_concat(status) FROM job_queue WHERE plugin = 'gated'"), "dead");
    assert_eq!(site.query::<i64>("SELECT COUNT(*) FROM job_log WHERE plugin = 'gated'"), 0);
}

#[test]
fn a_queued_job_that_can_not_run_fails_at_once_without_a_process_and_says_why() {
    let script = r#"cat >/dev/null; echo x >> ran; echo '{"status":"ok","result":"x"}'"#;
    let site = Site::new()
        .plugin("hello", script)
        .plugin_entry("off", "uses: hello\nenabled: false")
        .plugin_with("needy", script, "config_keys: {required: [url, depth]}", "config: {url: null}")
        .plugin("spoilt", script);
    site.install("unnamed", script, "");
    let gateway = site.start();
    let connection = site.outsider();
    connection
        .execute(
            "INSERT INTO plugin_state (plugin_name, state, updated_at)
             VALUES ('spoilt', '[1]', '2026-01-02 03:04:05.000000000Z')",
            [],
        )
        .expect("a row");
    let cases = [
        (("nowhere", "poll"), json!({}), r#"plugin "nowhere" not found in registry"#),
        (("hello", "sing"), json!({}), r#"plugin "hello" does not support command "sing""#),
        (("off", "poll"), json!({}), r#"plugin "off" is not enabled"#),
        (("unnamed", "poll"), json!({}), r#"plugin "unnamed" is not enabled"#),
        (("needy", "poll"), json!({}), r#"plugin "needy" is missing required config keys: url, depth"#),
        (("hello", "handle"), json!([1]), "payload"),
        (("spoilt", "poll"), json!({}), "plugin_state"),
    ];
    for (n, (target, payload, _)) in cases.iter().enumerate() {
        insert(&connection, &format!("by-hand-{n}"), *target, None, "2026-01-02 03:04:05.000000000Z", payload);
    }
    for (n, (target, _, reason)) in cases.iter().enumerate() {
        let of_it = format!("FROM job_queue WHERE id = 'by-hand-{n}'");
        let last = || site.query::<String>(&format!("SELECT status || coalesce(': ' || last_error, '') {of_it}"));
        let over = eventually(|| match last() {
            seen if seen.starts_with("failed") => Ok(seen),
            seen => Err(seen),
        });
        let seen = over.unwrap_or_else(|last| panic!("{target:?} is {last}\n{}", gateway.said()));
        assert!(seen.contains(reason), "{target:?}: {seen}");
        assert_eq!(site.query::<i64>(&format!("SELECT attempt {of_it}")), 1, "{target:?}");
    }
    assert_eq!(site.query::<String>("SELECT state FROM plugin_state"), "[1]", "a spoilt state is not replaced");
    assert!(!site.path("ran").exists(), "a process was started");
    assert_eq!(gateway.wait_for(&gateway.trigger("hello", "poll"))["status"], "succeeded");
    assert!(site.path("ran").exists());
}
