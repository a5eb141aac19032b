//! One ClickHouse server: how it is reached, what it can do, and the only two ways of asking it something.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::append::Known;
use super::ddl;
use super::failure::{Doing, failure, silent};
use super::forms::LabelsByColumn;
use super::target::TargetTable;
use super::transport;
use crate::batch::TableSchema;
use crate::config::{DestinationConfig, Durability, PipeConfig, TableConfig};
use crate::error::{Error, ErrorKind, Result};

/// How long the first answer may take before the server counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a definition statement or a small query may take.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(300);

/// What the server takes as one statement unless it is told that there is more; the names of thousands of tables are.
const STATEMENT_BYTES: usize = 256 * 1024;

/// `ReplacingMergeTree(version, is_deleted)` exists from this version on.
const OLDEST: (u32, u32) = (23, 2);

/// A destination server, connected to once, so that its facts are known. Clones share connections.
#[derive(Clone)]
pub struct ClickHouse(Arc<Inner>);

struct Inner {
    client: clickhouse::Client,
    url: String,
    database: String,
    user: String,
    fsync: bool,
    compress: bool,
    facts: ServerFacts,
    known: Known,
}

/// What differs between servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// As the server prints it.
    pub version: String,
    /// Whether it has the type Time64.
    pub time64: bool,
    /// Whether a statement may set aside the size beyond which tables are not dropped.
    pub drops_any_size: bool,
}

impl Default for ServerFacts {
    /// A present server.
    fn default() -> Self {
        Self {
            version: String::new(),
            time64: true,
            drops_any_size: true,
        }
    }
}

impl ClickHouse {
    /// Reaches the server, checks the credentials, and asks what it can do.
    ///
    /// # Errors
    /// `DestinationUnavailable` when nothing or something else answers, `DestinationDenied` on refused credentials,
    /// `DestinationRejected` for a server that is too old.
    pub async fn connect(config: &DestinationConfig) -> Result<Self> {
        let client = transport::client()
            .with_url(&config.url)
            .with_user(&config.user)
            .with_password(config.password.expose())
            .with_product_info("pipewright", env!("CARGO_PKG_VERSION"));
        let mut inner = Inner {
            client,
            url: config.url.clone(),
            database: config.database.clone(),
            user: config.user.clone(),
            fsync: config.durability == Durability::Fsync,
            compress: !is_loopback(&config.url),
            facts: ServerFacts {
                version: String::new(),
                time64: false,
                drops_any_size: false,
            },
            known: Known::default(),
        };
        let found: Vec<FactsRow> = tokio::time::timeout(
            CONNECT_TIMEOUT,
            inner.rows(
                ddl::server_facts(),
                Doing::Definition("the first query"),
                STATEMENT_TIMEOUT,
            ),
        )
        .await
        .map_err(|_| silent(&inner.url))??;
        let Some(found) = found.into_iter().next() else {
            return Err(Error::new(
                ErrorKind::DestinationUnavailable,
                format!("ClickHouse at {} did not tell its version", inner.url),
            ));
        };
        if parse_version(&found.version).is_some_and(|version| version < OLDEST) {
            return Err(Error::new(
                ErrorKind::DestinationRejected,
                format!("ClickHouse at {} is version {}", inner.url, found.version),
            )
            .with_hint(format!("use ClickHouse {}.{} or later", OLDEST.0, OLDEST.1)));
        }
        inner.facts = ServerFacts {
            version: found.version,
            time64: found.time64 > 0,
            drops_any_size: found.drops_any_size > 0,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// What the server can do.
    pub fn facts(&self) -> &ServerFacts {
        &self.0.facts
    }

    /// [`TargetTable::plan`] with this server's types. `labels` are those of the ENUM and SET columns that no plugin has
    /// written.
    ///
    /// # Errors
    /// As [`TargetTable::plan`].
    pub fn plan(
        &self,
        config: &PipeConfig,
        table: &TableConfig,
        schema: &TableSchema,
        labels: &LabelsByColumn,
    ) -> Result<TargetTable> {
        TargetTable::plan_for(&self.0.facts, config, table, (schema, labels))
    }

    /// What append tables are known to have.
    pub(super) fn known(&self) -> &Known {
        &self.0.known
    }

    pub(super) fn url(&self) -> &str {
        &self.0.url
    }

    pub(super) fn database(&self) -> &str {
        &self.0.database
    }

    pub(super) fn user(&self) -> &str {
        &self.0.user
    }

    pub(super) fn is_fsync(&self) -> bool {
        self.0.fsync
    }

    pub(super) fn compresses(&self) -> bool {
        self.0.compress
    }

    pub(super) fn client(&self) -> &clickhouse::Client {
        &self.0.client
    }

    /// Runs a statement and waits for its end.
    pub(super) async fn run(&self, sql: &str, doing: Doing<'_>, limit: Duration) -> Result<()> {
        let mut query = self
            .0
            .client
            .query_raw(sql)
            // Else an answer may begin with 200 and break off with an exception.
            .with_setting("wait_end_of_query", "1");
        if self.0.facts.time64 {
            // The server has the type; its administrator may have it switched off.
            query = query.with_setting("enable_time_time64_type", "1");
        }
        self.0.timed(limit, query.execute(), doing).await
    }

    /// Asks for rows, each a JSON object.
    pub(super) async fn rows<T: DeserializeOwned>(
        &self,
        sql: &str,
        doing: Doing<'_>,
    ) -> Result<Vec<T>> {
        self.0.rows(sql, doing, STATEMENT_TIMEOUT).await
    }

    /// The same for a question that reads much.
    pub(super) async fn rows_within<T: DeserializeOwned>(
        &self,
        sql: &str,
        doing: Doing<'_>,
        limit: Duration,
    ) -> Result<Vec<T>> {
        self.0.rows(sql, doing, limit).await
    }

    /// Inserts rows, each a JSON object, and answers how many bytes they were. Never merged with another insert nor left
    /// out as a repetition of one, and `Ok` only when they are stored.
    pub(super) async fn insert_rows<T: Serialize>(
        &self,
        sql: &str,
        rows: &[T],
        doing: Doing<'_>,
    ) -> Result<u64> {
        let mut body = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut body, row).expect("a row of texts and numbers is JSON");
            body.push(b'\n');
        }
        let bytes = body.len() as u64;
        let mut insert = self
            .client()
            .insert_formatted_with(sql)
            .with_timeouts(Some(STATEMENT_TIMEOUT), Some(STATEMENT_TIMEOUT))
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "0")
            .with_setting("input_format_skip_unknown_fields", "0")
            .with_setting("input_format_null_as_default", "0")
            .with_setting("wait_end_of_query", "1");
        let answer = match insert.send(body.into()).await {
            Ok(()) => insert.end().await,
            Err(error) => Err(error),
        };
        answer
            .map(|()| bytes)
            .map_err(|error| self.failed(error, doing))
    }

    /// Turns a failure of the crate into ours.
    pub(super) fn failed(&self, error: clickhouse::error::Error, doing: Doing<'_>) -> Error {
        failure(error, &self.0.url, &self.0.user, doing)
    }
}

