//! What a statement in text form reaches without naming it: a table behind a view, a trigger or a stored function
//! (pitfall 66).
//!
//! Where rows are logged they come as events of their own table, whatever led to them. A session that logs statements
//! writes the text alone, and a text that names no table of ours may still change one. So the catalog is asked: what the
//! statement writes to and calls leads to the texts of views, triggers and routines, these to whatever they mention, and so
//! on until nothing new comes up. A table of ours that is mentioned anywhere there may have been changed. A text that the
//! account may not read may lead to each of them.
//!
//! The catalog is that of now, not of the statement's moment: what was dropped in between is not seen. Nor is what the
//! account has no right to see: of triggers, of a name that the catalog does not show, and of a function called with its
//! database before the name, the log tells. To count them as leading to every table would take a pipe out of service for
//! each tool that keeps its notes in a schema of its own and logs statements by intent, as pt-table-checksum does.

use std::collections::BTreeSet;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row, Value};

use super::TableFilter;
use super::ddl::{Call, Classified, mentions};
use crate::batch::TableName;
use crate::error::Result;
use crate::source::mysql::catalog::SYSTEM_DATABASES;
use crate::source::mysql::connection::query_error;
use crate::source::mysql::preflight::{Grants, ask};
use crate::source::mysql::sql::quote_table;

/// Views, triggers and routines that are followed, before everything is taken to be reached.
const TEXTS_MAX: usize = 5000;

/// Names in a statement that is kept with the answer to it.
const SHORT: usize = 200;

/// The names of one query's list.
const NAMES_A_QUERY: usize = 200;

/// Row changes in text form that name no table of ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Indirect {
    /// What they write to; words that are no tables may be among them.
    tables: Vec<TableName>,
    /// What they call; words that are no functions may be among them.
    calls: Vec<Call>,
    /// Whatever may be a name in them: views that they read are among that.
    mentions: BTreeSet<TableName>,
    /// Written to by a session that uses temporary tables, which no catalog shows.
    temporary: bool,
}

/// What the catalog says of them.
#[derive(Debug)]
pub(super) struct Reached {
    /// The tables of ours that they may have changed.
    pub(super) tables: Vec<TableName>,
    /// What they may have led to, which the account does not see.
    pub(super) unseen: Option<Unseen>,
}

/// What the account does not see.
#[derive(Debug)]
pub(super) struct Unseen {
    /// In which database.
    pub(super) database: String,
    /// The privilege that shows it.
    pub(super) privilege: &'static str,
}

impl Indirect {
    pub(super) fn of(classified: Classified, temporary: bool) -> Self {
        Self {
            tables: classified.tables,
            calls: classified.calls,
            mentions: classified.mentions,
            temporary,
        }
    }

    /// Whether it is worth to be kept: one that is, comes again; a dump's statements come once and are large.
    pub(super) fn is_short(&self) -> bool {
        self.mentions.len() <= SHORT
    }

    /// The statement, with the tables that it writes to, for a sentence.
    pub(super) fn named(&self) -> String {
        let names: Vec<String> = self
            .tables
            .iter()
            .map(|table| format!("`{table}`"))
            .collect();
        match names.is_empty() {
            true => "a statement".to_owned(),
            false => format!("a statement on {}", names.join(", ")),
        }
    }

    /// Asks the catalog.
    ///
    /// # Errors
    /// Whatever the source fails with.
    pub(super) async fn reached(&self, conn: &mut Conn, filter: &TableFilter) -> Result<Reached> {
        let mentioned = self.mentioned(conn).await?;
        let may_be = |table: &&TableName| match &mentioned {
            None => true,
            Some(names) => names.contains(&in_lower_case(table)),
        };
        let tables = filter.tables().into_iter().filter(may_be);
        let tables: Vec<TableName> = tables.cloned().collect();
        let unseen = match tables.is_empty() {
            true => self.unseen(conn).await?,
            false => None,
        };
        Ok(Reached { tables, unseen })
    }

