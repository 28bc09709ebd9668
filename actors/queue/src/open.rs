//! The file: where it lives, how it is created, what is checked before it is touched.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use ductile_model::{format_db, parse_stored};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use tracing::{info, warn};

use crate::schema::{self, Finding, SCHEMA, SCHEMA_VERSION};
use crate::{StoreError, Synchronous, facts, migrate};

/// How long a statement waits for another process that holds the write lock.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Statements a connection keeps compiled.
const STATEMENT_CACHE: usize = 128;

/// Size to which the write-ahead log is cut back after a checkpoint.
const JOURNAL_SIZE_LIMIT: i64 = 64 << 20;

/// Opens the database of a gateway for writing; creates it when there is none.
pub(crate) fn writable(path: &Path, synchronous: Synchronous, now: DateTime<Utc>) -> Result<Connection, StoreError> {
    refuse_network_file_system(path)?;
    create_missing_directories(path)?;
    let fresh = match std::fs::metadata(path) {
        Ok(present) if present.is_file() => present.len() == 0 || validate_file(path)? == Content::Empty,
        Ok(_) => return Err(StoreError::Refused(format!("state database {} is not a regular file", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_file(path)?;
            true
        }
        Err(error) => return Err(io_error("reading", path)(error)),
    };
    tighten(path)?;
    let mut connection = connect(path, synchronous, fresh).map_err(refusal(path))?;
    if fresh {
        create_schema(&mut connection).map_err(refusal(path))?;
        info!(path = %path.display(), schema_version = SCHEMA_VERSION, "state database created");
    } else {
        warn_about_old_parts(&connection, path).map_err(refusal(path))?;
    }
    // What SQLite may have created beside the file meanwhile has the file's own mode.
    prepare_rows(&mut connection, now).map_err(refusal(path))?;
    Ok(connection)
}

/// Opens an existing file read-only, whatever is in it.
pub(crate) fn existing(path: &Path) -> Result<Connection, StoreError> {
    match std::fs::metadata(path) {
        Ok(present) if present.is_file() => connect_read_only(path).map_err(refusal(path)),
        Ok(_) => Err(StoreError::Refused(format!("state database {} is not a regular file", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::NotFound(path.to_owned())),
        Err(error) => Err(io_error("reading", path)(error)),
    }
}

/// Opens an existing database read-only and validates it; changes nothing.
pub(crate) fn readable(path: &Path) -> Result<Connection, StoreError> {
    open_readable(path)
        .map_err(|error| if error.is_about_access() { denied(path, Access::READ_OK, error) } else { error })
}

fn open_readable(path: &Path) -> Result<Connection, StoreError> {
    let connection = existing(path)?;
    match validate(&connection, path)? {
        Content::Complete => Ok(connection),
        Content::Empty => Err(StoreError::Refused(format!(
            "state database {} is empty; start the gateway once to create its tables",
            path.display()
        ))),
    }
}

/// Opens an existing database for a command that writes. It is validated as for reading and its schema stays; what has
/// vanished meanwhile is not created. Its commits survive a power cut whatever the configuration says, since somebody
/// is told of each.
pub(crate) fn maintainable(path: &Path) -> Result<Connection, StoreError> {
    refuse_network_file_system(path)?;
    drop(readable(path)?);
    tighten(path)?;
    let connection = connect(path, Synchronous::Full, false).map_err(refusal(path))?;
    // SQLite is content with less than it was asked for.
    if connection.is_readonly("main").map_err(refusal(path))? {
        let refused = StoreError::Refused(format!("state database {} can not be written", path.display()));
        return Err(denied(path, Access::READ_OK | Access::WRITE_OK, refused));
    }
    Ok(connection)
}

/// Names what keeps this user from using the files of the database; the error as it was where nothing does.
fn denied(path: &Path, wanted: Access, error: StoreError) -> StoreError {
    let mut places: Vec<(PathBuf, Access)> =
        path.ancestors().skip(1).map(|directory| (directory.to_owned(), Access::EXEC_OK)).collect();
    places.reverse();
    places.extend(["", "-wal", "-shm"].map(|suffix| (side_file(path, suffix), wanted)));
    let closed = places.into_iter().find(|(place, wanted)| access(place, *wanted) == Err(Errno::ACCESS));
    match closed.and_then(|(place, _)| std::fs::metadata(&place).ok().map(|found| (place, found.uid()))) {
        Some((path, owner)) => StoreError::Denied { path, owner, user: rustix::process::getuid().as_raw() },
        None => error,
    }
}

/// What a file that was not refused holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// No tables: it may be created.
    Empty,
    /// Everything that is required.
    Complete,
}

fn validate_file(path: &Path) -> Result<Content, StoreError> {
    let connection = connect_read_only(path).map_err(refusal(path))?;
    validate(&connection, path)
}

fn validate(connection: &Connection, path: &Path) -> Result<Content, StoreError> {
    let refused = refusal(path);
    if schema::is_empty(connection).map_err(&refused)? {
        return Ok(Content::Empty);
    }
    known_version(connection, path)?;
    match schema::findings(connection).map_err(&refused)?.first() {
        Some(finding) => Err(StoreError::Refused(finding.refusal())),
        None => Ok(Content::Complete),
    }
}

/// The version of the schema that the file claims; one of a newer program is refused.
pub(crate) fn known_version(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(refusal(path))?;
    if version / 100 > SCHEMA_VERSION / 100 {
        return Err(StoreError::Refused(format!(
            "database schema version {version} is newer than this binary ({SCHEMA_VERSION}): {}; start it with the \
             version that wrote it, or a newer one",
            path.display()
        )));
    }
    Ok(version)
}

/// Something that the schema has and a database lacks, or has in another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaGap {
    /// What it is, such as `missing table vault_audit`.
    pub what: String,
    /// The migration step that mends it.
    pub step: &'static str,
    /// Whether the gateway refuses to start because of it.
    pub gates_start: bool,
    /// What does not work meanwhile.
    pub lost: &'static str,
}

/// Everything that a database lacks: first what keeps the gateway from starting. It is opened read-only.
///
/// # Errors
/// Missing, unreadable, no database, or of a newer program.
pub fn schema_gaps(path: &Path) -> Result<Vec<SchemaGap>, StoreError> {
    let connection = existing(path)?;
    known_version(&connection, path)?;
    let gap = |gates_start: bool| {
        move |finding: &Finding| SchemaGap {
            what: finding.to_string(),
            step: finding.step(),
            gates_start,
            lost: finding.lost(),
        }
    };
    let required = schema::findings(&connection).map_err(refusal(path))?;
    let optional = schema::gaps(&connection).map_err(refusal(path))?;
    Ok(required.iter().map(gap(true)).chain(optional.iter().map(gap(false))).collect())
}

fn connect_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let connection = unchanged(path)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// A connection that can not change the file. One without a write-ahead log is nobody's at this moment: it is then
/// read as it lies, so that no side files are left behind. What a killed transaction left in a rollback journal is no
/// content of the database, so it is taken back first.
pub(crate) fn unchanged(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let journal = std::fs::metadata(side_file(path, "-journal")).is_ok_and(|journal| journal.len() > 0);
    if journal {
        roll_back(path)?;
    }
    let connection = if journal || side_file(path, "-wal").exists() {
        Connection::open_with_flags(path, flags)?
    } else {
        Connection::open_with_flags(immutable_uri(path), flags | OpenFlags::SQLITE_OPEN_URI)?
    };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    #[cfg(test)]
    crate::tests::statements::watch(&connection);
    Ok(connection)
}

/// The first read through a connection that may write ends what nobody is left to end.
fn roll_back(path: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))
}

fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

/// Settings of a reader of the pool.
pub(crate) fn set_up_reader(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    #[cfg(test)]
    crate::tests::statements::watch(connection);
    Ok(())
}

fn connect(path: &Path, synchronous: Synchronous, fresh: bool) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if fresh {
        // Before the first page is written, else it has no effect.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        let text = format!("journal mode stays {mode:?}; the gateway needs write-ahead logging");
        return Err(rusqlite::Error::SqliteFailure(code, Some(text)));
    }
    set_synchronous(&connection, synchronous)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Savepoints keep page images of what they may have to undo. Beyond 64 KiB of them in one transaction SQLite would
    // write every further image to a temporary file: more calls than the log itself costs.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update_and_check(None, "journal_size_limit", JOURNAL_SIZE_LIMIT, |_| Ok(()))?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    #[cfg(test)]
    crate::tests::statements::watch(&connection);
    Ok(connection)
}

/// Durability from the next commit on. Not inside a transaction.
pub(crate) fn set_synchronous(connection: &Connection, synchronous: Synchronous) -> rusqlite::Result<()> {
    let word = match synchronous {
        Synchronous::Normal => "NORMAL",
        Synchronous::Full => "FULL",
    };
    connection.pragma_update(None, "synchronous", word)
}

fn create_schema(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

fn warn_about_old_parts(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version < SCHEMA_VERSION {
        warn!(
            path = %path.display(),
            schema_version = version,
            "state database is older than this program; run \"ductile system migrate\" at the next stop"
        );
    }
    let gaps = schema::gaps(connection)?;
    if gaps.is_empty() {
        return Ok(());
    }
    let missing: Vec<_> = gaps.iter().map(ToString::to_string).collect();
    let steps: BTreeSet<_> = gaps.iter().map(Finding::step).collect();
    let lost: BTreeSet<_> = gaps.iter().map(Finding::lost).collect();
    let hint = if migrate::runs_beside_a_gateway(&gaps) {
        "run \"ductile system migrate --additive\""
    } else {
        "run \"ductile system migrate\" at the next stop"
    };
    warn!(
        path = %path.display(),
        missing = missing.join(", "),
        steps = Vec::from_iter(steps).join(", "),
        without_them = Vec::from_iter(lost).join("; "),
        "state database lacks parts that are not required; {hint}"
    );
    Ok(())
}

/// What every start puts right in the rows, before anything reads them.
fn prepare_rows(connection: &mut Connection, now: DateTime<Utc>) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    rewrite_old_times(&transaction)?;
    facts::repair_sequence(&transaction)?;
    close_interrupted_reloads(&transaction, now)?;
    transaction.commit()
}

