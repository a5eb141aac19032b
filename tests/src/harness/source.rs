//! The source server as tests see it: one pool of connections for `root`, in UTC and without a strict mode.

use anyhow::{Context, Result};
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, OptsBuilder, Pool};

use crate::SourceServer;

/// The server's own settings are what users have; tests also want zero dates and fixed time zones.
const SESSION: [&str; 3] = [
    "SET time_zone = '+00:00'",
    "SET NAMES utf8mb4",
    // Generated keys are columns like any other to whoever compares. MariaDB has none, and passes over the comment.
    "/*!80030 SET show_gipk_in_create_table_and_information_schema = ON */",
];

/// A pool of connections to one database of a source server.
#[derive(Clone, Debug)]
pub struct Source {
    pool: Pool,
    database: String,
}

impl Source {
    /// Makes the database when it is absent.
    pub async fn with_database(server: &SourceServer, database: &str) -> Result<Self> {
        let mut conn = Conn::from_url(server.root_url())
            .await
            .context("cannot connect to the source")?;
        conn.query_drop(format!(
            "CREATE DATABASE IF NOT EXISTS {}",
            quoted(database)
        ))
        .await?;
        conn.disconnect().await?;
        let opts = mysql_async::Opts::from_url(&format!("{}/{database}", server.root_url()))?;
        let opts = OptsBuilder::from_opts(opts)
            .setup(SESSION.to_vec())
            .prefer_socket(false);
        Ok(Self {
            pool: Pool::new(opts),
            database: database.to_owned(),
        })
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// A connection of one's own, for transactions and session settings.
    pub async fn connect(&self) -> Result<Conn> {
        self.pool
            .get_conn()
            .await
            .context("cannot connect to the source")
    }

    /// Runs one statement.
    pub async fn execute(&self, sql: impl AsRef<str>) -> Result<()> {
        let sql = sql.as_ref();
        let mut conn = self.connect().await?;
        conn.query_drop(sql).await.with_context(|| shortened(sql))
    }

    /// Runs statements one after the other on one connection.
    pub async fn execute_all<S: AsRef<str>>(
        &self,
        statements: impl IntoIterator<Item = S>,
    ) -> Result<()> {
        let mut conn = self.connect().await?;
        for sql in statements {
            conn.query_drop(sql.as_ref())
                .await
                .with_context(|| shortened(sql.as_ref()))?;
        }
        Ok(())
    }

    /// Every row of an answer.
    pub async fn rows<T: FromRow + Send + 'static>(&self, sql: impl AsRef<str>) -> Result<Vec<T>> {
        let mut conn = self.connect().await?;
        conn.query(sql.as_ref())
            .await
            .with_context(|| shortened(sql.as_ref()))
    }

    /// A single number.
    pub async fn number(&self, sql: impl AsRef<str>) -> Result<u64> {
        let rows: Vec<u64> = self.rows(sql.as_ref()).await?;
        rows.first()
            .copied()
            .with_context(|| format!("no row: {}", shortened(sql.as_ref())))
    }

    /// Names of the table's columns in their order, with the type as `data_type` has it.
    pub async fn columns(&self, table: &str) -> Result<Vec<(String, String)>> {
        self.rows(format!(
            "SELECT column_name, data_type FROM information_schema.columns \
             WHERE table_schema = '{}' AND BINARY table_name = {} ORDER BY ordinal_position",
            self.database,
            text(table)
        ))
        .await
    }

    /// Names of the primary key's columns in key order.
    pub async fn key(&self, table: &str) -> Result<Vec<String>> {
        self.rows(format!(
            "SELECT column_name FROM information_schema.statistics \
             WHERE table_schema = '{}' AND BINARY table_name = {} AND index_name = 'PRIMARY' ORDER BY seq_in_index",
            self.database,
            text(table)
        ))
        .await
    }
}

/// An identifier in backticks, for either end.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A string literal, for either end.
pub(super) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn shortened(sql: &str) -> String {
    sql.chars().take(300).collect()
}