    /// What they write to or call, where the account does not see what that is.
    async fn unseen(&self, conn: &mut Conn) -> Result<Option<Unseen>> {
        let grants = Grants::read(conn).await?;
        let hidden = |privilege: &str, name: &&TableName| {
            grants.has(privilege, Some(&name.database)) == Some(false)
        };
        let of = |name: Option<&TableName>, privilege| {
            name.map(|name| Unseen {
                database: name.database.clone(),
                privilege,
            })
        };
        let triggered = self.tables.iter().find(|name| hidden("TRIGGER", name));
        if let Some(unseen) = of(triggered, "SELECT, TRIGGER, SHOW VIEW") {
            return Ok(Some(unseen));
        }
        // A name that is no table may be among several, an alias for one.
        let unsure = self.tables.iter().filter(|name| hidden("SELECT", name));
        let unsure: BTreeSet<TableName> = unsure.cloned().collect();
        if !self.temporary
            && unsure.len() == self.tables.len()
            && !unsure.is_empty()
            && texts(conn, &[TABLES], &unsure).await?.is_empty()
        {
            return Ok(of(unsure.first(), "SELECT, TRIGGER, SHOW VIEW"));
        }
        // Without a database it may be a function of the server as well.
        let written: BTreeSet<&TableName> = self.tables.iter().collect();
        let qualified = self.calls.iter().filter(|call| call.qualified);
        let unsure = qualified.map(|call| &call.name);
        let unsure = unsure.filter(|name| !written.contains(name) && hidden("EXECUTE", name));
        let unsure: BTreeSet<TableName> = unsure.cloned().collect();
        let shown = texts(conn, &[ROUTINES], &unsure).await?;
        let is_hidden = shown.len() < unsure.len();
        Ok(of(unsure.first().filter(|_| is_hidden), "EXECUTE"))
    }

    /// All names, in lower case, that the statement leads to; none where a text on the way cannot be read.
    async fn mentioned(&self, conn: &mut Conn) -> Result<Option<BTreeSet<TableName>>> {
        let tables: BTreeSet<TableName> = self.tables.iter().cloned().collect();
        let calls = self.calls.iter().map(|call| call.name.clone()).collect();
        let mut bodies = texts(conn, &[TRIGGERS], &tables).await?;
        bodies.extend(texts(conn, &[VIEWS], &self.mentions).await?);
        bodies.extend(texts(conn, &[ROUTINES], &calls).await?);
        let mut known = BTreeSet::new();
        let mut read = 0;
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
            read += bodies.len();
            if read > TEXTS_MAX {
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
/// Of a table itself there is no text.
const TABLES: Catalog = ("TABLES", ["TABLE_SCHEMA", "TABLE_NAME", "TABLE_TYPE"]);
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
    for (catalog, columns) in catalogs {
        for row in shown(conn, catalog, columns, names).await? {
            let cell = |index: usize| {
                let bytes: Option<Vec<u8>> = row.get::<Option<Vec<u8>>, _>(index).flatten();
                bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            };
            let of = TableName::new(cell(0).unwrap_or_default(), cell(1).unwrap_or_default());
            if !wanted.contains(&in_lower_case(&of)) {
                continue;
            }
            let body = match cell(2).filter(|body| !body.is_empty()) {
                None if *catalog == "VIEWS" => view(conn, &of).await?,
                body => body,
            };
            let database = of.database;
            found.push(Text { database, body });
        }
    }
    Ok(found)
}

/// The rows of those names, database by database: a condition without one has the server read the whole of it.
async fn shown(
    conn: &mut Conn,
    catalog: &str,
    [database, name, text]: &[&str; 3],
    names: &BTreeSet<TableName>,
) -> Result<Vec<Row>> {
    let mut found = Vec::new();
    let names: Vec<&TableName> = names.iter().collect();
    let databases = names.chunk_by(|one, other| one.database == other.database);
    for names in databases.flat_map(|names| names.chunks(NAMES_A_QUERY)) {
        let marks = vec!["?"; names.len()].join(", ");
        let query = format!(
            "SELECT {database}, {name}, {text} FROM information_schema.{catalog} \
             WHERE {database} = ? AND {name} IN ({marks}) AND {database} NOT IN ({SYSTEM_DATABASES})"
        );
        let of = names.first().map(|name| name.database.as_str());
        let values = of
            .into_iter()
            .chain(names.iter().map(|name| name.table.as_str()));
        let values = values.map(Value::from).collect();
        let rows: Vec<Row> = conn
            .exec(query, Params::Positional(values))
            .await
            .map_err(query_error)?;
        found.extend(rows);
    }
    Ok(found)
}

/// MariaDB's information_schema shows the texts of views to those alone who may see every one.
async fn view(conn: &mut Conn, name: &TableName) -> Result<Option<String>> {
    let shown = ask(conn, &format!("SHOW CREATE VIEW {}", quote_table(name))).await?;
    let row = shown.unwrap_or_default().into_iter().next();
    Ok(row.and_then(|row| row.into_iter().nth(1).flatten()))
}
