//! Tables, columns and indexes of a database, as SQLite itself tells them.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};

use crate::schema::SCHEMA;

/// What a database holds, without what belongs to SQLite.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    /// In the order of their creation.
    pub(crate) tables: Vec<Table>,
    /// In the order of their creation.
    pub(crate) indexes: Vec<Index>,
    /// The statement that made each table and index.
    statements: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    /// Columns of each UNIQUE of the table itself.
    pub(crate) unique: BTreeSet<Vec<String>>,
    pub(crate) autoincrement: bool,
    pub(crate) has_rowid: bool,
    /// Columns that refer to other tables.
    pub(crate) foreign_keys: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// As declared, in capitals.
    pub(crate) kind: String,
    pub(crate) not_null: bool,
    /// SQL text.
    pub(crate) default: Option<String>,
    /// Place in the primary key, from 1; 0 when it is not part of it.
    pub(crate) key: i64,
    pub(crate) generated: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) name: String,
    pub(crate) table: String,
    pub(crate) unique: bool,
    pub(crate) columns: Vec<IndexColumn>,
    /// The condition of a partial index, in one spelling.
    pub(crate) filter: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IndexColumn {
    /// Empty for an expression.
    pub(crate) name: String,
    pub(crate) descending: bool,
    pub(crate) collation: String,
}

impl Table {
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether the row number is a column of its own.
    pub(crate) fn has_integer_key(&self) -> bool {
        let mut keys = self.columns.iter().filter(|column| column.key > 0);
        matches!((keys.next(), keys.next()), (Some(key), None) if key.kind == "INTEGER")
    }
}

impl Index {
    pub(crate) fn column_names(&self) -> Vec<&str> {
        self.columns.iter().map(|column| column.name.as_str()).collect()
    }
}

impl Shape {
    /// The shape of this program's schema.
    pub(crate) fn expected() -> rusqlite::Result<Self> {
        let memory = Connection::open_in_memory()?;
        memory.execute_batch(SCHEMA)?;
        Self::of(&memory)
    }

    /// The shape of a database.
    pub(crate) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let mut shape = Self::default();
        let mut objects = connection.prepare(
            "SELECT type, name, tbl_name, ifnull(sql, '') FROM sqlite_master
             WHERE type IN ('table', 'index') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid",
        )?;
        let mut rows = objects.query([])?;
        while let Some(row) = rows.next()? {
            let (kind, name, table): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let sql: String = row.get(3)?;
            if kind == "table" {
                shape.tables.push(table_of(connection, &name, &sql)?);
            } else {
                shape.indexes.push(index_of(connection, &name, table, &sql)?);
            }
            shape.statements.insert(name, sql);
        }
        Ok(shape)
    }

    pub(crate) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    pub(crate) fn index(&self, name: &str) -> Option<&Index> {
        self.indexes.iter().find(|index| index.name == name)
    }

    /// The statement that made a table or an index.
    pub(crate) fn statement(&self, name: &str) -> &str {
        self.statements.get(name).map_or("", String::as_str)
    }
}

fn table_of(connection: &Connection, name: &str, sql: &str) -> rusqlite::Result<Table> {
    let mut columns = connection.prepare_cached(
        "SELECT name, upper(type), \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid",
    )?;
    let columns = columns.query_map([name], |row| {
        Ok(Column {
            name: row.get(0)?,
            kind: row.get(1)?,
            not_null: row.get(2)?,
            default: row.get(3)?,
            key: row.get(4)?,
            generated: row.get::<_, i64>(5)? != 0,
        })
    })?;
    let unique = strings(connection, "SELECT name FROM pragma_index_list(?1) WHERE origin = 'u'", name)?;
    let unique = unique
        .iter()
        .map(|index| strings(connection, "SELECT ifnull(name, '') FROM pragma_index_info(?1) ORDER BY seqno", index));
    Ok(Table {
        name: name.to_owned(),
        columns: columns.collect::<rusqlite::Result<_>>()?,
        unique: unique.collect::<rusqlite::Result<_>>()?,
        autoincrement: sql.to_ascii_uppercase().contains("AUTOINCREMENT"),
        has_rowid: !sql.to_ascii_uppercase().contains("WITHOUT ROWID"),
        foreign_keys: strings(connection, "SELECT \"from\" FROM pragma_foreign_key_list(?1) ORDER BY id, seq", name)?,
    })
}

fn index_of(connection: &Connection, name: &str, table: String, sql: &str) -> rusqlite::Result<Index> {
    let unique = connection
        .prepare_cached("SELECT \"unique\" FROM pragma_index_list(?1) WHERE name = ?2")?
        .query_row(params![table, name], |row| row.get(0))?;
    let mut columns = connection.prepare_cached(
        "SELECT ifnull(name, ''), \"desc\", coll FROM pragma_index_xinfo(?1) WHERE key = 1 ORDER BY seqno",
    )?;
    let columns = columns.query_map([name], |row| {
        Ok(IndexColumn { name: row.get(0)?, descending: row.get(1)?, collation: row.get(2)? })
    })?;
    let columns = columns.collect::<rusqlite::Result<_>>()?;
    Ok(Index { name: name.to_owned(), table, unique, columns, filter: filter_of(sql) })
}

/// The same condition may be written in many ways; quotes, capitals and blanks do not matter.
fn filter_of(sql: &str) -> Option<String> {
    let apart = sql.to_lowercase().replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = apart.split_whitespace().collect();
    let place = words.iter().position(|word| *word == "where")?;
    Some(words[place + 1..].join(" ").replace(['"', '`', '[', ']'], ""))
}

/// First column of the rows of a query with one parameter.
pub(crate) fn strings(connection: &Connection, sql: &str, parameter: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([parameter], |row| row.get(0))?;
    rows.collect()
}
