//! A table in the place of an older one, with the same rows.

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::shape::{Column, Shape, Table, strings};

/// Name of the older table meanwhile.
const OLD: &str = "ductile_migrate_old";

/// Adds a column behind all others.
pub(crate) fn append_column(connection: &Connection, table: &str, column: &Column) -> rusqlite::Result<()> {
    let not_null = if column.not_null { " NOT NULL" } else { "" };
    let default = column.default.as_ref().map(|value| format!(" DEFAULT {value}")).unwrap_or_default();
    let (table, name) = (quoted(table), quoted(&column.name));
    connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {name} {}{not_null}{default};", column.kind))
}

/// The same as [`rebuild`] for a table that a gateway can work with as it is: when its rows do not fit the declaration
/// of today it stays, and the answer says so.
pub(crate) fn redeclare(
    connection: &Connection,
    expected: &Shape,
    table: &Table,
    present: &Table,
) -> rusqlite::Result<Option<String>> {
    connection.execute_batch("SAVEPOINT redeclare;")?;
    match rebuild(connection, expected, table, present) {
        Ok(()) => connection.execute_batch("RELEASE redeclare;").map(|()| None),
        Err(error) if does_not_fit(&error) => {
            connection.execute_batch("ROLLBACK TO redeclare; RELEASE redeclare;")?;
            Ok(Some(format!("{} stays declared as it is, its rows do not fit: {error}", table.name)))
        }
        Err(error) => Err(error),
    }
}

fn does_not_fit(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch))
}

/// Makes the table as the schema has it and moves the rows over, with their numbers and in their order. Columns that
/// the schema does not know come behind, and what else hangs on the table (indexes, triggers) is made again as it was.
pub(crate) fn rebuild(
    connection: &Connection,
    expected: &Shape,
    table: &Table,
    present: &Table,
) -> rusqlite::Result<()> {
    refuse_computed_columns(table, present)?;
    let name = quoted(&table.name);
    let dependents = strings(
        connection,
        "SELECT sql FROM sqlite_master
         WHERE tbl_name = ?1 AND type IN ('index', 'trigger') AND sql IS NOT NULL ORDER BY rowid",
        &table.name,
    )?;
    let indexes = strings(
        connection,
        "SELECT name FROM sqlite_master WHERE tbl_name = ?1 AND type = 'index' AND sql IS NOT NULL",
        &table.name,
    )?;
    for index in indexes {
        connection.execute_batch(&format!("DROP INDEX {};", quoted(&index)))?;
    }
    let last = last_number(connection, present)?;
    connection.execute_batch(&format!("ALTER TABLE {name} RENAME TO {OLD};"))?;
    connection.execute_batch(expected.statement(&table.name))?;
    let unknown = present.columns.iter().filter(|column| table.column(&column.name).is_none());
    for column in unknown {
        append_column(connection, &table.name, &with_any_default(column))?;
    }
    connection.execute_batch(&copy(table, present))?;
    connection.execute_batch(&format!("DROP TABLE {OLD};"))?;
    set_last_number(connection, table, last)?;
    dependents.iter().try_for_each(|sql| connection.execute_batch(sql))
}

/// How a computed column is computed can not be asked, so it could not be made again.
fn refuse_computed_columns(table: &Table, present: &Table) -> rusqlite::Result<()> {
    let Some(column) = present.columns.iter().find(|column| column.generated) else { return Ok(()) };
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT);
    let text = format!("the computed column {}.{} would be lost; drop it first", table.name, column.name);
    Err(rusqlite::Error::SqliteFailure(code, Some(text)))
}

/// A default that is an expression needs its parentheses back.
fn with_any_default(column: &Column) -> Column {
    Column { default: column.default.as_ref().map(|value| format!("({value})")), ..column.clone() }
}

fn copy(table: &Table, present: &Table) -> String {
    let mut names = Vec::new();
    let mut values = Vec::new();
    let keeps_rowid = present.has_rowid && !table.has_integer_key();
    if keeps_rowid {
        names.push("rowid".to_owned());
        values.push("rowid".to_owned());
    }
    for column in &present.columns {
        let name = quoted(&column.name);
        let declared = table.column(&column.name).filter(|column| column.not_null);
        values.push(match declared.and_then(|column| column.default.as_ref()) {
            Some(default) => format!("ifnull({name}, {default})"),
            None => name.clone(),
        });
        names.push(name);
    }
    let order = if present.has_rowid { " ORDER BY rowid" } else { "" };
    format!(
        "INSERT INTO {} ({}) SELECT {} FROM {OLD}{order};",
        quoted(&table.name),
        names.join(", "),
        values.join(", ")
    )
}

/// The last number that a table gave out. Rows with it may be gone, and it must not come again.
fn last_number(connection: &Connection, present: &Table) -> rusqlite::Result<Option<i64>> {
    if !present.autoincrement {
        return Ok(None);
    }
    connection
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = ?1", [&present.name], |row| row.get(0))
        .optional()
}

fn set_last_number(connection: &Connection, table: &Table, last: Option<i64>) -> rusqlite::Result<()> {
    let (true, Some(last)) = (table.autoincrement, last) else { return Ok(()) };
    connection.execute("DELETE FROM sqlite_sequence WHERE name = ?1", [&table.name])?;
    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)", params![table.name, last])?;
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
