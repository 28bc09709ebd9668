//! Every step, and every object of the schema, against a fresh database.

use std::path::Path;

use rusqlite::types::Value;

use super::files::{assert_same_shape, changed};
use super::*;
use crate::migrate::migrate_on;
use crate::open::side_file;
use crate::shape::{Column, Shape};
use crate::{
    MigrateError, MigrateOptions, MigrationCandidate, MigrationExtent, MigrationMode, MigrationReport, Reader,
    StepStatus, StoreError, migrate, migration_candidate, schema_gaps, snapshot,
};

pub(super) const ALL: MigrateOptions =
    MigrateOptions { extent: MigrationExtent::All, mode: MigrationMode::ApplyWithoutSnapshot, vacuum: false };

const ADDITIVE: MigrateOptions = MigrateOptions { extent: MigrationExtent::Additive, ..ALL };

fn noon() -> chrono::DateTime<chrono::Utc> {
    parse_stored("2026-03-04 12:00:00Z").unwrap()
}

pub(super) fn run(path: &Path, options: MigrateOptions) -> MigrationReport {
    let report = migrate(path, &options, noon(), &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    assert!(report.failure.is_none(), "{}", report.failure.unwrap());
    report
}

pub(super) fn with(report: &MigrationReport, status: StepStatus) -> Vec<&'static str> {
    report.steps.iter().filter(|(_, seen)| *seen == status).map(|(step, _)| *step).collect()
}

/// Migrates to the end: the shape is that of a fresh database, and once more changes nothing.
pub(super) fn migrated(path: &Path, what: &str) -> Vec<&'static str> {
    let report = run(path, ALL);
    assert_eq!((report.to_version, &report.warnings[..]), (100, &[][..]), "{what}");
    assert_same_shape(&Shape::of(&Connection::open(path).unwrap()).unwrap(), &Shape::expected().unwrap());
    assert_eq!(schema_gaps(path).unwrap(), [], "{what}");
    assert_nothing_more_to_do(path);
    with(&report, StepStatus::Applied)
}

pub(super) fn assert_nothing_more_to_do(path: &Path) {
    let before = std::fs::read(path).unwrap();
    let again = run(path, MigrateOptions { mode: MigrationMode::Apply, ..ALL });
    assert_eq!(with(&again, StepStatus::AlreadyPresent).len(), 20, "{:?}", again.steps);
    assert!(again.backup.is_none());
    assert!(std::fs::read(path).unwrap() == before, "a second run changes nothing");
}

/// Two rows in every table, all columns with values of their declared type.
fn fill() -> String {
    let shape = Shape::expected().unwrap();
    let mut sql = String::new();
    for table in &shape.tables {
        for row in 1..=2 {
            let value = |column: &Column| match (column.kind.as_str(), column.name.ends_with("_at")) {
                ("INTEGER", _) => (row * 10).to_string(),
                ("JSON", _) => format!("'{{\"n\":{row}}}'"),
                (_, true) => format!("'2026-01-0{row} 03:04:05.000000120Z'"),
                _ => format!("'{}-{row}'", column.name),
            };
            let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
            let values: Vec<String> = table.columns.iter().map(value).collect();
            sql += &format!("INSERT INTO {} ({}) VALUES ({});", table.name, names.join(", "), values.join(", "));
        }
    }
    // A number that was given out and whose row is gone.
    sql + "UPDATE sqlite_sequence SET seq = 77; UPDATE storage_sequences SET name = 'plugin_facts' WHERE value = 20;"
}

