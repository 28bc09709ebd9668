//! Commands that write the database directly, beside a running gateway or without one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::SystemTime;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::site::{OK, Site, show};

/// The database of a site, made without a gateway, with its configuration.
pub(crate) fn by_hand(site: &Site) -> Connection {
    site.write_config();
    fs::create_dir(site.path("data")).expect("a directory");
    let connection = site.outsider();
    fs::set_permissions(site.path("data/ductile.db"), fs::Permissions::from_mode(0o600)).expect("a mode");
    connection.execute_batch("PRAGMA journal_mode = WAL").expect("a mode");
    connection.execute_batch(include_str!("../../schema.sql")).expect("the schema");
    connection.execute_batch("PRAGMA user_version = 100").expect("a version");
    connection
}

/// Names, contents and times of what lies in the directory of the database.
pub(crate) fn listing(site: &Site) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let entries = fs::read_dir(site.path("data")).expect("the directory");
    entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let changed = fs::metadata(&path).and_then(|file| file.modified()).expect("a time");
            (path.display().to_string(), (fs::read(&path).expect("a file"), changed))
        })
        .collect()
}

/// Runs a command that must fail with status 1 and nothing on stdout; gives what it said.
pub(crate) fn refused(site: &Site, args: &[&str]) -> String {
    let output = site.command(args).output().expect("the binary");
    assert_eq!(output.status.code(), Some(1), "{args:?}: {}", show(&output));
    assert!(output.stdout.is_empty(), "{args:?}: {}", show(&output));
    String::from_utf8(output.stderr).expect("UTF-8")
}

const OPEN: &str = "INSERT INTO circuit_breakers VALUES
    ('p', 'poll', 'open', 3, '2026-01-02 03:04:05.000000000Z', '2026-01-02 03:04:05.000000000Z', 'job-3',
     '2026-01-02 03:04:05.000000000Z');
INSERT INTO circuit_breaker_transitions VALUES
    ('t-1', 'p', 'poll', NULL, 'closed', 1, 'success', NULL, '2026-01-02 03:00:00.000000000Z'),
    ('t-2', 'p', 'poll', 'closed', 'open', 3, 'failure_threshold', 'job-3', '2026-01-02 03:04:05.000000000Z'),
    ('t-3', 'p', 'handle', 'closed', 'open', 9, 'failure_threshold', 'job-9', '2026-01-02 03:04:06.000000000Z');";

/// The columns of all breakers that a reset decides about.
fn breakers(site: &Site) -> Vec<String> {
    site.column(
        "SELECT command || ' ' || state || ' ' || failure_count || ' ' || coalesce(opened_at, '-') || ' ' ||
                coalesce(last_failure_at, '-') || ' ' || coalesce(last_job_id, '-')
         FROM circuit_breakers ORDER BY plugin, command",
    )
}

/// The facts that resets left, oldest first.
fn resets(site: &Site) -> Vec<String> {
    site.column(
        "SELECT command || ' ' || coalesce(from_state, '-') || ' ' || to_state || ' ' || failure_count || ' ' ||
                coalesce(job_id, '-')
         FROM circuit_breaker_transitions WHERE reason = 'manual_reset' ORDER BY created_at, id",
    )
}

