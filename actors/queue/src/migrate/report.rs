//! What a migration is asked for, and what it says.

use std::path::{Path, PathBuf};

use crate::StoreError;
use crate::migrate::steps::Plan;
use crate::schema::SCHEMA_VERSION;

/// How much is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationExtent {
    /// All steps. No gateway may run.
    All,
    /// Only tables and indexes that gate nothing. A gateway may run.
    Additive,
}

/// Whether it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationMode {
    /// Do it, after a snapshot.
    Apply,
    /// Do it without a snapshot.
    ApplyWithoutSnapshot,
    /// Only say what would be done.
    DryRun,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct MigrateOptions {
    /// How much is done.
    pub extent: MigrationExtent,
    /// Whether it is done.
    pub mode: MigrationMode,
    /// Give free pages back to the file system, and let a gateway do so from then on.
    pub vacuum: bool,
}

impl MigrateOptions {
    pub(crate) fn takes_snapshot(&self) -> bool {
        self.extent == MigrationExtent::All && self.mode == MigrationMode::Apply
    }
}

/// What is being done, for somebody who waits.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// What is needed is looked for.
    Looking,
    /// A snapshot is being written to this file.
    Snapshot(&'a Path),
    /// A step begins.
    Step(&'static str),
    /// The whole file is checked.
    Checking,
    /// Free pages are given back.
    Vacuum,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepStatus {
    /// Done now.
    Applied,
    /// There was nothing to do.
    AlreadyPresent,
    /// Not done, because nothing was to be changed.
    WouldApply,
    /// Not done; it left nothing behind.
    Failed,
}

impl StepStatus {
    /// The word shown for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::AlreadyPresent => "already present",
            Self::WouldApply => "would apply",
            Self::Failed => "failed",
        }
    }
}

/// What was done.
#[derive(Debug)]
pub struct MigrationReport {
    /// The database.
    pub db: PathBuf,
    /// The snapshot that was taken first.
    pub backup: Option<PathBuf>,
    /// Whether nothing was to be changed.
    pub dry_run: bool,
    /// Version of the schema before.
    pub from_version: i64,
    /// Version of the schema afterwards; of a dry run, the one that would be reached.
    pub to_version: i64,
    /// Steps up to the one that failed. None: the database is empty.
    pub steps: Vec<(&'static str, StepStatus)>,
    /// What was left as it was.
    pub warnings: Vec<String>,
    /// What failed, after the steps that are shown.
    pub failure: Option<MigrateError>,
}

impl MigrationReport {
    pub(crate) fn of(path: &Path, options: &MigrateOptions) -> Self {
        Self {
            db: path.to_owned(),
            backup: None,
            dry_run: options.mode == MigrationMode::DryRun,
            from_version: 0,
            to_version: 0,
            steps: Vec::new(),
            warnings: Vec::new(),
            failure: None,
        }
    }

    /// A newer minor version of our major one stays; the additive form does not touch it.
    pub(crate) fn set_versions(&mut self, present: i64, extent: MigrationExtent) {
        self.from_version = present;
        self.to_version = match extent {
            MigrationExtent::All => present.max(SCHEMA_VERSION),
            MigrationExtent::Additive => present,
        };
    }

    pub(crate) fn raises_version(&self) -> bool {
        self.from_version != self.to_version
    }

    pub(crate) fn foresee(&mut self, plan: &Plan) {
        let status = |needed| if needed { StepStatus::WouldApply } else { StepStatus::AlreadyPresent };
        self.steps = plan.steps().map(|(step, needed)| (step.name, status(needed))).collect();
    }
}

/// Why a migration was not done, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// There is no such file; none was made.
    #[error("database not found: {path}", path = .0.display())]
    NotFound(PathBuf),
    /// A database of another program; it was left as it is.
    #[error("not a gateway database: {path}", path = .0.display())]
    NotOurs(PathBuf),
    /// A column is missing that existing rows can not do without. Nothing was changed.
    #[error("can not migrate {table}.{column}: existing rows have no value for it; restore a backup that has it")]
    CanNotMigrate {
        /// Its table.
        table: String,
        /// The column.
        column: String,
    },
    /// The disk is too full. Nothing was changed.
    #[error(
        "not enough space in {directory}: {needed} bytes are needed, {free} are free; make room, nothing was changed",
        directory = directory.display()
    )]
    NoSpace {
        /// Where.
        directory: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// A step failed and left nothing behind; steps before it stay applied.
    #[error("step {step} failed: {cause}")]
    Step {
        /// Its name.
        step: &'static str,
        /// Why.
        cause: String,
    },
    /// The schema is still not what a gateway needs.
    #[error("{0}")]
    StillWrong(String),
    /// SQLite found damage in the file.
    #[error("state database {path} is damaged: {verdict}; restore a backup", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        verdict: String,
    },
    /// The database could not be opened, read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}