/// All rows, but for the columns left out: with their row numbers, in their order.
fn rows(path: &Path, table: &str, columns: &[&str]) -> Vec<Vec<Value>> {
    let connection = Connection::open(path).unwrap();
    let sql = format!("SELECT rowid, {} FROM {table} ORDER BY rowid", columns.join(", "));
    let mut statement = connection.prepare(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let count = statement.column_count();
    let rows = statement.query_map([], |row| (0..count).map(|column| row.get(column)).collect()).unwrap();
    rows.map(|row: rusqlite::Result<Vec<Value>>| row.unwrap()).collect()
}

fn sequences(path: &Path) -> Vec<Vec<Value>> {
    rows(path, "sqlite_sequence", &["name", "seq"]).into_iter().map(|row| row[1..].to_vec()).collect()
}

#[test]
fn every_step_brings_back_its_objects_as_they_are_in_a_fresh_database() {
    let cases = [
        ("job-facts", "DROP TABLE job_transitions; DROP TABLE job_attempts", "missing table job_transitions"),
        (
            "queue-context",
            "DROP INDEX job_queue_event_context_idx; DROP INDEX job_log_event_context_idx;
             ALTER TABLE job_queue DROP COLUMN event_context_id;
             ALTER TABLE job_log DROP COLUMN event_context_id; DROP TABLE event_context",
            "missing table event_context",
        ),
        (
            "config-snapshots",
            "DROP TABLE config_snapshots; ALTER TABLE job_queue DROP COLUMN enqueued_config_snapshot_id;
             ALTER TABLE job_queue DROP COLUMN started_config_snapshot_id;
             ALTER TABLE job_log DROP COLUMN enqueued_config_snapshot_id;
             ALTER TABLE job_log DROP COLUMN started_config_snapshot_id",
            "missing table config_snapshots",
        ),
        (
            "breakers",
            "DROP TABLE circuit_breakers; DROP TABLE circuit_breaker_transitions",
            "missing table circuit_breakers",
        ),
        (
            "schedules",
            "ALTER TABLE schedule_entries DROP COLUMN last_fired_at;
             ALTER TABLE schedule_entries DROP COLUMN last_success_job_id;
             ALTER TABLE schedule_entries DROP COLUMN last_success_at;
             ALTER TABLE schedule_entries DROP COLUMN next_run_at",
            "missing column schedule_entries.last_fired_at",
        ),
        ("plugin-facts", "DROP TABLE plugin_facts; DROP TABLE plugin_state", "missing table plugin_state"),
        (
            "plugin-fact-seq",
            "DROP INDEX plugin_facts_plugin_seq_idx; DROP INDEX plugin_facts_plugin_type_seq_idx;
             ALTER TABLE plugin_facts DROP COLUMN seq; DROP TABLE storage_sequences",
            "missing table storage_sequences",
        ),
        (
            "job-log-columns",
            "DROP INDEX job_log_job_id_attempt_idx; ALTER TABLE job_log DROP COLUMN job_id;
             ALTER TABLE job_log DROP COLUMN result; ALTER TABLE job_log DROP COLUMN stderr",
            "missing column job_log.job_id",
        ),
        ("job-log-started-at", "ALTER TABLE job_log DROP COLUMN started_at", "missing column job_log.started_at"),
        (
            "indexes",
            "DROP INDEX job_log_completed_at_idx; DROP INDEX job_queue_parent_idx;
             DROP INDEX event_context_created_at_idx",
            "missing index job_log_completed_at_idx",
        ),
        (
            "fanout-index",
            "DROP INDEX job_queue_event_source_idx;
             CREATE UNIQUE INDEX job_queue_event_source_idx ON job_queue (parent_job_id, source_event_id)
             WHERE source_event_id IS NOT NULL",
            "wrong index job_queue_event_source_idx",
        ),
        (
            "drop-fact-fks",
            "ALTER TABLE job_transitions RENAME TO old;
             CREATE TABLE job_transitions (id INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL,
                 from_status TEXT, to_status TEXT NOT NULL, reason TEXT, created_at TEXT NOT NULL,
                 FOREIGN KEY (job_id) REFERENCES job_queue (id));
             INSERT INTO job_transitions SELECT * FROM old; DROP TABLE old;
             UPDATE sqlite_sequence SET seq = 77 WHERE name = 'job_transitions';
             CREATE INDEX job_transitions_job_created_at_idx ON job_transitions (job_id, created_at);
             CREATE INDEX job_transitions_created_at_idx ON job_transitions (created_at)",
            "foreign key on job_transitions",
        ),
        ("vault-audit", "DROP TABLE vault_audit", "missing table vault_audit"),
        ("stopwatch", "DROP TABLE job_stopwatch", "missing table job_stopwatch"),
        (
            "stopwatch-rollup",
            "DROP TABLE job_stopwatch_rollup_daily; DROP TABLE janitor_heartbeat",
            "missing table job_stopwatch_rollup_daily",
        ),
        (
            "schedule-definition",
            "ALTER TABLE schedule_entries DROP COLUMN definition",
            "missing column schedule_entries.definition",
        ),
        ("ingress-seen", "DROP TABLE ingress_seen", "missing table ingress_seen"),
        ("reload-history", "DROP TABLE reload_history", "missing table reload_history"),
    ];
    let directory = tempfile::tempdir().unwrap();
    for (step, statements, what) in cases {
        let path = changed(&directory, &format!("PRAGMA foreign_keys = OFF; {} {statements};", fill()));
        let gaps = schema_gaps(&path).unwrap();
        assert_eq!((gaps[0].what.as_str(), gaps[0].step), (what, step));
        // A column takes its indexes with it, which a step of their own brings back.
        let mut steps: Vec<&str> = gaps.iter().map(|gap| gap.step).filter(|name| *name != step).collect();
        steps.dedup();
        assert!(steps.is_empty() || steps == ["indexes"], "{gaps:?}");
        steps.insert(0, step);
        match Reader::open(&path).err() {
            Some(refused) => {
                assert!(gaps[0].gates_start && refused.to_string().contains(&format!("{what}; ")), "{refused}");
                assert!(refused.to_string().contains(&format!("(step {step})")), "{refused}");
            }
            None => assert!(gaps.iter().all(|gap| !gap.gates_start && !gap.lost.is_empty()), "{gaps:?}"),
        }
        let before = contents(&path);
        let sequences_before = sequences(&path);
        let foreseen = run(&path, MigrateOptions { mode: MigrationMode::DryRun, ..ALL });
        assert_eq!(with(&foreseen, StepStatus::WouldApply), steps);
        assert_eq!(migrated(&path, step), steps);
        for (table, columns, rows_before) in before {
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            assert_eq!(rows(&path, &table, &columns), rows_before, "{step}: {table}");
        }
        let after = sequences(&path);
        assert!(sequences_before.iter().all(|sequence| after.contains(sequence)), "{step}: {after:?}");
        Reader::open(&path).unwrap();
    }
}

/// Every table with its columns and rows.
fn contents(path: &Path) -> Vec<(String, Vec<String>, Vec<Vec<Value>>)> {
    let shape = Shape::of(&Connection::open(path).unwrap()).unwrap();
    let known = shape.tables.iter().map(|table| {
        let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        let owned = columns.iter().map(|name| (*name).to_owned()).collect();
        (table.name.clone(), owned, rows(path, &table.name, &columns))
    });
    known.collect()
}

#[test]
fn whatever_single_object_is_missing_comes_back_in_its_place_or_is_refused_before_any_change() {
    let directory = tempfile::tempdir().unwrap();
    let expected = Shape::expected().unwrap();
    let mut refused = 0;
    for table in expected.tables.iter().filter(|table| table.name != "job_queue") {
        let path = changed(&directory, &format!("DROP TABLE {};", table.name));
        let step = schema_gaps(&path).unwrap()[0].step;
        assert_eq!(migrated(&path, &table.name), [step]);
    }
    for index in &expected.indexes {
        let path = changed(&directory, &format!("DROP INDEX {};", index.name));
        let gaps = schema_gaps(&path).unwrap();
        assert_eq!((gaps.len(), migrated(&path, &index.name)), (1, vec![gaps[0].step]));
        let wrong = format!("DROP INDEX {0}; CREATE INDEX {0} ON config_snapshots (reason DESC);", index.name);
        let path = changed(&directory, &wrong);
        assert_eq!(migrated(&path, &index.name), [gaps[0].step]);
    }
    for (table, column) in expected.tables.iter().flat_map(|table| table.columns.iter().map(move |c| (table, c))) {
        let what = format!("{}.{}", table.name, column.name);
        let path = changed(
            &directory,
            &format!("{} ALTER TABLE {} RENAME COLUMN {} TO other;", fill(), table.name, column.name),
        );
        if (column.not_null && column.default.is_none()) || column.key > 0 {
            let before = std::fs::read(&path).unwrap();
            let error = migrate(&path, &ALL, noon(), &mut |_| {}).unwrap_err();
            assert!(error.to_string().starts_with(&format!("can not migrate {what}")), "{error}");
            assert!(std::fs::read(&path).unwrap() == before, "{what}: a refused file is not changed");
            refused += 1;
            continue;
        }
        let step = schema_gaps(&path).unwrap().iter().find(|gap| gap.what.ends_with(&what)).unwrap().step;
        assert!(with(&run(&path, ALL), StepStatus::Applied).contains(&step), "{what}");
        let connection = Connection::open(&path).unwrap();
        let made = Shape::of(&connection).unwrap();
        let mut columns = made.table(&table.name).unwrap().columns.clone();
        columns.retain(|column| column.name != "other");
        assert_eq!(columns, table.columns, "{what}");
        assert_eq!(rows(&path, &table.name, &["other"]).len(), 2);
        assert_eq!(schema_gaps(&path).unwrap(), [], "{what}");
        assert_nothing_more_to_do(&path);
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn what_the_schema_does_not_know_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = changed(
        &directory,
        &format!(
            "{} ALTER TABLE job_log ADD COLUMN note TEXT NOT NULL DEFAULT 'n''1'; UPDATE job_log SET note = id;
             CREATE INDEX mine_idx ON job_log (note DESC) WHERE note <> 'x';
             CREATE TABLE mine (x, job TEXT REFERENCES job_log (id)); INSERT INTO mine VALUES (1, 'id-1');
             CREATE VIEW seen AS SELECT id, note FROM job_log;
             CREATE TRIGGER counted AFTER INSERT ON job_log BEGIN UPDATE mine SET x = x + 1; END;
             ALTER TABLE job_log DROP COLUMN result;",
            fill()
        ),
    );
    let definitions = || -> Vec<String> {
        let connection = Connection::open(&path).unwrap();
        let mut statement = connection
            .prepare(
                "SELECT sql FROM sqlite_master WHERE name IN ('mine', 'mine_idx', 'seen', 'counted') ORDER BY name",
            )
            .unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(|sql| sql.unwrap()).collect()
    };
    let before = definitions();
    assert_eq!(before.len(), 4);
    assert_eq!(with(&run(&path, ALL), StepStatus::Applied), ["job-log-columns"]);
    assert_eq!(definitions(), before);
    assert_nothing_more_to_do(&path);
    let connection = Connection::open(&path).unwrap();
    let text = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(text("SELECT group_concat(note) FROM seen"), "id-1,id-2");
    assert_eq!(text("SELECT x || job FROM mine"), "1id-1", "the rows were moved without anybody being told");
    let default: String = connection
        .query_row("SELECT dflt_value FROM pragma_table_info('job_log') WHERE name = 'note'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(default, "'n''1'");
}

#[test]
fn rows_that_do_not_fit_leave_their_table_as_it_is_with_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let path = changed(
        &directory,
        "DROP TABLE job_attempts;
         CREATE TABLE job_attempts (id INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT, attempt INTEGER NOT NULL,
             created_at TEXT NOT NULL, UNIQUE (job_id, attempt));
         CREATE INDEX job_attempts_job_created_at_idx ON job_attempts (job_id, created_at);
         CREATE INDEX job_attempts_created_at_idx ON job_attempts (created_at);
         INSERT INTO job_attempts (attempt, created_at) VALUES (1, '2026-01-02 03:04:05.000000000Z');
         DROP TABLE ingress_seen;",
    );
    let report = run(&path, ALL);
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
    assert!(report.warnings[0].starts_with("job_attempts stays declared as it is"), "{:?}", report.warnings);
    assert_eq!(rows(&path, "job_attempts", &["attempt"]).len(), 1);
    assert_eq!(schema_gaps(&path).unwrap(), []);
    assert!(Connection::open(&path).unwrap().execute("DELETE FROM job_attempts", []).is_ok());
    assert_eq!(migrated(&path, "once the rows fit"), ["job-facts"]);
}

#[test]
fn duplicates_that_forbid_the_unique_index_fail_its_step_and_keep_what_was_done_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = changed(
        &directory,
        "DROP INDEX job_queue_event_source_idx; DROP TABLE vault_audit; DROP INDEX job_log_completed_at_idx;
         INSERT INTO job_queue (id, plugin, command, status, submitted_by, created_at, parent_job_id, source_event_id)
         VALUES ('a', 'p', 'c', 'queued', 'api', '2026-01-02 03:04:05.000000000Z', 'root', 'event'),
                ('b', 'p', 'c', 'queued', 'api', '2026-01-02 03:04:05.000000000Z', 'root', 'event');
         PRAGMA user_version = 0;",
    );
    let report = migrate(&path, &ALL, noon(), &mut |_| {}).unwrap();
    assert_eq!(report.steps.last(), Some(&("fanout-index", StepStatus::Failed)));
    let error = report.failure.unwrap().to_string();
    assert!(error.starts_with("step fanout-index failed: ") && error.contains("UNIQUE"), "{error}");
    let gaps: Vec<String> = schema_gaps(&path).unwrap().into_iter().map(|gap| gap.what).collect();
    assert_eq!(gaps, ["missing index job_queue_event_source_idx", "missing table vault_audit"]);
    assert_eq!((report.from_version, report.to_version), (0, 0));
    assert_eq!(rows(&path, "job_queue", &["id"]).len(), 2);
}

#[test]
fn the_additive_form_only_adds_tables_and_indexes_that_gate_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = changed(
        &directory,
        "DROP TABLE vault_audit; DROP TABLE janitor_heartbeat; DROP INDEX job_stopwatch_plugin_recorded_idx;
         ALTER TABLE job_log DROP COLUMN started_at; DROP INDEX job_queue_parent_idx; PRAGMA user_version = 0;",
    );
    let report = run(&path, ADDITIVE);
    assert_eq!(
        report.steps,
        [
            ("vault-audit", StepStatus::Applied),
            ("stopwatch", StepStatus::Applied),
            ("stopwatch-rollup", StepStatus::Applied),
            ("ingress-seen", StepStatus::AlreadyPresent),
            ("reload-history", StepStatus::AlreadyPresent),
        ]
    );
    assert_eq!((report.from_version, report.to_version), (0, 0));
    let gaps: Vec<String> = schema_gaps(&path).unwrap().into_iter().map(|gap| gap.what).collect();
    assert_eq!(gaps, ["missing column job_log.started_at", "missing index job_queue_parent_idx"]);
    let path = changed(&directory, "DROP TABLE vault_audit; DROP INDEX job_log_completed_at_idx;");
    let report = migrate(&path, &ADDITIVE, noon(), &mut |_| {}).unwrap();
    assert!(matches!(&report.failure, Some(MigrateError::StillWrong(text)) if text.contains("(step indexes)")));
    assert_eq!(with(&report, StepStatus::Applied), ["vault-audit"]);
}