impl Inner {
    async fn rows<T: DeserializeOwned>(
        &self,
        sql: &str,
        doing: Doing<'_>,
        limit: Duration,
    ) -> Result<Vec<T>> {
        let mut query = self
            .client
            .query_raw(sql)
            .with_setting("wait_end_of_query", "1")
            .with_setting("output_format_json_quote_64bit_integers", "0");
        if sql.len() > STATEMENT_BYTES {
            query = query.with_setting("max_query_size", (2 * sql.len()).to_string());
        }
        let answer = async {
            let mut cursor = query.fetch_bytes("JSONEachRow")?;
            cursor.collect().await
        };
        let bytes = self.timed(limit, answer, doing).await?;
        bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(serde_json::from_slice)
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| {
                Error::new(
                    ErrorKind::DestinationUnavailable,
                    format!("the answer of ClickHouse at {} cannot be read", self.url),
                )
                // The category only: serde's text could quote a cell.
                .with_source(format!(
                    "{:?} error at column {}",
                    error.classify(),
                    error.column()
                ))
            })
    }

    async fn timed<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = clickhouse::error::Result<T>>,
        doing: Doing<'_>,
    ) -> Result<T> {
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(failure(error, &self.url, &self.user, doing)),
            Err(_) => Err(silent(&self.url)),
        }
    }
}

impl fmt::Debug for ClickHouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClickHouse")
            .field("url", &self.0.url)
            .field("database", &self.0.database)
            .field("user", &self.0.user)
            .field("facts", &self.0.facts)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct FactsRow {
    version: String,
    time64: u64,
    drops_any_size: u64,
}

/// Compressing costs both ends more than the loopback interface does.
fn is_loopback(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let host = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or(bracketed),
        None => authority.split(':').next().unwrap_or(authority),
    };
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_told_from_others() {
        for url in [
            "http://127.0.0.1:8123",
            "http://localhost",
            "http://[::1]:8123/",
            "https://LOCALHOST:1",
        ] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "http://10.0.0.1:8123",
            "https://ch.example.com:8443",
            "http://localhost.example.com",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(parse_version("23.10.1.1") > Some(OLDEST));
        assert!(parse_version("22.12") < Some(OLDEST));
    }
}
