//! Where one pipe plays: a source server, a ClickHouse server, and a database of its own on both.

use std::ops::Deref;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};

use super::clickhouse::ClickHouse;
use super::comparison::Comparison;
use super::pipe::Pipe;
use super::source::Source;
use crate::{
    ClickHouseServer, SourceKind, SourceServer, database_name, shared_clickhouse, shared_source,
};

/// A table of every pipe whose only use is that its newest row shows how far the destination is.
pub const MARKER_TABLE: &str = "pw_marker";

/// A server of the whole process, or one's own.
#[derive(Debug)]
pub enum Held<Server: 'static> {
    /// Lives as long as the process.
    Shared(&'static Server),
    /// Gone with its holder.
    Own(Box<Server>),
}

impl<Server> Deref for Held<Server> {
    type Target = Server;

    fn deref(&self) -> &Server {
        match self {
            Held::Shared(server) => server,
            Held::Own(server) => server,
        }
    }
}

/// Both servers, with the database made at the source. ClickHouse's is left to the pipe.
#[derive(Debug)]
pub struct Stage {
    /// The source server.
    pub source_server: Held<SourceServer>,
    /// The destination server.
    pub clickhouse_server: Held<ClickHouseServer>,
    /// The database at the source.
    pub source: Source,
    /// The destination.
    pub clickhouse: ClickHouse,
    /// The database's name at both ends, and the pipe's.
    pub database: String,
}

impl Stage {
    /// On the servers that all tests share.
    pub async fn shared(kind: SourceKind) -> Result<Self> {
        let source = tokio::task::spawn_blocking(move || shared_source(kind)).await?;
        Self::on(Held::Shared(source), Self::shared_clickhouse().await?).await
    }

    /// On a source server of one's own, to be killed or to have other settings.
    pub async fn with_source(
        start: impl FnOnce() -> Result<SourceServer> + Send + 'static,
    ) -> Result<Self> {
        let source = tokio::task::spawn_blocking(start).await??;
        Self::on(
            Held::Own(Box::new(source)),
            Self::shared_clickhouse().await?,
        )
        .await
    }

    /// On a ClickHouse server of one's own.
    pub async fn with_clickhouse(
        kind: SourceKind,
        start: impl FnOnce() -> Result<ClickHouseServer> + Send + 'static,
    ) -> Result<Self> {
        let source = tokio::task::spawn_blocking(move || shared_source(kind)).await?;
        let clickhouse = tokio::task::spawn_blocking(start).await??;
        Self::on(Held::Shared(source), Held::Own(Box::new(clickhouse))).await
    }

    /// On these servers.
    pub async fn on(
        source_server: Held<SourceServer>,
        clickhouse_server: Held<ClickHouseServer>,
    ) -> Result<Self> {
        Self::named(&database_name("pw"), source_server, clickhouse_server).await
    }

    /// On these servers, with a chosen name for database and pipe.
    pub async fn named(
        database: &str,
        source_server: Held<SourceServer>,
        clickhouse_server: Held<ClickHouseServer>,
    ) -> Result<Self> {
        let database = database.to_owned();
        let source = Source::with_database(&source_server, &database).await?;
        let clickhouse = ClickHouse::new(clickhouse_server.url());
        let marker = format!("CREATE TABLE {MARKER_TABLE} (id BIGINT AUTO_INCREMENT PRIMARY KEY)");
        source.execute(marker).await?;
        Ok(Self {
            source_server,
            clickhouse_server,
            source,
            clickhouse,
            database,
        })
    }

    async fn shared_clickhouse() -> Result<Held<ClickHouseServer>> {
        Ok(Held::Shared(
            tokio::task::spawn_blocking(shared_clickhouse).await?,
        ))
    }

    /// The kind of the source.
    pub fn kind(&self) -> SourceKind {
        self.source_server.kind()
    }

    /// A pipe file for these tables of the stage's database, and the marker table.
    pub fn pipe_file(&self, tables: &[&str]) -> Value {
        let entries = tables
            .iter()
            .map(|table| json!({ "source": format!("{}.{table}", self.database) }));
        self.pipe_file_of(entries.collect())
    }

    /// A pipe file with these entries of `tables`, and the marker table.
    pub fn pipe_file_of(&self, mut entries: Vec<Value>) -> Value {
        entries.push(json!({ "source": format!("{}.{MARKER_TABLE}", self.database) }));
        json!({
            "version": 1,
            "pipe": self.database,
            "source": {
                "type": self.kind().name(),
                "host": self.source_server.host(),
                "port": self.source_server.port(),
                "user": "pipewright",
                "password": "pipewright",
            },
            "destination": {
                "url": self.clickhouse_server.url(),
                "database": self.database,
                "durability": "answered",
            },
            "tables": entries,
            "sync": { "interval": "200ms" },
        })
    }

    /// Writes a row into the marker table and waits until the destination shows it: by then everything that was
    /// committed before is there, or on its way in the same flush.
    pub async fn wait_caught_up(&self, pipe: &mut Pipe, deadline: Duration) -> Result<()> {
        let mut conn = self.source.connect().await?;
        conn.query_drop(format!("INSERT INTO {MARKER_TABLE} VALUES ()"))
            .await?;
        let wanted = conn
            .last_insert_id()
            .context("the marker table gave no id")?;
        drop(conn);
        let sql = format!(
            "SELECT max(id) FROM `{}`.`{MARKER_TABLE}_current`",
            self.database
        );
        let until = Instant::now() + deadline;
        loop {
            // ClickHouse may be away: some tests see to that.
            let shown = self.clickhouse.number(&sql).await;
            if shown.as_ref().is_ok_and(|&shown| shown >= wanted) {
                return Ok(());
            }
            if let Some(code) = pipe.exited()? {
                bail!("the pipe's process has ended with {code}");
            }
            let status = pipe.status().await;
            if let Ok(status) = &status
                && status["state"] == "Failed"
            {
                bail!("the pipe has failed: {status:#}");
            }
            if Instant::now() > until {
                bail!(
                    "row {wanted} of the marker is not there within {deadline:?}; there is {shown:?}; {status:?}"
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// No table of a load stands beside a live one any more.
    pub async fn assert_no_load_left(&self) -> Result<()> {
        let sql = format!(
            "SELECT count() FROM system.tables WHERE database = '{}' AND name LIKE '%resync%'",
            self.database
        );
        ensure!(
            self.clickhouse.number(&sql).await? == 0,
            "a load's table was left behind"
        );
        Ok(())
    }

    /// The table is equal at both ends.
    pub async fn assert_same(&self, table: &str) -> Result<u64> {
        self.assert(Comparison::of(table)).await
    }

    /// The comparison finds no difference.
    pub async fn assert(&self, comparison: Comparison) -> Result<u64> {
        comparison
            .assert(&self.source, &self.clickhouse, &self.database)
            .await
    }
}