#[test]
fn without_room_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = changed(&directory, "DROP TABLE vault_audit;");
    let before = std::fs::read(&path).unwrap();
    let options = MigrateOptions { mode: MigrationMode::Apply, ..ALL };
    let error = migrate_on(&path, &options, noon(), |_| Ok(1000), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("1000 are free"), "{error}");
    assert!(matches!(error, MigrateError::NoSpace { needed, free: 1000, .. } if needed > before.len() as u64));
    assert!(std::fs::read(&path).unwrap() == before);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
    changed(&directory, "");
    migrate_on(&path, &options, noon(), |_| Ok(0), &mut |_| {}).expect("nothing is needed for nothing");
}

#[test]
fn what_a_killed_run_left_takes_no_room_from_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = changed(&directory, "DROP TABLE vault_audit;");
    std::fs::write(directory.path().join(".ductile.db.pre-migrate-20260101T000000Z.abc"), "left by a kill").unwrap();
    // Room for one snapshot beside the database, and for no more.
    let free = |directory: &Path| {
        let is_partial = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().contains("pre-migrate");
        let is_full = std::fs::read_dir(directory)?.flatten().any(is_partial);
        Ok(if is_full { 0 } else { u64::MAX })
    };
    let options = MigrateOptions { mode: MigrationMode::Apply, ..ALL };
    let report = migrate_on(&path, &options, noon(), free, &mut |_| {}).unwrap();
    assert!(report.failure.is_none() && report.backup.is_some());
}