/// Older rows separate date and time by a `T`, which would sort after every row of the same day. They are found along
/// indexes, so a long history costs little; of finished rows the creation and the end tell what form the rest has.
fn rewrite_old_times(connection: &Connection) -> rusqlite::Result<()> {
    const TIMES: [&str; 4] = ["created_at", "started_at", "completed_at", "next_retry_at"];
    let mut find = connection.prepare(
        "SELECT rowid FROM job_queue WHERE substr(created_at, 11, 1) = 'T'
         UNION SELECT rowid FROM job_queue WHERE substr(completed_at, 11, 1) = 'T'
         UNION SELECT rowid FROM job_queue INDEXED BY job_queue_status_created_at_idx
               WHERE status IN ('queued', 'running')
                 AND (substr(started_at, 11, 1) = 'T' OR substr(next_retry_at, 11, 1) = 'T')",
    )?;
    let old: Vec<i64> = find.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    for column in TIMES {
        let mut read =
            connection.prepare(&format!("SELECT {column} FROM job_queue WHERE rowid = ?1 AND {column} <> ''"))?;
        let mut write = connection.prepare(&format!("UPDATE job_queue SET {column} = ?2 WHERE rowid = ?1"))?;
        for row in &old {
            let Some(text) = read.query_row([row], |row| row.get::<_, String>(0)).optional()? else { continue };
            match parse_stored(&text) {
                Some(at) => drop(write.execute(params![row, format_db(at)])?),
                None => warn!(column, text, "a time in job_queue can not be read; left as it is"),
            }
        }
    }
    Ok(())
}

fn close_interrupted_reloads(connection: &Connection, now: DateTime<Utc>) -> rusqlite::Result<()> {
    if !schema::has_column(connection, "reload_history", "finished_at")? {
        return Ok(());
    }
    connection.execute(
        "UPDATE reload_history SET finished_at = ?1, outcome = 'failed', stage = 'interrupted',
                error = 'the gateway stopped while it ran'
         WHERE finished_at IS NULL",
        [format_db(now)],
    )?;
    Ok(())
}

fn create_missing_directories(path: &Path) -> Result<(), StoreError> {
    let mut missing: Vec<&Path> = Vec::new();
    let mut directory = path.parent();
    while let Some(present) = directory.filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
        missing.push(present);
        directory = present.parent();
    }
    for directory in missing.into_iter().rev() {
        DirBuilder::new().mode(0o700).create(directory).map_err(io_error("creating directory", directory))?;
        // The umask may have taken bits away that we need ourselves.
        std::fs::set_permissions(directory, Permissions::from_mode(0o700))
            .map_err(io_error("setting the mode of", directory))?;
    }
    Ok(())
}

