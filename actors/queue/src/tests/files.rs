use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::schema::{SCHEMA, findings};
use crate::shape::{Column, Index, Shape, Table};
use crate::{Reader, StoreError};

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(parse_stored("2026-01-02 03:04:05Z").unwrap()))
}

fn open_at(path: &std::path::Path) -> Result<Store, StoreError> {
    let clock = clock();
    Store::open(options(path.to_owned(), clock.clone(), EventHub::new(clock)))
}

/// Tables and indexes are the same, with every detail; only the order of their creation may differ.
pub(super) fn assert_same_shape(actual: &Shape, expected: &Shape) {
    let names = |shape: &Shape| {
        let mut names: Vec<String> = shape.tables.iter().map(|table| table.name.clone()).collect();
        names.extend(shape.indexes.iter().map(|index| index.name.clone()));
        names.sort();
        names
    };
    assert_eq!(names(actual), names(expected));
    expected.tables.iter().for_each(|table| assert_eq!(actual.table(&table.name), Some(table)));
    expected.indexes.iter().for_each(|index| assert_eq!(actual.index(&index.name), Some(index)));
}

/// A complete database in rollback mode, as bytes.
fn complete() -> &'static [u8] {
    static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BYTES.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("complete.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        connection.execute_batch("PRAGMA user_version = 100;").unwrap();
        drop(connection);
        std::fs::read(path).unwrap()
    })
}

/// A complete database, changed by these statements, in rollback mode as an operator's tool leaves it.
pub(super) fn changed(directory: &TempDir, statements: &str) -> PathBuf {
    let path = directory.path().join("ductile.db");
    let sides = ["-wal", "-shm"].map(|suffix| crate::open::side_file(&path, suffix));
    sides.iter().for_each(|side| drop(std::fs::remove_file(side)));
    std::fs::write(&path, complete()).unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY;").unwrap();
    connection.execute_batch(statements).unwrap();
    path
}

fn refusal_of(path: &std::path::Path) -> String {
    let before = std::fs::read(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = open_at(path).err().expect("the file is refused").to_string();
    assert_eq!(std::fs::read(path).unwrap(), before, "a refused file is not changed");
    assert_eq!(mode(path), 0o644);
    let read = Reader::open(path).err().expect("readers refuse it too").to_string();
    assert_eq!(read, refused);
    refused
}

#[tokio::test]
async fn a_fresh_database_is_complete_private_and_in_write_ahead_mode() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/ductile.db");
    let store = open_at(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(path.parent().unwrap().parent().unwrap()), 0o700);
    assert_eq!(mode(&crate::open::side_file(&path, "-wal")), 0o600);
    let connection = Connection::open(&path).unwrap();
    let pragma = |name: &str| -> String {
        let value: rusqlite::types::Value =
            connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).unwrap();
        format!("{value:?}")
    };
    assert_eq!(pragma("journal_mode"), "Text(\"wal\")");
    assert_eq!(pragma("user_version"), "Integer(100)");
    assert_eq!(pragma("auto_vacuum"), "Integer(2)");
    assert_same_shape(&Shape::of(&connection).unwrap(), &Shape::expected().unwrap());
    let settings = store
        .write(|scope| {
            let one =
                |name: &str| scope.connection().query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
            Ok([one("foreign_keys")?, one("busy_timeout")?, one("synchronous")?, one("journal_size_limit")?])
        })
        .await
        .unwrap();
    assert_eq!(settings, [1, 5000, 1, 67_108_864]);
}