#[test]
fn a_snapshot_is_the_database_as_it_was_and_gets_its_name_when_it_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let path = changed(&directory, &format!("{} DROP TABLE vault_audit; PRAGMA user_version = 42;", fill()));
    let before = contents(&path);
    let partial = directory.path().join(".ductile.db.pre-migrate-20260101T000000Z.abc");
    std::fs::write(&partial, "left by a kill").unwrap();
    let taken = side_file(&path, ".pre-migrate-20260304T120000Z");
    std::fs::write(&taken, "of the same second").unwrap();
    let report = run(&path, MigrateOptions { mode: MigrationMode::Apply, ..ALL });
    let made = side_file(&path, ".pre-migrate-20260304T120001Z");
    assert_eq!(report.backup.as_deref(), Some(made.as_path()));
    assert_eq!(std::fs::read(&taken).unwrap(), b"of the same second");
    assert!(!partial.exists());
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(contents(&made), before);
    let connection = Connection::open(&made).unwrap();
    let pragma =
        |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, Value>(0)).unwrap();
    assert_eq!(pragma("user_version"), Value::Integer(42));
    assert_eq!(pragma("integrity_check"), Value::Text("ok".to_owned()));
    let error = snapshot(&path, &made).unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");
    let missing = directory.path().join("none.db");
    assert!(matches!(snapshot(&missing, &directory.path().join("copy")), Err(StoreError::NotFound(_))));
    assert!(!missing.exists());
}