#[test]
fn an_open_breaker_is_closed_beside_a_running_gateway_and_without_one() {
    let site = Site::new().plugin("p", OK).plugin("q", OK);
    let mut gateway = site.start();
    site.outsider().execute_batch(OPEN).expect("rows");
    assert_eq!(gateway.get("/healthz").body["plugins_circuit_open"], 1);
    // What the operators' book asks the database about it.
    let active =
        "SELECT plugin, command, state, failure_count, opened_at FROM circuit_breakers WHERE state != 'closed';";
    assert_eq!(site.column(active), ["p"]);
    let recent = "SELECT created_at, plugin, command, from_state, to_state, reason, failure_count, job_id
FROM circuit_breaker_transitions WHERE plugin = 'p' AND command = 'poll'
ORDER BY created_at DESC LIMIT 20;";
    assert_eq!(site.column(recent), ["2026-01-02 03:04:05.000000000Z", "2026-01-02 03:00:00.000000000Z"]);
    assert_eq!(site.run(&["system", "reset", "p"]), "Reset circuit breaker for p (poll)\n");
    assert_eq!(breakers(&site), ["poll closed 0 - - job-3"]);
    assert_eq!(site.column(active), Vec::<String>::new());
    assert_eq!(resets(&site), ["poll open closed 0 -"]);
    assert_eq!(gateway.get("/healthz").body["plugins_circuit_open"], 0);
    let id: String = site.query("SELECT id FROM circuit_breaker_transitions WHERE reason = 'manual_reset'");
    assert_eq!((id.len(), &id[14..15]), (36, "7"));
    for sql in [
        "SELECT created_at FROM circuit_breaker_transitions WHERE reason = 'manual_reset'",
        "SELECT updated_at FROM circuit_breakers",
    ] {
        let at: String = site.query(sql);
        assert!(at.len() == 30 && at.as_bytes()[10] == b' ' && at.as_str() > "2026-01-03", "{at}");
    }
    assert_eq!(gateway.wait_for(&gateway.trigger("p", "poll"))["status"], "succeeded");
    gateway.stop();
    // That it was closed already is no reason to leave no trace.
    let document: Value = serde_json::from_str(&site.run(&["system", "reset", "p", "--json"])).expect("JSON");
    let reset = json!([{"command": "poll", "previous_state": "closed"}]);
    assert_eq!(document, json!({"plugin": "p", "reset": reset, "dry_run": false}));
    let names: Vec<String> = listing(&site).into_keys().collect();
    assert!(!names.iter().any(|name| name.ends_with("-wal") || name.ends_with("-shm")), "{names:?}");
    assert_eq!(resets(&site), ["poll open closed 0 -", "poll closed closed 0 -"]);
}

#[test]
fn a_reset_closes_all_breakers_of_its_plugin_or_the_one_that_is_named() {
    let site = Site::new().plugin("p", OK).plugin("q", OK);
    let database = by_hand(&site);
    database
        .execute_batch(
            "INSERT INTO circuit_breakers (plugin, command, state, failure_count, updated_at) VALUES
                 ('p', 'handle', 'half_open', 4, '2026-01-02 03:04:05.000000000Z'),
                 ('q', 'poll', 'open', 3, '2026-01-02 03:04:05.000000000Z')",
        )
        .expect("rows");
    let before = breakers(&site);
    let would = "Would reset circuit breaker for p (handle)\nWould reset circuit breaker for p (poll)\n";
    assert_eq!(site.run(&["system", "reset", "--dry-run", "p"]), would);
    let document: Value =
        serde_json::from_str(&site.run(&["system", "reset", "p", "--dry-run", "--json"])).expect("JSON");
    assert_eq!(document["dry_run"], true);
    let both = json!([
        {"command": "handle", "previous_state": "half_open"}, {"command": "poll", "previous_state": null}
    ]);
    assert_eq!(document["reset"], both);
    assert_eq!((breakers(&site), resets(&site)), (before, Vec::new()));

    assert_eq!(site.run(&["system", "reset", "p", "--command", "health"]), "Reset circuit breaker for p (health)\n");
    let expected = ["handle half_open 4 - - -", "health closed 0 - - -", "poll open 3 - - -"];
    assert_eq!(breakers(&site), expected);
    let all: Vec<String> = ["handle", "health", "poll"].map(|c| format!("Reset circuit breaker for p ({c})\n")).into();
    assert_eq!(site.run(&["system", "reset", "p"]), all.concat());
    let expected = ["handle closed 0 - - -", "health closed 0 - - -", "poll closed 0 - - -", "poll open 3 - - -"];
    assert_eq!(breakers(&site), expected);
    let expected =
        ["health - closed 0 -", "handle half_open closed 0 -", "health closed closed 0 -", "poll - closed 0 -"];
    assert_eq!(resets(&site), expected);
}

