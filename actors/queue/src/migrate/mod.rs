//! Brings an existing database to the schema of this program: explicitly, step by step, never at a start.
//!
//! Each step looks at what the database really has, not at a version number, and is one transaction. So it may be
//! killed at any instant and run again. What a step makes is read from `schema.sql`; nothing is declared a second time.

mod rebuild;
mod report;
mod space;
mod steps;
mod values;

use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

pub use report::{MigrateError, MigrateOptions, MigrationExtent, MigrationMode, MigrationReport, Progress, StepStatus};

use crate::open::{self, BUSY_TIMEOUT, existing, known_version, refusal};
use crate::schema::{self, Finding, SCHEMA_VERSION};
use crate::shape::Shape;
use crate::snapshot::partial_prefix;
use crate::{StoreError, snapshot};
use steps::{Plan, Step};

/// What a file is to a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationCandidate {
    /// No tables: there is nothing to migrate.
    Empty,
    /// A database of a gateway.
    Gateway,
}

/// Looks what a file is, without changing it.
///
/// # Errors
/// There is none, it is no database, not one of a gateway, or of a newer program.
pub fn migration_candidate(path: &Path) -> Result<MigrationCandidate, MigrateError> {
    let connection = match existing(path) {
        Err(StoreError::NotFound(path)) => return Err(MigrateError::NotFound(path)),
        other => other?,
    };
    let refused = refusal(path);
    if schema::is_empty(&connection).map_err(&refused)? {
        return Ok(MigrationCandidate::Empty);
    }
    if !schema::has_table(&connection, "job_queue").map_err(&refused)? {
        return Err(MigrateError::NotOurs(path.to_owned()));
    }
    known_version(&connection, path)?;
    Ok(MigrationCandidate::Gateway)
}