#[tokio::test]
async fn a_snapshot_beside_a_writer_holds_what_is_committed() {
    let site = Site::new().await;
    let id = site.enqueue(job("echo")).await;
    let copy = site.path().with_file_name("copy.db");
    snapshot(&site.path(), &copy).unwrap();
    assert!(Reader::open(&copy).unwrap().job(&id).unwrap().is_some());
    assert_eq!(std::fs::read_dir(copy.parent().unwrap()).unwrap().flatten().count(), 4, "no side files of the copy");
}

#[test]
fn what_a_killed_transaction_left_in_a_rollback_journal_is_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let source = changed(&directory, &format!("{} DROP TABLE vault_audit;", fill()));
    let writer = Connection::open(&source).unwrap();
    writer
        .execute_batch(
            "PRAGMA cache_size = 1; BEGIN IMMEDIATE; UPDATE job_queue SET payload = 'x' || hex(zeroblob(90000));",
        )
        .unwrap();
    let killed = tempfile::tempdir().unwrap();
    let path = killed.path().join("ductile.db");
    std::fs::copy(&source, &path).unwrap();
    std::fs::copy(side_file(&source, "-journal"), side_file(&path, "-journal")).unwrap();
    writer.execute_batch("ROLLBACK").unwrap();
    assert!(std::fs::read(&path).unwrap() != std::fs::read(&source).unwrap(), "half of it was in the file");
    assert_eq!(migrated(&path, "journal"), ["vault-audit"]);
    assert_eq!(rows(&path, "job_queue", &["*"]), rows(&source, "job_queue", &["*"]));
}

