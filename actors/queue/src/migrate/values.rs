//! Values that get the stored form of today: JSON as text, times with thirty characters.

use ductile_model::{format_db, parse_stored};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};
use serde::de::IgnoredAny;

use crate::shape::{Column, Shape};

/// Rows looked at together.
const BATCH: usize = 64;

/// A form of stored values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// JSON is text, so that SQLite's functions work on it. Older programs wrote blobs.
    JsonText,
    /// A time sorts as text.
    Time,
}

/// Columns of JSON that are declared as plain text.
const JSON_IN_TEXT: [(&str, &str); 2] = [("job_log", "result"), ("job_stopwatch", "subs_json")];

impl Form {
    fn is_of(self, table: &str, column: &Column) -> bool {
        match self {
            Self::JsonText => column.kind == "JSON" || JSON_IN_TEXT.contains(&(table, column.name.as_str())),
            Self::Time => column.kind == "TEXT" && column.name.ends_with("_at"),
        }
    }

    /// Which values may have another form. An empty text stands for no time.
    fn condition(self, column: &str) -> String {
        match self {
            Self::JsonText => format!("typeof({column}) = 'blob'"),
            Self::Time => {
                let [d2, d4, d9] = [2, 4, 9].map(|digits| "[0-9]".repeat(digits));
                format!(
                    "{column} <> ''
                     AND (typeof({column}) <> 'text' OR {column} NOT GLOB '{d4}-{d2}-{d2} {d2}:{d2}:{d2}.{d9}Z')"
                )
            }
        }
    }

    fn converted(self, value: ValueRef<'_>) -> Option<String> {
        let text = match value {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => std::str::from_utf8(bytes).ok()?,
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => return None,
        };
        match self {
            Self::Time => parse_stored(text).map(format_db),
            Self::JsonText => {
                (serde_json::from_str::<IgnoredAny>(text).is_ok() && keeps_its_digits(text)).then(|| text.to_owned())
            }
        }
    }

    fn unreadable(self) -> &'static str {
        match self {
            Self::JsonText => "values are no JSON text",
            Self::Time => "times can not be read",
        }
    }
}

/// SQLite makes a number of a text that is nothing but one, which may cost digits.
fn keeps_its_digits(json: &str) -> bool {
    let is_number = json.trim_start().starts_with(|c: char| c == '-' || c.is_ascii_digit());
    !is_number || json.parse::<i64>().is_ok_and(|number| number.to_string() == json)
}

/// The columns of this form that a database has.
fn columns<'a>(form: Form, expected: &'a Shape, actual: &'a Shape) -> impl Iterator<Item = (&'a str, &'a str)> {
    expected.tables.iter().flat_map(move |table| {
        let present = actual.table(&table.name).filter(|present| present.has_rowid);
        let columns = table.columns.iter().filter(move |column| form.is_of(&table.name, column));
        columns
            .filter(move |column| present.is_some_and(|present| present.column(&column.name).is_some()))
            .map(|column| (table.name.as_str(), column.name.as_str()))
    })
}

/// Whether any value would be converted.
pub(crate) fn needs_rewriting(
    connection: &Connection,
    form: Form,
    expected: &Shape,
    actual: &Shape,
) -> rusqlite::Result<bool> {
    for (table, column) in columns(form, expected, actual) {
        let mut batches = Batches::of(form, table, column);
        while let Some(batch) = batches.next(connection)? {
            if batch.iter().any(|found| found.converted.is_some()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Converts all values that can be read. Gives a line for each column with others.
pub(crate) fn rewrite(
    connection: &Connection,
    form: Form,
    expected: &Shape,
    actual: &Shape,
) -> rusqlite::Result<Vec<String>> {
    let mut left = Vec::new();
    for (table, column) in columns(form, expected, actual) {
        let mut write = connection.prepare(&format!("UPDATE {table} SET {column} = ?2 WHERE rowid = ?1"))?;
        let mut batches = Batches::of(form, table, column);
        let mut unreadable = 0;
        while let Some(batch) = batches.next(connection)? {
            for found in batch {
                match found.converted {
                    Some(text) => drop(write.execute(params![found.rowid, text])?),
                    None => unreadable += 1,
                }
            }
        }
        if unreadable > 0 {
            left.push(format!("{table}.{column}: {unreadable} {}; left as they are", form.unreadable()));
        }
    }
    Ok(left)
}

struct Found {
    rowid: i64,
    converted: Option<String>,
}

/// Goes through the rows by their numbers, so that rows may be written in between.
struct Batches {
    form: Form,
    sql: String,
    last: i64,
    is_over: bool,
}

impl Batches {
    fn of(form: Form, table: &str, column: &str) -> Self {
        let condition = form.condition(column);
        let sql = format!(
            "SELECT rowid, {column} FROM {table} WHERE rowid >= ?1 AND {condition} ORDER BY rowid LIMIT {BATCH}"
        );
        Self { form, sql, last: i64::MIN, is_over: false }
    }

    fn next(&mut self, connection: &Connection) -> rusqlite::Result<Option<Vec<Found>>> {
        if self.is_over {
            return Ok(None);
        }
        let mut statement = connection.prepare_cached(&self.sql)?;
        let rows = statement.query_map([self.last], |row| {
            Ok(Found { rowid: row.get(0)?, converted: self.form.converted(row.get_ref(1)?) })
        })?;
        let batch: Vec<Found> = rows.collect::<rusqlite::Result<_>>()?;
        match batch.last().and_then(|found| found.rowid.checked_add(1)).filter(|_| batch.len() == BATCH) {
            Some(next) => self.last = next,
            None => self.is_over = true,
        }
        Ok(Some(batch))
    }
}

/// Whether rows of the log do not say whose they are.
pub(crate) fn lacks_job_ids(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM job_log WHERE job_id IS NULL AND id IS NOT NULL)", [], |row| {
        row.get(0)
    })
}

/// The id of a row of the log is that of its job, a hyphen and the attempt.
pub(crate) fn fill_job_ids(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE job_log SET job_id = iif(
             length(id) > length(attempt) + 1 AND substr(id, -length(attempt) - 1) = '-' || attempt,
             substr(id, 1, length(id) - length(attempt) - 1), id)
         WHERE job_id IS NULL AND id IS NOT NULL",
        [],
    )?;
    Ok(())
}
