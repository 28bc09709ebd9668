//! `ductile system migrate`: an existing database gets the schema of this program.

use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chrono::Utc;
use ductile_config::state_path;
use ductile_queue::{
    MigrateError, MigrateOptions, MigrationCandidate, MigrationExtent, MigrationMode, MigrationReport, Progress,
    migrate, migration_candidate,
};
use serde_json::{Value, json};

use crate::cli::args::Common;
use crate::cli::report::{self, Failure, line, note};
use crate::gateway::pid_lock::{LockError, LockState, PidLock, lock_path, lock_state};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The database, instead of that of a configuration
    #[arg(long, value_name = "FILE")]
    db: Option<PathBuf>,
    /// Only add tables and indexes that an older database works without; a gateway may run meanwhile
    #[arg(long, conflicts_with = "vacuum")]
    additive: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Without a snapshot beside the database first
    #[arg(long)]
    no_backup: bool,
    /// Give free pages back, and let the gateway do so from then on
    #[arg(long)]
    vacuum: bool,
}

impl Arguments {
    fn options(&self) -> MigrateOptions {
        MigrateOptions {
            extent: if self.additive { MigrationExtent::Additive } else { MigrationExtent::All },
            mode: match (self.dry_run, self.no_backup) {
                (true, _) => MigrationMode::DryRun,
                (false, true) => MigrationMode::ApplyWithoutSnapshot,
                (false, false) => MigrationMode::Apply,
            },
            vacuum: self.vacuum,
        }
    }
}

pub(super) fn run(arguments: &Arguments, common: &Common) -> Result<u8, Failure> {
    let database = database(arguments, common)?;
    if common.verbose {
        note(format_args!("database: {}", database.display()));
    }
    crate::logging::warnings_to_stderr();
    let options = arguments.options();
    let lock = match migration_candidate(&database).map_err(refused)? {
        MigrationCandidate::Empty => None,
        MigrationCandidate::Gateway => keep_gateways_away(&database, &options)?,
    };
    let result = migrate(&database, &options, Utc::now(), &mut tell);
    if let Some(lock) = lock {
        lock.release();
    }
    let report = result.map_err(refused)?;
    if let Some(backup) = &report.backup {
        give_to_owner_of(&database, backup);
    }
    show(&report, common);
    Ok(u8::from(report.failure.is_some()))
}

fn database(arguments: &Arguments, common: &Common) -> Result<PathBuf, Failure> {
    if let Some(database) = &arguments.db {
        return match common.named_config() {
            Some(_) => Err(Failure::usage("use only one of --config or --db")),
            None => Ok(database.clone()),
        };
    }
    let environment = crate::environment();
    let source = common.locate(&environment).map_err(Failure::config)?;
    state_path(&source, &environment).map_err(Failure::config)
}

/// A dry run only looks, so that it leaves no lock file behind either.
fn keep_gateways_away(database: &Path, options: &MigrateOptions) -> Result<Option<PidLock>, Failure> {
    if options.extent == MigrationExtent::Additive {
        return Ok(None);
    }
    let path = lock_path(database);
    // A gateway may know the file by its other name.
    let real = database.canonicalize().map(|real| lock_path(&real));
    if let Ok(real) = real
        && let LockState::Held(pid) = lock_state(&real)
    {
        return Err(running(pid));
    }
    if options.mode == MigrationMode::DryRun {
        return match lock_state(&path) {
            LockState::Held(pid) => Err(running(pid)),
            LockState::Unreadable(error) => Err(Failure::try_again(format!("PID lock {}: {error}", path.display()))),
            LockState::Free => Ok(None),
        };
    }
    let lock = PidLock::acquire(&path).map_err(|error| match error {
        LockError::Held { pid, .. } => running(pid),
        LockError::Io { .. } => Failure::try_again(error),
    })?;
    give_to_owner_of(database, &path);
    Ok(Some(lock))
}

fn running(pid: Option<u32>) -> Failure {
    let pid = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
    Failure::try_again(format!("gateway is running (pid {pid}): stop it before migrating"))
}

/// Who runs this may be root, and what it makes must not be in the way of the gateway's own user. Nobody else can give
/// files away, and need not.
fn give_to_owner_of(database: &Path, file: &Path) {
    let (Ok(owner), Ok(made)) = (std::fs::metadata(database), std::fs::metadata(file)) else { return };
    if (owner.uid(), owner.gid()) != (made.uid(), made.gid()) {
        drop(std::os::unix::fs::chown(file, Some(owner.uid()), Some(owner.gid())));
    }
}

fn refused(error: MigrateError) -> Failure {
    match error {
        MigrateError::NotFound(_) => Failure::missing(error),
        MigrateError::NoSpace { .. } => Failure::cannot_create(error),
        error => Failure::internal(error),
    }
}

/// A line for whoever waits before a terminal.
fn tell(progress: Progress<'_>) {
    if !io::stderr().is_terminal() {
        return;
    }
    match progress {
        Progress::Looking => note(format_args!("looking what is needed ...")),
        Progress::Snapshot(path) => note(format_args!("writing {} ...", path.display())),
        Progress::Step(step) => note(format_args!("{step} ...")),
        Progress::Checking => note(format_args!("checking the whole database ...")),
        Progress::Vacuum => note(format_args!("giving free pages back ...")),
    }
}

/// Nothing is printed before the end: a reader that goes away must not end a migration half way.
fn show(report: &MigrationReport, common: &Common) {
    report.warnings.iter().for_each(|warning| note(format_args!("warning: {warning}")));
    if common.json {
        return report::json(&document(report));
    }
    if let Some(backup) = &report.backup {
        note(format_args!("snapshot: {}", backup.display()));
    }
    if report.steps.is_empty() && report.failure.is_none() {
        return line(format_args!("nothing to migrate"));
    }
    report.steps.iter().for_each(|(step, status)| line(format_args!("{step}: {}", status.as_str())));
    match &report.failure {
        Some(failure) => note(format_args!("{failure}")),
        None => {
            let version = if report.dry_run { report.from_version } else { report.to_version };
            line(format_args!("database is at schema version {version}"));
        }
    }
}

fn document(report: &MigrationReport) -> Value {
    let steps: Vec<Value> =
        report.steps.iter().map(|(name, status)| json!({"name": name, "status": status.as_str()})).collect();
    let mut document = json!({
        "db": report.db.display().to_string(),
        "backup": report.backup.as_ref().map(|path| path.display().to_string()),
        "dry_run": report.dry_run,
        "from_version": report.from_version,
        "to_version": report.to_version,
        "steps": steps,
        "ok": report.failure.is_none(),
    });
    if let Some(failure) = &report.failure {
        document["error"] = json!(failure.to_string());
    }
    document
}