#[test]
fn vacuum_gives_pages_back_and_lets_a_gateway_do_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = changed(
        &directory,
        "INSERT INTO vault_audit (op, outcome, created_at, detail)
         VALUES ('set', 'ok', '2026-01-02 03:04:05.000000000Z', hex(zeroblob(500000)));
         DELETE FROM vault_audit;",
    );
    let before = std::fs::metadata(&path).unwrap().len();
    let report = run(&path, MigrateOptions { vacuum: true, mode: MigrationMode::Apply, ..ALL });
    assert!(report.backup.is_none() && with(&report, StepStatus::Applied).is_empty());
    assert!(std::fs::metadata(&path).unwrap().len() < before - 900_000);
    let connection = Connection::open(&path).unwrap();
    assert_eq!(connection.query_row("PRAGMA auto_vacuum", [], |row| row.get::<_, i64>(0)).unwrap(), 2);
}

#[test]
fn files_that_are_not_to_be_migrated_are_told_apart_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let error = migration_candidate(&at("none.db")).unwrap_err();
    assert_eq!(error.to_string(), format!("database not found: {}", at("none.db").display()));
    std::fs::write(at("empty.db"), "").unwrap();
    assert_eq!(migration_candidate(&at("empty.db")).unwrap(), MigrationCandidate::Empty);
    assert!(run(&at("empty.db"), ALL).steps.is_empty());
    Connection::open(at("songs.db")).unwrap().execute_batch("CREATE TABLE songs (x)").unwrap();
    let error = migration_candidate(&at("songs.db")).unwrap_err();
    assert_eq!(error.to_string(), format!("not a gateway database: {}", at("songs.db").display()));
    std::fs::write(at("notes.txt"), "x".repeat(5000)).unwrap();
    assert!(migration_candidate(&at("notes.txt")).unwrap_err().to_string().contains("is not a SQLite database"));
    let path = changed(&directory, "PRAGMA user_version = 900;");
    let error = migration_candidate(&path).unwrap_err();
    assert!(error.to_string().starts_with("database schema version 900 is newer than this binary (100)"), "{error}");
    let path = changed(&directory, "PRAGMA user_version = 107;");
    let report = run(&path, ALL);
    assert_eq!((report.from_version, report.to_version), (107, 107));
    let path = changed(&directory, "PRAGMA user_version = 7;");
    let report = run(&path, ALL);
    assert_eq!((report.from_version, report.to_version), (7, 100));
    assert_nothing_more_to_do(&path);
}
