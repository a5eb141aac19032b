//! What a statement in text form reaches without naming it: a table behind a view, a trigger or a stored function
//! (pitfall 66).
//!
//! Where rows are logged they come as events of their own table, whatever led to them. A session that logs statements
//! writes the text alone, and a text that names no table of ours may still change one. So the catalog is asked: what the
//! statement writes to and calls leads to the texts of views, triggers and routines, these to whatever they mention, and so
//! on until nothing new comes up. A table of ours that is mentioned anywhere there may have been changed. A text that the
//! account may not read may lead to each of them.
//!
//! The catalog is that of now, not of the statement's moment: what was dropped in between is not seen. Nor are triggers
//! without the right TRIGGER, of which the log tells.

use std::collections::BTreeSet;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row, Value};

use super::TableFilter;
use super::ddl::{Classified, mentions};
use crate::batch::TableName;
use crate::error::Result;
use crate::source::mysql::Source;
use crate::source::mysql::catalog::SYSTEM_DATABASES;
use crate::source::mysql::connection::query_error;
use crate::source::mysql::preflight::{Grants, ask};
use crate::source::mysql::sql::quote_table;

/// Names that are followed, before everything is taken to be reached.
const NAMES_MAX: usize = 5000;

/// Row changes in text form that name no table of ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Indirect {
    /// What they write to; words that are no tables may be among them.
    tables: Vec<TableName>,
    /// What they call; words that are no functions may be among them.
    calls: Vec<TableName>,
}

/// What the catalog says of them.
#[derive(Debug)]
pub(super) struct Reached {
    /// The first table of ours that they may have changed.
    pub(super) table: Option<TableName>,
    /// A database of which the account sees no triggers.
    pub(super) unseen: Option<String>,
}

impl Indirect {
    pub(super) fn of(classified: Classified) -> Self {
        Self {
            tables: classified.tables,
            calls: classified.calls,
        }
    }

    /// The tables that the statement names, for a sentence.
    pub(super) fn named(&self) -> String {
        let names: Vec<String> = self
            .tables
            .iter()
            .map(|table| format!("`{table}`"))
            .collect();
        names.join(", ")
    }

    /// Asks the catalog.
    ///
    /// # Errors
    /// Whatever the source fails with.
    pub(super) async fn reached(&self, source: &Source, filter: &TableFilter) -> Result<Reached> {
        let mut conn = source.control().await?;
        let reached = self.look(&mut conn, filter).await;
        conn.disconnect().await.ok();
        reached
    }

    async fn look(&self, conn: &mut Conn, filter: &TableFilter) -> Result<Reached> {
        let mentioned = self.mentioned(conn).await?;
        let may_be = |table: &&&TableName| match &mentioned {
            None => true,
            Some(names) => names.contains(&in_lower_case(table)),
        };
        let table = filter.tables().iter().find(may_be).copied().cloned();
        let mut unseen = None;
        if table.is_none() {
            let grants = Grants::read(conn).await?;
            let hidden = |database: &str| grants.has("TRIGGER", Some(database)) == Some(false);
            let mut databases = self.tables.iter().map(|table| &table.database);
            unseen = databases.find(|database| hidden(database)).cloned();
        }
        Ok(Reached { table, unseen })
    }

    /// All names, in lower case, that the statement leads to; none where a text on the way cannot be read.
    async fn mentioned(&self, conn: &mut Conn) -> Result<Option<BTreeSet<TableName>>> {
        let tables: BTreeSet<TableName> = self.tables.iter().cloned().collect();
        let calls: BTreeSet<TableName> = self.calls.iter().cloned().collect();
        let mut bodies = texts(conn, &[VIEWS, TRIGGERS], &tables).await?;
        bodies.extend(texts(conn, &[ROUTINES], &calls).await?);
        let mut known = BTreeSet::new();
        loop {
            let mut fresh = BTreeSet::new();
            for text in &bodies {
                let body = text.body.as_deref();
                let Some(names) = body.and_then(|body| mentions(&text.database, body)) else {
                    return Ok(None);
                };
                fresh.extend(names.into_iter().filter(|name| !known.contains(name)));
            }
            known.extend(fresh.iter().cloned());
            if known.len() > NAMES_MAX {
                return Ok(None);
            }
            if fresh.is_empty() {
                return Ok(Some(known.iter().map(in_lower_case).collect()));
            }
            bodies = texts(conn, &[VIEWS, TRIGGERS, ROUTINES], &fresh).await?;
        }
    }
}

/// Whether names differ by case alone is the server's affair; one too many costs a load.
fn in_lower_case(name: &TableName) -> TableName {
    TableName::new(name.database.to_lowercase(), name.table.to_lowercase())
}

/// A table of information_schema, and its columns for a database, a name and a text.
type Catalog = (&'static str, [&'static str; 3]);

const VIEWS: Catalog = ("VIEWS", ["TABLE_SCHEMA", "TABLE_NAME", "VIEW_DEFINITION"]);
const TRIGGERS: Catalog = (
    "TRIGGERS",
    [
        "EVENT_OBJECT_SCHEMA",
        "EVENT_OBJECT_TABLE",
        "ACTION_STATEMENT",
    ],
);
const ROUTINES: Catalog = (
    "ROUTINES",
    ["ROUTINE_SCHEMA", "ROUTINE_NAME", "ROUTINE_DEFINITION"],
);

/// The text of a view, of a trigger on a table, or of a routine.
struct Text {
    database: String,
    /// None where the account may not read it.
    body: Option<String>,
}

/// The texts of those of `names` that have one.
async fn texts(
    conn: &mut Conn,
    catalogs: &[Catalog],
    names: &BTreeSet<TableName>,
) -> Result<Vec<Text>> {
    let mut found = Vec::new();
    if names.is_empty() {
        return Ok(found);
    }
    let wanted: BTreeSet<TableName> = names.iter().map(in_lower_case).collect();
    let marks = vec!["?"; names.len()].join(", ");
    for (catalog, [database, name, text]) in catalogs {
        let query = format!(
            "SELECT {database}, {name}, {text} FROM information_schema.{catalog} \
             WHERE {name} IN ({marks}) AND {database} NOT IN ({SYSTEM_DATABASES})"
        );
        let values = names.iter().map(|name| Value::from(name.table.as_str()));
        let rows: Vec<Row> = conn
            .exec(query, Params::Positional(values.collect()))
            .await
            .map_err(query_error)?;
        for row in rows {
            let cell = |index: usize| {
                let bytes: Option<Vec<u8>> = row.get::<Option<Vec<u8>>, _>(index).flatten();
                bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            };
            let of = TableName::new(cell(0).unwrap_or_default(), cell(1).unwrap_or_default());
            if !wanted.contains(&in_lower_case(&of)) {
                continue;
            }
            let body = match cell(2).filter(|body| !body.is_empty()) {
                None if *catalog == VIEWS.0 => view(conn, &of).await?,
                body => body,
            };
            let database = of.database;
            found.push(Text { database, body });
        }
    }
    Ok(found)
}

/// MariaDB's information_schema shows the texts of views to those alone who may see every one.
async fn view(conn: &mut Conn, name: &TableName) -> Result<Option<String>> {
    let shown = ask(conn, &format!("SHOW CREATE VIEW {}", quote_table(name))).await?;
    let row = shown.unwrap_or_default().into_iter().next();
    Ok(row.and_then(|row| row.into_iter().nth(1).flatten()))
}