#[test]
fn a_reset_of_what_is_not_there_is_refused() {
    let site = Site::new().plugin("p", OK);
    site.write_config();
    let said = refused(&site, &["system", "reset", "p"]);
    assert_eq!(said, format!("database not found: {}\n", site.path("data/ductile.db").display()));
    assert!(!site.path("data").exists(), "nothing is created");
    let database = by_hand(&site);
    assert_eq!(refused(&site, &["system", "reset", "nobody"]), "Unknown plugin: nobody\n");
    let said = refused(&site, &["system", "reset", "p", "--command", "pol"]);
    assert_eq!(said, "plugin \"p\" does not support command \"pol\"\n");
    for args in [&["system", "reset"][..], &["system", "reset", "p", "poll"], &["system", "reset", "p", "--force"]] {
        assert!(refused(&site, args).starts_with("Flag error: "), "{args:?}");
    }
    assert_eq!((breakers(&site), resets(&site)), (Vec::new(), Vec::new()));
    // A command that the plugin has lost may have left a breaker behind.
    database
        .execute_batch(
            "INSERT INTO circuit_breakers (plugin, command, state, updated_at) VALUES ('p', 'pol', 'open', '')",
        )
        .expect("a row");
    assert_eq!(site.run(&["system", "reset", "p", "--command", "pol"]), "Reset circuit breaker for p (pol)\n");
}

#[test]
fn a_breaker_is_shown_with_its_changes_newest_first() {
    let site = Site::new().plugin("p", OK).plugin("q", OK);
    let database = by_hand(&site);
    database.execute_batch(OPEN).expect("rows");
    let expected = "Circuit breaker for p (poll)
State: open (failure_count=3)
Opened at: 2026-01-02T03:04:05Z
Last failure: 2026-01-02T03:04:05Z
Last job: job-3
Transitions:
- 2026-01-02T03:04:05Z closed -> open reason=failure_threshold failure_count=3 job=job-3
- 2026-01-02T03:00:00Z <none> -> closed reason=success failure_count=1
";
    assert_eq!(site.run(&["system", "breaker", "p"]), expected);
    let newest: Value =
        serde_json::from_str(&site.run(&["system", "breaker", "p", "--limit", "1", "--json"])).expect("JSON");
    let expected = json!({
        "plugin": "p", "command": "poll", "state": "open", "failure_count": 3, "opened_at": "2026-01-02T03:04:05Z",
        "last_failure_at": "2026-01-02T03:04:05Z", "last_job_id": "job-3", "updated_at": "2026-01-02T03:04:05Z",
        "transitions": [{"id": "t-2", "from_state": "closed", "to_state": "open", "failure_count": 3,
                         "reason": "failure_threshold", "job_id": "job-3", "created_at": "2026-01-02T03:04:05Z"}]
    });
    assert_eq!(newest.to_string(), expected.to_string(), "keys in this order");
    let all: Value = serde_json::from_str(&site.run(&["system", "breaker", "p", "--json"])).expect("JSON");
    let first = json!({"id": "t-1", "to_state": "closed", "failure_count": 1, "reason": "success",
                       "created_at": "2026-01-02T03:00:00Z"});
    assert_eq!(all["transitions"][1], first, "absent values are left out");
    // No row, with and without changes.
    let text = site.run(&["system", "breaker", "p", "--command", "handle"]);
    assert!(text.starts_with("Circuit breaker for p (handle)\nState: no current row\nTransitions:\n- 2026"), "{text}");
    let text = site.run(&["system", "breaker", "q"]);
    assert_eq!(text, "Circuit breaker for q (poll)\nState: no current row\nTransitions:\n- none\n");
    let document: Value = serde_json::from_str(&site.run(&["system", "breaker", "q", "--json"])).expect("JSON");
    assert_eq!(document, json!({"plugin": "q", "command": "poll", "transitions": []}));
    assert_eq!(refused(&site, &["system", "breaker", "nobody"]), "Unknown plugin: nobody\n");
    for limit in ["0", "-1", "x"] {
        assert!(refused(&site, &["system", "breaker", "p", "--limit", limit]).starts_with("limit must be "), "{limit}");
    }
}

