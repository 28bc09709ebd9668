//! A database as an older program left it.

use std::path::Path;

use rusqlite::types::Value;

use super::files::changed;
use super::migrating::{ALL, migrated, run, with};
use super::*;
use crate::{MigrateOptions, MigrationMode, Reader, StepStatus};

const OLD: &str = include_str!("../../testdata/old.sql");

fn old(directory: &TempDir) -> PathBuf {
    let path = directory.path().join("ductile.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA foreign_keys = OFF;").unwrap();
    connection.execute_batch(OLD).unwrap();
    path
}

fn column(path: &Path, sql: &str) -> Vec<Value> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(|value| value.unwrap()).collect()
}

fn texts(path: &Path, sql: &str) -> Vec<String> {
    let text = |value| match value {
        Value::Text(text) => text,
        other => panic!("{sql}: {other:?}"),
    };
    column(path, sql).into_iter().map(text).collect()
}

const TABLES: [&str; 7] =
    ["job_queue", "job_transitions", "job_attempts", "job_log", "plugin_facts", "plugin_state", "schedule_entries"];

fn counts(path: &Path) -> Vec<Value> {
    TABLES.iter().flat_map(|table| column(path, &format!("SELECT count(*) FROM {table}"))).collect()
}

#[test]
fn an_old_database_becomes_equal_to_a_fresh_one_with_all_its_rows() {
    let directory = tempfile::tempdir().unwrap();
    let path = old(&directory);
    let before = counts(&path);
    let report = run(&path, MigrateOptions { mode: MigrationMode::Apply, ..ALL });
    let untouched = with(&report, StepStatus::AlreadyPresent);
    assert_eq!(untouched, ["job-facts"], "all others were needed");
    assert_eq!(counts(&path), before);
    assert_eq!(counts(&report.backup.unwrap()), before);
    assert_eq!(
        report.warnings,
        [
            "job_queue.payload: 1 values are no JSON text; left as they are",
            "job_queue.created_at: 1 times can not be read; left as they are",
        ]
    );
    // The rest is that of a fresh database, and nothing is left to do.
    assert!(migrated(&path, "again").is_empty());
    Reader::open(&path).unwrap();

    assert_eq!(texts(&path, "SELECT json_extract(payload, '$.x') FROM job_queue WHERE id = 'a'"), ["ü"]);
    assert_eq!(column(&path, "SELECT payload FROM job_queue WHERE id = 'c'"), [Value::Blob(vec![0xFF, 0])]);
    assert_eq!(
        texts(&path, "SELECT created_at FROM job_queue ORDER BY rowid"),
        ["2026-01-02 03:04:05.120000000Z", "2026-01-02 02:04:05.000000000Z", "some day"]
    );
    assert_eq!(texts(&path, "SELECT created_at FROM job_attempts"), ["2026-01-02 03:04:05.500000000Z"]);
    assert_eq!(texts(&path, "SELECT job_id FROM job_log ORDER BY rowid"), ["a", "b-c", "whole"]);
    assert_eq!(texts(&path, "SELECT stderr FROM job_log WHERE stderr IS NOT NULL"), ["warned"]);
    assert_eq!(
        texts(&path, "SELECT typeof(seq) || fact_json FROM plugin_facts ORDER BY rowid"),
        ["null{\"n\":1}", "null{\"n\":2}"]
    );
    assert_eq!(column(&path, "SELECT value FROM storage_sequences"), [Value::Integer(0)]);
    assert_eq!(texts(&path, "SELECT to_status FROM job_transitions ORDER BY id"), ["running", "queued"]);
    let next = "INSERT INTO job_transitions (job_id, to_status, created_at) VALUES ('a', 'dead', 't') RETURNING id";
    assert_eq!(column(&path, next), [Value::Integer(10)], "a number that was given out does not come again");
}

#[test]
fn a_kill_between_any_two_steps_leaves_a_database_that_the_next_run_completes() {
    let steps = 20;
    for killed_before in 0..steps {
        let directory = tempfile::tempdir().unwrap();
        let path = old(&directory);
        let mut begun = 0;
        let copy = directory.path().join("killed.db");
        let report = crate::migrate(&path, &ALL, parse_stored("2026-03-04 12:00:00Z").unwrap(), &mut |progress| {
            if matches!(progress, crate::Progress::Step(_)) {
                if begun == killed_before {
                    std::fs::copy(&path, &copy).unwrap();
                }
                begun += 1;
            }
        })
        .unwrap();
        assert!(report.failure.is_none());
        if begun <= killed_before {
            continue;
        }
        run(&copy, ALL);
        assert_eq!(counts(&copy), counts(&path));
        assert!(migrated(&copy, "again").is_empty());
    }
}

#[test]
fn numbers_that_text_would_lose_stay_blobs_and_others_become_text() {
    let directory = tempfile::tempdir().unwrap();
    let path = changed(
        &directory,
        "INSERT INTO plugin_state (plugin_name, state) VALUES
             ('big', CAST('123456789012345678901234567890' AS BLOB)), ('exact', CAST('1.50' AS BLOB)),
             ('small', CAST('7' AS BLOB)), ('text', CAST('\"7\"' AS BLOB)), ('list', CAST(' [1] ' AS BLOB));
         INSERT INTO job_log
             (id, job_id, plugin, command, status, result, attempt, submitted_by, created_at, completed_at)
         VALUES ('a-1', 'a', 'p', 'c', 'succeeded', CAST('{}' AS BLOB), 1, 'api', '2026-01-02 03:04:05.000000000Z',
                 '2026-01-02 03:04:05.000000000Z');",
    );
    assert_eq!(with(&run(&path, ALL), StepStatus::Applied), ["text-json"]);
    assert_eq!(
        texts(&path, "SELECT plugin_name || typeof(state) || CAST(state AS TEXT) FROM plugin_state ORDER BY rowid"),
        ["bigblob123456789012345678901234567890", "exactblob1.50", "smallinteger7", "texttext\"7\"", "listtext [1] "]
    );
    assert_eq!(texts(&path, "SELECT typeof(result) FROM job_log"), ["text"]);
    assert!(migrated(&path, "again").is_empty());
}