#[test]
fn every_required_table_column_and_index_gates_the_start_with_its_step() {
    let directory = tempfile::tempdir().unwrap();
    let expected = Shape::expected().unwrap();
    let mut refused = 0;
    for Table { name: table, columns, .. } in &expected.tables {
        let path = changed(&directory, &format!("DROP TABLE {table};"));
        let additive = crate::schema::ADDITIVE.iter().any(|(name, ..)| name == table);
        if additive {
            Reader::open(&path).unwrap_or_else(|error| panic!("{table}: {error}"));
            continue;
        }
        let text = refusal_of(&path);
        let start =
            format!("sqlite schema validation failed: missing table {table}; run \"ductile system migrate\" (step ");
        assert!(text.starts_with(&start), "{text}");
        assert!(text.ends_with(") with the gateway stopped, before start"), "{text}");
        for Column { name: column, .. } in columns {
            // Another name is as good as no column, and leaves indexes and keys alone.
            let path = changed(&directory, &format!("ALTER TABLE {table} RENAME COLUMN {column} TO other;"));
            let optional = matches!(
                (table.as_str(), column.as_str()),
                ("job_log", "started_at") | ("schedule_entries", "definition")
            );
            if optional {
                assert_eq!(findings(&Connection::open(&path).unwrap()).unwrap(), []);
            } else {
                let text = refusal_of(&path);
                assert!(text.contains(&format!("missing column {table}.{column}; ")), "{text}");
            }
            refused += usize::from(!optional);
        }
    }
    assert!(refused > 80, "{refused}");
    let optional = crate::schema::OPTIONAL_INDEXES;
    for Index { name: index, table, .. } in &expected.indexes {
        let path = changed(&directory, &format!("DROP INDEX {index};"));
        let additive = crate::schema::ADDITIVE.iter().any(|(name, ..)| name == table);
        if additive || optional.contains(&index.as_str()) {
            Reader::open(&path).unwrap_or_else(|error| panic!("{index}: {error}"));
        } else {
            assert!(refusal_of(&path).contains(&format!("missing index {index}; ")));
        }
    }
}

#[test]
fn refusals_name_the_step_that_mends_them() {
    let directory = tempfile::tempdir().unwrap();
    let cases = [
        ("DROP TABLE job_transitions; DROP TABLE plugin_facts;", "missing table job_transitions", "job-facts"),
        ("DROP TABLE event_context;", "missing table event_context", "queue-context"),
        ("DROP TABLE storage_sequences;", "missing table storage_sequences", "plugin-fact-seq"),
        ("ALTER TABLE plugin_facts RENAME COLUMN seq TO s;", "missing column plugin_facts.seq", "plugin-fact-seq"),
        ("ALTER TABLE job_log RENAME COLUMN stderr TO s;", "missing column job_log.stderr", "job-log-columns"),
        (
            "ALTER TABLE job_queue RENAME COLUMN started_config_snapshot_id TO s;",
            "missing column job_queue.started_config_snapshot_id",
            "config-snapshots",
        ),
        ("DROP INDEX job_log_completed_at_idx;", "missing index job_log_completed_at_idx", "indexes"),
        ("DROP INDEX job_queue_event_source_idx;", "missing index job_queue_event_source_idx", "fanout-index"),
        ("DROP INDEX plugin_facts_plugin_seq_idx;", "missing index plugin_facts_plugin_seq_idx", "plugin-fact-seq"),
        (
            "DROP INDEX job_queue_event_source_idx;
             CREATE UNIQUE INDEX job_queue_event_source_idx ON job_queue (parent_job_id, source_event_id)
             WHERE source_event_id IS NOT NULL;",
            "wrong index job_queue_event_source_idx",
            "fanout-index",
        ),
        (
            "DROP TABLE job_attempts;
             CREATE TABLE job_attempts (id INTEGER PRIMARY KEY AUTOINCREMENT,
                 job_id TEXT NOT NULL REFERENCES job_queue (id), attempt INTEGER NOT NULL, created_at TEXT NOT NULL,
                 UNIQUE (job_id, attempt));
             CREATE INDEX job_attempts_job_created_at_idx ON job_attempts (job_id, created_at);
             CREATE INDEX job_attempts_created_at_idx ON job_attempts (created_at);",
            "foreign key on job_attempts",
            "drop-fact-fks",
        ),
    ];
    for (statements, what, step) in cases {
        let text = refusal_of(&changed(&directory, statements));
        assert_eq!(
            text,
            format!(
                "sqlite schema validation failed: {what}; run \"ductile system migrate\" (step {step}) with the \
                 gateway stopped, before start"
            )
        );
    }
}

#[test]
fn a_newer_major_version_is_refused_and_any_minor_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let text = refusal_of(&changed(&directory, "PRAGMA user_version = 900;"));
    assert!(text.starts_with("database schema version 900 is newer than this binary (100)"), "{text}");
    for version in [0, 99, 107] {
        let directory = tempfile::tempdir().unwrap();
        open_at(&changed(&directory, &format!("PRAGMA user_version = {version};"))).unwrap();
    }
}

#[test]
fn files_that_are_no_database_of_ours_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    std::fs::write(&path, "x".repeat(5000)).unwrap();
    assert!(refusal_of(&path).contains("is not a SQLite database"));
    let path = directory.path().join("foreign.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE songs (name TEXT)").unwrap();
    assert!(refusal_of(&path).contains("missing table storage_sequences"));
    let path = directory.path().join("folder");
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(open_at(&path), Err(StoreError::Refused(_))));
}