/// Timing rows: ten days, five days and no time old; the newest of plugin `y`.
fn timed(site: &Site) -> Connection {
    let connection = by_hand(site);
    let insert = "INSERT INTO job_stopwatch (job_id, plugin, pipeline, step_id, pipeline_instance_id, attempt, enter_wall_ns,
                      exit_wall_ns, dur_ns, runtime_pre_ns, runtime_post_ns, status, subs_json, recorded_at)
                  VALUES (?1, ?2, '', ?3, '', 1, 0, 0, 1, 1, 1, ?4, ?5, strftime('%Y-%m-%d %H:%M:%f000000Z', 'now', ?6))";
    for (job, plugin, step, status, subs, age) in [
        ("1", "x", "save", "ok", r#"[{"name":"a","dur_ns":1.50},{"name":"b"},{"name":"a"}]"#, "-10 days"),
        ("2", "x", "", "timeout", r#"[{"name":"a"}]"#, "-10 days"),
        ("3", "x", "", "ok", "[]", "-5 days"),
        ("4", "y", "", "ok", r#"[{"name":"b"}]"#, "-5 days"),
        ("5", "y", "", "err", r#"[{"name":"a"}]"#, "-0 days"),
    ] {
        connection.execute(insert, [job, plugin, step, status, subs, age]).expect("a row");
    }
    connection
}

fn left(site: &Site) -> Vec<String> {
    site.column("SELECT job_id || ' ' || subs_json FROM job_stopwatch ORDER BY id")
}

fn prune(site: &Site, args: &[&str]) -> Value {
    let text = site.run(&[&["stopwatch"], args, &["--json"]].concat());
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn old_timing_rows_are_pruned_by_age_and_filters_and_no_more_than_the_limit() {
    let site = Site::new().plugin("p", OK);
    let _database = timed(&site);
    let all = left(&site);
    for (args, affected) in [
        (&["--older-than", "1d"][..], 4),
        (&["--older-than", "1w"], 2),
        (&["--older-than", "168h"], 2),
        (&["--older-than", "2w"], 0),
        (&["--older-than", "1d", "--plugin", "y"], 1),
        (&["--older-than", "1d", "--step", "save"], 1),
        (&["--older-than", "1d", "--status", "timeout"], 1),
        (&["--older-than", "1d", "--status", "capture_error"], 0),
        (&["--older-than", "1d", "--plugin", "x", "--status", "ok"], 2),
        (&["--older-than", "1d", "--limit", "3"], 3),
    ] {
        let document = prune(&site, &[&["prune", "--dry-run"], args].concat());
        assert_eq!((&document["affected"], &document["dry_run"]), (&json!(affected), &json!(true)), "{args:?}");
    }
    assert_eq!(left(&site), all);
    let text = site.run(&["stopwatch", "prune", "--older-than", "7d", "--plugin", "x", "--status", "ok", "--dry-run"]);
    let (said, rest) = text.split_once("older than ").expect("an age");
    assert_eq!(said, "would delete 1 job_stopwatch row(s) ");
    let (time, filters) = rest.split_once(' ').expect("filters");
    assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok() && time.ends_with('Z'), "{time}");
    assert_eq!(filters, "(plugin=x, status=ok)\n");

    let document = prune(&site, &["prune", "--older-than", "1d", "--limit", "1", "--plugin", "x"]);
    let older_than = document["older_than"].as_str().expect("a time");
    assert!(chrono::DateTime::parse_from_rfc3339(older_than).is_ok() && older_than.ends_with('Z'), "{older_than}");
    let expected = json!({
        "action": "prune", "dry_run": false, "affected": 1, "older_than": older_than,
        "filters": {"plugin": "x", "step": "", "status": "", "span": ""}
    });
    assert_eq!(document.to_string(), expected.to_string());
    assert_eq!(left(&site), all[1..], "the oldest first");
    let text = site.run(&["stopwatch", "prune", "--older-than", "1d"]);
    assert!(text.starts_with("deleted 3 job_stopwatch row(s) older than ") && text.ends_with("Z\n"), "{text}");
    assert_eq!(left(&site), all[4..]);
}

#[test]
fn reported_spans_are_cleared_all_or_by_name_and_the_rows_stay() {
    let site = Site::new().plugin("p", OK);
    let _database = timed(&site);
    let all = left(&site);
    let text = site.run(&["stopwatch", "prune-subs", "--older-than", "1d", "--span", "a", "--dry-run"]);
    assert!(text.starts_with("would clear subs on 2 job_stopwatch row(s) older than "), "{text}");
    assert!(text.ends_with("Z (span=a)\n"), "{text}");
    assert_eq!(left(&site), all);
    let document = prune(&site, &["prune-subs", "--older-than", "1d", "--span", "a"]);
    assert_eq!((&document["action"], &document["affected"]), (&json!("prune-subs"), &json!(2)));
    assert_eq!(document["filters"], json!({"plugin": "", "step": "", "status": "", "span": "a"}));
    let expected = [r#"1 [{"name":"b"}]"#, "2 []", "3 []", r#"4 [{"name":"b"}]"#, r#"5 [{"name":"a"}]"#];
    assert_eq!(left(&site), expected);
    assert_eq!(prune(&site, &["prune-subs", "--older-than", "1d", "--span", "a"])["affected"], 0);
    let text = site.run(&["stopwatch", "prune-subs", "--older-than", "1d", "--limit", "1"]);
    assert!(text.starts_with("cleared subs on 1 job_stopwatch row(s) older than "), "{text}");
    let text = site.run(&["stopwatch", "prune-subs", "--older-than", "1d"]);
    assert!(text.starts_with("cleared subs on 1 job_stopwatch row(s) older than "), "{text}");
    assert_eq!(left(&site), ["1 []", "2 []", "3 []", "4 []", r#"5 [{"name":"a"}]"#]);
}

#[test]
fn what_spans_are_left_keeps_every_digit_and_what_is_no_list_is_left_alone() {
    let site = Site::new().plugin("p", OK);
    let database = timed(&site);
    database
        .execute_batch(
            r#"UPDATE job_stopwatch SET subs_json = '[{"name":"a"},{"name":"b","dur_ns":1.50, "x":12345678901234567890123}]'
               WHERE job_id = '1';
               UPDATE job_stopwatch SET subs_json = 'broken' WHERE job_id = '2'"#,
        )
        .expect("rows");
    assert_eq!(prune(&site, &["prune-subs", "--older-than", "1d", "--span", "a"])["affected"], 1);
    assert_eq!(left(&site)[..2], [r#"1 [{"name":"b","dur_ns":1.50, "x":12345678901234567890123}]"#, "2 broken"]);
}

#[test]
fn more_rows_than_one_transaction_takes_are_pruned_up_to_the_limit() {
    let site = Site::new().plugin("p", OK);
    let database = timed(&site);
    database
        .execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
             INSERT INTO job_stopwatch (job_id, plugin, attempt, enter_wall_ns, exit_wall_ns, dur_ns, runtime_pre_ns,
                                        runtime_post_ns, status, subs_json, recorded_at)
             SELECT 'many', 'many', 1, 0, 0, 0, 0, 0, 'ok', iif(i % 2, '[{\"name\":\"a\"}]', '[{\"name\":\"b\"}]'),
                    '2026-01-02T03:04:05Z' FROM n",
        )
        .expect("rows");
    let many = ["--older-than", "1d", "--plugin", "many"];
    let affected = |args: &[&str]| prune(&site, &[args, &many].concat())["affected"].clone();
    assert_eq!(affected(&["prune-subs", "--span", "a", "--dry-run"]), 1250);
    assert_eq!(affected(&["prune-subs", "--span", "a", "--limit", "1200"]), 1200);
    assert_eq!(affected(&["prune-subs", "--span", "a"]), 50);
    assert_eq!(affected(&["prune", "--dry-run"]), 2500);
    assert_eq!(affected(&["prune", "--limit", "2100"]), 2100);
    assert_eq!(affected(&["prune"]), 400);
    assert_eq!(left(&site).len(), 5);
}

#[test]
fn wrong_ages_limits_and_words_of_stopwatch_are_refused() {
    let site = Site::new().plugin("p", OK);
    let _database = timed(&site);
    let all = left(&site);
    for (args, said) in [
        (&["prune"][..], "Flag error: the following required arguments were not provided: --older-than <DUR>"),
        (&["prune", "--older-than", "0"], "--older-than must be more than 0\n"),
        (&["prune", "--older-than", "0s"], "--older-than must be more than 0\n"),
        (&["prune", "--older-than", "7"], "--older-than: duration \"7\" needs a unit"),
        (&["prune", "--older-than=-7d"], "--older-than: duration \"-7d\" is negative"),
        (&["prune", "--older-than", "7d", "--status", "good"], "Flag error: invalid value 'good' for '--status"),
        (&["prune", "--older-than", "7d", "--limit", "0"], "limit must be a number of at least 1\n"),
        (&["prune", "--older-than", "7d", "--limit", "-5"], "limit must be a number of at least 1\n"),
        (&["prune", "--older-than", "7d", "--span", "a"], "Flag error: unexpected argument '--span'"),
        (&["prune", "7d"], "Flag error: "),
        (&["prone"], "Unknown stopwatch action: prone\nDid you mean: ductile stopwatch prune\n"),
    ] {
        let seen = refused(&site, &[&["stopwatch"], args].concat());
        assert!(seen.starts_with(said), "{args:?}: {seen}");
    }
    assert_eq!(left(&site), all);
}

#[test]
fn without_the_table_nothing_is_pruned_and_the_reason_is_told() {
    let site = Site::new().plugin("p", OK);
    let database = by_hand(&site);
    database.execute_batch("DROP TABLE job_stopwatch; DROP TABLE reload_history").expect("an older database");
    for (args, table, expected) in [
        (&["stopwatch", "prune", "--older-than", "1d", "--json"][..], "job_stopwatch", "\"affected\": 0"),
        (&["stopwatch", "prune-subs", "--older-than", "1d"], "job_stopwatch", "cleared subs on 0 job_stopwatch"),
        (&["system", "reload", "--history", "--json"], "reload_history", "\"reloads\": []"),
    ] {
        let output = site.command(args).output().expect("the binary");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", show(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains(expected), "{args:?}: {}", show(&output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.starts_with(&format!("note: the state database has no table {table} (")), "{said}");
        assert!(said.contains("system migrate --additive"), "{said}");
    }
    let tables: i64 =
        site.query("SELECT count(*) FROM sqlite_master WHERE name IN ('job_stopwatch', 'reload_history')");
    assert_eq!(tables, 0, "it is not added");
}

#[test]
fn none_of_them_needs_the_vault_or_its_key() {
    let site = Site::new().plugin("p", OK);
    let _database = timed(&site);
    for name in ["config/age.key", "config/vault.age"] {
        fs::remove_file(site.path(name)).expect("a file");
    }
    assert_eq!(site.run(&["system", "reset", "p"]), "Reset circuit breaker for p (poll)\n");
    assert!(site.run(&["system", "breaker", "p"]).contains("reason=manual_reset"));
    assert!(site.run(&["stopwatch", "prune", "--older-than", "1d"]).starts_with("deleted 4 "));
    assert_eq!(site.run(&["job", "logs"]), "Job Logs (total=0)\n");
    let said = refused(&site, &["system", "reset", "p", "--config-dir", "/nowhere"]);
    assert_eq!(said, "use only one of --config or --config-dir\n");
}

#[test]
fn a_command_waits_for_the_write_lock_and_gives_up_after_a_while() {
    let site = Site::new().plugin("p", OK);
    let database = by_hand(&site);
    database.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    let output = site.command(&["system", "reset", "p", "--json"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["code"], 75, "{document}");
    assert!(document["error"].as_str().is_some_and(|text| text.contains("database is locked")), "{document}");
    let waiting = site.command(&["system", "reset", "p"]).stdout(Stdio::piped()).spawn().expect("the binary");
    database.execute_batch("COMMIT").expect("the end of the transaction");
    let output = waiting.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert_eq!(resets(&site), ["poll - closed 0 -"], "once, by the second");
}

#[test]
fn a_command_that_writes_validates_first_and_makes_the_file_private() {
    let site = Site::new().plugin("p", OK);
    let database = by_hand(&site);
    let path = site.path("data/ductile.db");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
    let output = site.command(&["system", "reset", "p"]).output().expect("the binary");
    assert_eq!(output.status.code(), Some(0), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("tightened to 0600"), "{}", show(&output));
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    database.execute_batch("DROP TABLE schedule_entries").expect("an older database");
    drop(database);
    let before = listing(&site);
    for args in [&["system", "reset", "p"][..], &["stopwatch", "prune", "--older-than", "1d"], &["job", "logs"]] {
        let said = refused(&site, args);
        assert!(said.contains("missing table schedule_entries") && said.contains("(step schedules)"), "{said}");
    }
    assert_eq!(listing(&site), before);
}