/// Migrates a database that no gateway uses; with [`MigrationExtent::Additive`] one may. The caller sees to that.
///
/// A step that failed is told by the report: the steps before it stay applied.
///
/// # Errors
/// Whatever is found before the first change.
pub fn migrate(
    path: &Path,
    options: &MigrateOptions,
    now: DateTime<Utc>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<MigrationReport, MigrateError> {
    migrate_on(path, options, now, space::free, progress)
}

/// The same on a disk of which somebody says how much is free.
pub(crate) fn migrate_on(
    path: &Path,
    options: &MigrateOptions,
    now: DateTime<Utc>,
    free: fn(&Path) -> io::Result<u64>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<MigrationReport, MigrateError> {
    let mut report = MigrationReport::of(path, options);
    if migration_candidate(path)? == MigrationCandidate::Empty {
        return Ok(report);
    }
    open::refuse_network_file_system(path)?;
    let reader = existing(path)?;
    report.set_versions(known_version(&reader, path)?, options.extent);
    progress(Progress::Looking);
    let plan = Plan::of(&reader, options.extent).map_err(|error| error.at(path))?;
    if plan.needs_work() && options.takes_snapshot() && options.mode != MigrationMode::DryRun {
        // Before the space is counted, or what a kill left could keep every later run from its own.
        remove_partial_snapshots(path);
    }
    if plan.needs_work() || options.vacuum {
        space::check(path, &reader, &plan, options, free)?;
    }
    if options.mode == MigrationMode::DryRun {
        report.foresee(&plan);
        return Ok(report);
    }
    if !plan.needs_work() && !report.raises_version() && !options.vacuum {
        report.foresee(&plan);
        report.failure = check(&reader, path, options.extent, progress).err();
        return Ok(report);
    }
    drop(reader);
    let mut writer = writable(path)?;
    if plan.needs_work() && options.takes_snapshot() {
        report.backup = Some(take_snapshot(path, now, progress)?);
    }
    report.failure = run(&mut writer, path, options, &plan, &mut report, progress).err();
    finish(writer, path, options, report)
}

fn run(
    writer: &mut Connection,
    path: &Path,
    options: &MigrateOptions,
    plan: &Plan,
    report: &mut MigrationReport,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), MigrateError> {
    let expected = Shape::expected().map_err(refusal(path))?;
    for (step, is_needed) in plan.steps() {
        if !is_needed {
            report.steps.push((step.name, StepStatus::AlreadyPresent));
            continue;
        }
        progress(Progress::Step(step.name));
        let applied = apply(writer, step, &expected, options.extent);
        let status = if applied.is_ok() { StepStatus::Applied } else { StepStatus::Failed };
        report.steps.push((step.name, status));
        report.warnings.extend(applied.map_err(|error| error.at_step(step.name, path))?);
    }
    check(writer, path, options.extent, progress)?;
    let failed = refusal(path);
    if report.raises_version() {
        writer.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(&failed)?;
    }
    if options.vacuum {
        progress(Progress::Vacuum);
        writer.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;").map_err(&failed)?;
    }
    Ok(())
}

fn apply(
    writer: &mut Connection,
    step: &Step,
    expected: &Shape,
    extent: MigrationExtent,
) -> Result<Vec<String>, steps::StepError> {
    let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let warnings = step.apply(&transaction, expected, extent)?;
    transaction.commit()?;
    Ok(warnings)
}

/// What must hold afterwards, whatever was done.
fn check(
    connection: &Connection,
    path: &Path,
    extent: MigrationExtent,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), MigrateError> {
    if let Some(finding) = schema::findings(connection).map_err(refusal(path))?.first() {
        return Err(MigrateError::StillWrong(finding.refusal()));
    }
    if extent == MigrationExtent::Additive {
        return Ok(());
    }
    progress(Progress::Checking);
    let verdict: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(refusal(path))?;
    if verdict == "ok" { Ok(()) } else { Err(MigrateError::Damaged { path: path.to_owned(), verdict }) }
}

/// Leaves one file behind, as a stopped gateway does. What fails here fails for nobody else.
fn finish(
    writer: Connection,
    path: &Path,
    options: &MigrateOptions,
    mut report: MigrationReport,
) -> Result<MigrationReport, MigrateError> {
    if let Ok(version) = writer.query_row("PRAGMA user_version", [], |row| row.get(0)) {
        report.to_version = version;
    }
    if options.extent == MigrationExtent::All {
        drop(writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    }
    writer.close().map_err(|(_, source)| refusal(path)(source))?;
    Ok(report)
}

/// A connection on which a table can be put in the place of another: references to it are neither followed nor
/// rewritten.
fn writable(path: &Path) -> Result<Connection, MigrateError> {
    open::tighten(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let set_up = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "foreign_keys", false)?;
        connection.pragma_update(None, "legacy_alter_table", true)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        Ok(connection)
    };
    Ok(set_up().map_err(refusal(path))?)
}

fn take_snapshot(
    path: &Path,
    now: DateTime<Utc>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, MigrateError> {
    // A migration that was killed and run again at once has its snapshot under this second already.
    let target = (0..)
        .map(|later| snapshot_path(path, now + TimeDelta::seconds(later)))
        .find(|target| !target.exists())
        .unwrap_or_else(|| snapshot_path(path, now));
    progress(Progress::Snapshot(&target));
    snapshot(path, &target)?;
    Ok(target)
}

fn snapshot_path(path: &Path, at: DateTime<Utc>) -> PathBuf {
    open::side_file(path, &format!(".pre-migrate-{}", at.format("%Y%m%dT%H%M%SZ")))
}

/// What a killed snapshot left behind is as large as the database.
fn remove_partial_snapshots(path: &Path) {
    let prefix = partial_prefix(&open::side_file(path, ".pre-migrate-"));
    let prefix = prefix.trim_end_matches('.');
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

/// Whether everything of this can be added while a gateway runs.
pub(crate) fn runs_beside_a_gateway(gaps: &[Finding]) -> bool {
    gaps.iter().all(|gap| !matches!(gap, Finding::MissingColumn { .. }) && steps::is_additive(gap.step()))
}