#[test]
fn a_file_that_a_killed_creation_left_is_created_anew() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.db");
    std::fs::write(&empty, "").unwrap();
    open_at(&empty).unwrap();
    let header_only = directory.path().join("header.db");
    let connection = Connection::open(&header_only).unwrap();
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;").unwrap();
    drop(connection);
    assert!(std::fs::metadata(&header_only).unwrap().len() > 0);
    open_at(&header_only).unwrap();
    for path in [empty, header_only] {
        assert_eq!(mode(&path), 0o600);
        assert_eq!(findings(&Connection::open(&path).unwrap()).unwrap(), []);
    }
}

#[test]
fn a_wider_mode_of_a_good_file_is_tightened() {
    let directory = tempfile::tempdir().unwrap();
    let path = changed(&directory, "");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o664)).unwrap();
    open_at(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[tokio::test]
async fn an_older_database_without_optional_parts_works_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    changed(
        &directory,
        "DROP TABLE vault_audit; DROP TABLE job_stopwatch; DROP TABLE job_stopwatch_rollup_daily;
         DROP TABLE janitor_heartbeat; DROP TABLE ingress_seen; DROP TABLE reload_history;
         ALTER TABLE job_log DROP COLUMN started_at; ALTER TABLE schedule_entries DROP COLUMN definition;
         DROP INDEX job_queue_parent_idx;",
    );
    let site = Site::in_directory(directory).await;
    let entry = site.store.begin_reload("sighup", None, "full").await.unwrap();
    assert_eq!(entry.row, None);
    let mut claims = site.activate(policy(1)).await;
    let id = site.enqueue(job("echo")).await;
    let running = claim(&mut claims).await;
    site.finish(&running, succeeded()).await;
    assert_eq!(site.queue.attempts(&id).await.unwrap().len(), 1);
    assert_eq!(site.queue.tree(&id).await.unwrap().unwrap().len(), 1);
    site.other().execute("DELETE FROM job_queue", []).unwrap();
    assert!(site.queue.job(&id).await.unwrap().unwrap().from_log);
    assert_eq!(
        site.one::<i64>("SELECT count(*) FROM sqlite_master WHERE name LIKE 'vault%' OR name LIKE 'reload%'"),
        0
    );
    assert!(Reader::open(&site.path()).unwrap().reloads(10).unwrap().is_empty());
}

#[tokio::test]
async fn times_of_older_rows_are_rewritten_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    changed(
        &directory,
        "INSERT INTO job_queue (id, plugin, command, status, submitted_by, created_at, next_retry_at)
         VALUES ('old', 'echo', 'poll', 'queued', 'api', '2026-01-01T03:04:05.12+01:00', '2026-01-03T00:00:00Z');",
    );
    let site = Site::in_directory(directory).await;
    assert_eq!(site.one::<String>("SELECT created_at FROM job_queue"), "2026-01-01 02:04:05.120000000Z");
    assert_eq!(site.one::<String>("SELECT next_retry_at FROM job_queue"), "2026-01-03 00:00:00.000000000Z");
    let mut claims = site.activate(policy(1)).await;
    nothing_claimed(&site, &mut claims).await;
    site.advance(24 * 3600);
    assert_eq!(claim(&mut claims).await.id.as_str(), "old");
}

#[tokio::test]
async fn a_store_that_was_dropped_without_a_close_loses_nothing() {
    let site = Site::new().await;
    for _ in 0..10 {
        site.enqueue(job("echo")).await;
    }
    let Site { directory, .. } = site;
    let site = Site::in_directory(directory).await;
    assert_eq!(site.queue.depth(), 10);
    assert_eq!(site.one::<i64>("SELECT count(*) FROM job_queue WHERE status = 'queued'"), 10);
}

#[test]
fn a_missing_database_is_named_and_not_created() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.db");
    let error = Reader::open(&path).err().unwrap().to_string();
    assert_eq!(error, format!("database not found: {}", path.display()));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_reader_of_a_stopped_database_leaves_no_side_files() {
    let site = Site::new().await;
    let id = site.enqueue(job("echo")).await;
    site.store.close().await;
    let reader = Reader::open(&site.path()).unwrap();
    assert!(reader.job(&id).unwrap().is_some());
    let names: Vec<_> = std::fs::read_dir(site.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["ductile.db"]);
}
