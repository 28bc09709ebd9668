//! The state database of the configuration, for commands that work on it directly, beside a running gateway or without
//! one. It is never created.

use std::path::{Path, PathBuf};

use ductile_config::{Outline, Source, outline, state_path};
use ductile_model::Refusal;
use ductile_queue::{Maintainer, Reader, StoreError};

use super::args::Common;
use super::report::{self, Failure};

/// Where the database is. What else is wrong with the configuration does not matter here.
pub(super) fn path(common: &Common) -> Result<PathBuf, Failure> {
    let environment = crate::environment();
    let source = common.locate(&environment).map_err(Failure::config)?;
    let path = state_path(&source, &environment).map_err(unloadable)?;
    note_choice(&source, &path, common);
    Ok(path)
}

/// The configuration, for commands that check names against it. They need no secret of it.
pub(super) fn configuration(common: &Common) -> Result<Outline, Failure> {
    let environment = crate::environment();
    let source = common.locate(&environment).map_err(Failure::config)?;
    let found = outline(&source, &environment).map_err(unloadable)?;
    note_choice(&source, &found.config.state.path, common);
    Ok(found)
}

fn unloadable(refusal: Refusal) -> Failure {
    Failure::config(format!("the configuration does not load: {refusal}"))
}

fn note_choice(source: &Source, database: &Path, common: &Common) {
    if common.verbose {
        report::note(format_args!("configuration: {} ({})", source.root_file.display(), source.kind.as_str()));
        report::note(format_args!("database: {}", database.display()));
    }
}

/// Read-only access.
pub(super) fn reader(path: &Path) -> Result<Reader, Failure> {
    crate::logging::warnings_to_stderr();
    Reader::open(path).map_err(failure)
}

/// Read-write access.
pub(super) fn maintainer(path: &Path) -> Result<Maintainer, Failure> {
    crate::logging::warnings_to_stderr();
    Maintainer::open(path).map_err(failure)
}

/// What the database said no to, in the classes of failures.
pub(super) fn failure(error: StoreError) -> Failure {
    match error {
        StoreError::NotFound(_) => Failure::missing(error),
        StoreError::Denied { .. } => Failure::denied(error),
        _ if error.is_busy() => Failure::try_again(error),
        _ => Failure::internal(error),
    }
}

/// Says that there is nothing to show because the database is older than a table.
pub(super) fn note_missing(missing: &[(&str, &str)], table: &str) {
    if let Some((_, lost)) = missing.iter().find(|(name, _)| *name == table) {
        report::note(format_args!(
            "note: the state database has no table {table} ({lost}); \"ductile system migrate --additive\" adds it"
        ));
    }
}