fn create_file(path: &Path) -> Result<(), StoreError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file: File = file.map_err(io_error("creating", path))?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(io_error("setting the mode of", path))
}

pub(crate) fn tighten(path: &Path) -> Result<(), StoreError> {
    for file in [path.to_owned(), side_file(path, "-wal"), side_file(path, "-shm")] {
        let Ok(present) = std::fs::metadata(&file) else { continue };
        let mode = present.mode() & 0o7777;
        if mode & !0o600 == 0 {
            continue;
        }
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).map_err(|source| {
            StoreError::Refused(format!(
                "state database {} is readable by others (mode {mode:04o}) and its mode can not be changed: {source}; \
                 give the file to the user of the gateway",
                file.display()
            ))
        })?;
        warn!(path = %file.display(), mode = format!("{mode:04o}"), "mode of the state database tightened to 0600");
    }
    Ok(())
}

pub(crate) fn side_file(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Identity of the file behind the path: device and inode.
pub(crate) fn file_identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

enum FileSystem {
    Local,
    /// Works as a rule, but what lies beneath is not known.
    Unsure(&'static str),
    Network(&'static str),
}

pub(crate) fn refuse_network_file_system(path: &Path) -> Result<(), StoreError> {
    let absolute = std::path::absolute(path).map_err(io_error("resolving", path))?;
    let Some(present) = absolute.ancestors().find(|ancestor| ancestor.exists()) else { return Ok(()) };
    let found = rustix::fs::statfs(present).map_err(|errno| io_error("inspecting", present)(errno.into()))?;
    match classify(&found) {
        FileSystem::Local => Ok(()),
        FileSystem::Unsure(kind) => {
            warn!(path = %path.display(), file_system = kind, "state database on a file system that may not share memory");
            Ok(())
        }
        FileSystem::Network(kind) => Err(StoreError::Refused(format!(
            "state database is on a network filesystem ({kind}): {}; set state.path to a local disk",
            path.display()
        ))),
    }
}

#[cfg(target_os = "linux")]
fn classify(found: &rustix::fs::StatFs) -> FileSystem {
    // The low 32 bits are the magic number; the type's width differs between machines.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
    match (found.f_type as u64) & 0xFFFF_FFFF {
        0x6969 => FileSystem::Network("nfs"),
        0x517B => FileSystem::Network("smb"),
        0xFE53_4D42 => FileSystem::Network("smb2"),
        0xFF53_4D42 => FileSystem::Network("cifs"),
        0x5346_414F | 0x6B41_4653 => FileSystem::Network("afs"),
        0x6573_5546 => FileSystem::Unsure("fuse"),
        0x0102_1997 => FileSystem::Unsure("9p"),
        _ => FileSystem::Local,
    }
}

#[cfg(target_os = "macos")]
fn classify(found: &rustix::fs::StatFs) -> FileSystem {
    let bytes: Vec<u8> = found.f_fstypename.iter().map(|c| c.to_ne_bytes()[0]).take_while(|byte| *byte != 0).collect();
    match bytes.as_slice() {
        b"nfs" => FileSystem::Network("nfs"),
        b"smbfs" => FileSystem::Network("smb"),
        b"afpfs" => FileSystem::Network("afp"),
        b"macfuse" | b"osxfuse" => FileSystem::Unsure("fuse"),
        _ => FileSystem::Local,
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn classify(_: &rustix::fs::StatFs) -> FileSystem {
    FileSystem::Local
}

pub(crate) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { what, path, source }
}

/// A file that is no database, or a damaged one, is told apart from a database that says no.
pub(crate) fn refusal(path: &Path) -> impl Fn(rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    move |source| match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StoreError::Refused(format!(
            "state database {} is not a SQLite database; it was left as it is",
            path.display()
        )),
        Some(ErrorCode::DatabaseCorrupt) => StoreError::Refused(format!(
            "state database {} is malformed ({source}); it was left as it is: restore a backup or repair it",
            path.display()
        )),
        _ => StoreError::Sqlite { path: path.clone(), source },
    }
}
