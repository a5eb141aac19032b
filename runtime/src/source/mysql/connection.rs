//! Control connections: sessions set up the same way everywhere, and what the server says of itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, SslOpts};
use serde::{Deserialize, Serialize};

use super::past::{self, Fitness, Past};
use super::wire::WireConn;
use crate::config::{SourceConfig, SourceType, TlsMode};
use crate::error::{Error, ErrorKind, Result};

/// How long a connection attempt may take before the source counts as unreachable.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection is silent before the network is asked whether the other end is still there: what is waited for
/// on a dead one would be waited for without end (pitfall 70).
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Which of the two families a server belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavor {
    /// MySQL, Percona.
    MySql,
    /// MariaDB.
    MariaDb,
}

/// A server's version number, such as 10.11.19.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServerVersion(pub u16, pub u16, pub u16);

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What makes two servers the same for file and offset: `@@server_uuid` on MySQL, `@@server_id` with `@@server_uid`
/// or the data directory's name on MariaDB.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServerIdentity(pub String);

/// One source server, connected to once, so that its facts are known.
#[derive(Debug)]
pub struct Source {
    config: SourceConfig,
    flavor: Flavor,
    version: ServerVersion,
    identity: ServerIdentity,
    gtid: bool,
}

impl Source {
    /// Connects, and reads what the server says of itself. Refuses a server of the other family. Of several servers the
    /// one is taken that a stream behind `past` can best go on with; names are resolved anew each time (pitfall 136).
    ///
    /// # Errors
    /// `SourceUnavailable` where no connection came about, `SourceDenied` on refused credentials, `SourceSetting` when
    /// the family is not the configured one.
    pub async fn connect(config: &SourceConfig, past: Option<&Past>) -> Result<Arc<Self>> {
        if config.hosts.is_empty() {
            return Self::connect_to(config).await.map(Arc::new);
        }
        let mut best: Option<(Fitness, Self)> = None;
        let mut failed: Option<Error> = None;
        for one in config.each_host() {
            match Self::judged(&one, past).await {
                Ok((fitness, source)) => {
                    if best.as_ref().is_none_or(|(before, _)| fitness > *before) {
                        best = Some((fitness, source));
                    }
                    if fitness == Fitness::Writable {
                        break;
                    }
                }
                Err(error) => {
                    tracing::info!("{}", error.chain());
                    // What may pass is what the pipe waits for.
                    if failed
                        .as_ref()
                        .is_none_or(|before| before.kind() != ErrorKind::SourceUnavailable)
                    {
                        failed = Some(error);
                    }
                }
            }
        }
        match (best, failed) {
            (Some((fitness, source)), failed) => {
                if let Some(away) = failed.filter(|away| past::is_awaited(fitness, away)) {
                    return Err(past::awaited(&source.config, away));
                }
                let SourceConfig { host, port, .. } = &source.config;
                tracing::info!(host, port, ?fitness, identity = source.identity.0, "source");
                Ok(Arc::new(source))
            }
            (None, Some(error)) => Err(error),
            (None, None) => Err(Error::new(ErrorKind::Internal, "a source without a host")),
        }
    }

    pub(super) async fn judged(
        config: &SourceConfig,
        past: Option<&Past>,
    ) -> Result<(Fitness, Self)> {
        let source = Self::connect_to(config).await?;
        if !source.gtid {
            return Err(Error::new(
                ErrorKind::SourceSetting,
                format!("the server at {}:{} has no GTIDs, by which alone a place is carried to another server", config.host, config.port),
            )
            .with_hint("set gtid_mode = ON and enforce_gtid_consistency = ON, or remove `source.hosts`"));
        }
        Ok((past::fitness(&source, past).await?, source))
    }

    async fn connect_to(config: &SourceConfig) -> Result<Self> {
        WireConn::knock(config).await?;
        let mut conn = open(config).await?;
        let comment: (String, String) = conn
            .query_first("SELECT VERSION(), @@version_comment")
            .await
            .map_err(query_error)?
            .ok_or_else(|| {
                Error::new(ErrorKind::SourceCorrupt, "the source returned no version")
            })?;
        let maria = comment.0.contains("MariaDB")
            || comment.1.contains("MariaDB")
            || comment.1.contains("mariadb");
        let flavor = if maria {
            Flavor::MariaDb
        } else {
            Flavor::MySql
        };
        let wanted = match config.source_type {
            SourceType::Mysql => Flavor::MySql,
            SourceType::Mariadb => Flavor::MariaDb,
        };
        if flavor != wanted {
            let (is, key) = match flavor {
                Flavor::MySql => ("MySQL", "mysql"),
                Flavor::MariaDb => ("MariaDB", "mariadb"),
            };
            return Err(Error::new(
                ErrorKind::SourceSetting,
                format!(
                    "the server at {}:{} is {is} {}",
                    config.host, config.port, comment.0
                ),
            )
            .with_hint(format!("set `source.type: {key}`")));
        }
        let version = parse_version(&comment.0);
        let identity: String = conn
            .query_first(identity_sql(flavor, version))
            .await
            .map_err(query_error)?
            .ok_or_else(|| {
                Error::new(ErrorKind::SourceCorrupt, "the source returned no identity")
            })?;
        let gtid = match flavor {
            Flavor::MariaDb => true,
            Flavor::MySql => {
                let mode: Option<String> = conn
                    .query_first("SELECT @@gtid_mode")
                    .await
                    .map_err(query_error)?;
                mode.as_deref() == Some("ON")
            }
        };
        conn.disconnect().await.ok();
        Ok(Self {
            config: config.clone(),
            flavor,
            version,
            identity: ServerIdentity(identity),
            gtid,
        })
    }

    /// A fresh control connection with the session settings that every query of ours relies on.
    ///
    /// # Errors
    /// As [`Source::connect`].
    pub async fn control(&self) -> Result<Conn> {
        open(&self.config).await
    }

    /// Whether a fresh connection leads to another server, for a name may lead elsewhere than a moment ago (pitfall 136):
    /// what ends a stream from this one then, a `SourceUnavailable`.
    ///
    /// # Errors
    /// A broken connection.
    pub async fn moved(&self, conn: &mut Conn) -> Result<Option<Error>> {
        let identity: Option<String> = conn
            .query_first(identity_sql(self.flavor, self.version))
            .await
            .map_err(query_error)?;
        if identity.as_deref() == Some(self.identity.0.as_str()) {
            return Ok(None);
        }
        let SourceConfig { host, port, .. } = &self.config;
        let error = Error::new(
            ErrorKind::SourceUnavailable,
            format!("{host}:{port} leads to another server than the one whose binlog is read"),
        )
        .with_hint(
            "the pipe connects anew by itself, and goes on where that server holds all that was read; an address that leads to \
             several servers in turn serves no pipe: name each of them in `source.hosts`",
        );
        Ok(Some(error))
    }

    /// The settings this source was reached with.
    pub fn config(&self) -> &SourceConfig {
        &self.config
    }

    /// Which family the server belongs to.
    pub fn flavor(&self) -> Flavor {
        self.flavor
    }

    /// Its version.
    pub fn version(&self) -> ServerVersion {
        self.version
    }

    /// What tells it from every other server.
    pub fn identity(&self) -> &ServerIdentity {
        &self.identity
    }

    /// Whether the identity is one server's alone. MariaDB before 10.11 has but the id, which nodes of a Galera cluster
    /// share.
    pub fn is_told_apart(&self) -> bool {
        self.flavor == Flavor::MySql || self.version >= ServerVersion(10, 11, 0)
    }

    /// Whether transactions carry GTIDs.
    pub fn has_gtid(&self) -> bool {
        self.gtid
    }
}

/// Maps a failure of a control query: connection trouble is transient, an answer of the server is not.
pub(super) fn query_error(error: mysql_async::Error) -> Error {
    let (kind, code) = match &error {
        mysql_async::Error::Io(_) => (ErrorKind::SourceUnavailable, 0),
        mysql_async::Error::Server(server) => (server_error_kind(server.code), server.code),
        mysql_async::Error::Driver(_)
        | mysql_async::Error::Other(_)
        | mysql_async::Error::Url(_) => (ErrorKind::SourceUnavailable, 0),
    };
    let refused = Error::new(kind, "the source refused a query or broke the connection");
    with_remedy(refused, code).with_source(error)
}

/// Adds what a person does about an error code of the server.
pub(super) fn with_remedy(error: Error, code: u16) -> Error {
    // ER_TABLESPACE_DISCARDED: the rows are away until a file brings others.
    match code {
        1814 => error.with_hint(
            "run ALTER TABLE ... IMPORT TABLESPACE at the source, then resync the table",
        ),
        _ => error,
    }
}

/// What an error code of the server means for a pipe, on whichever connection it arrives.
pub(super) fn server_error_kind(code: u16) -> ErrorKind {
    match code {
        1044 | 1045 | 1142 | 1143 | 1227 | 1698 | 3118 => ErrorKind::SourceDenied,
        1040 | 1053 | 1129 | 1152 | 1158..=1161 | 1203 | 1205 | 1213 | 1317 | 3024 | 1969 => {
            ErrorKind::SourceUnavailable
        }
        1049 | 1054 | 1146 => ErrorKind::SourceMissing,
        // ER_TABLE_DEF_CHANGED: a snapshot is older than the table's definition.
        1412 => ErrorKind::SchemaConflict,
        _ => ErrorKind::SourceSetting,
    }
}

/// The query whose answer is the server's [`ServerIdentity`].
pub(super) fn identity_sql(flavor: Flavor, version: ServerVersion) -> &'static str {
    match flavor {
        Flavor::MySql => "SELECT @@server_uuid",
        // `server_uid` exists from 10.11 on; before, only the id tells servers apart.
        Flavor::MariaDb if version >= ServerVersion(10, 11, 0) => {
            "SELECT CONCAT(@@server_id, '-', @@server_uid)"
        }
        Flavor::MariaDb => "SELECT CONCAT(@@server_id, '')",
    }
}

/// Session variables of §7a of the recipes: one zone, one charset, no mode that changes what SELECT returns. Those that
/// one family lacks are left out for it by the executable-comment rules of both.
const SESSION: &str = "SET SESSION time_zone = '+00:00', sql_mode = 'NO_ENGINE_SUBSTITUTION', \
     net_write_timeout = 600, net_read_timeout = 600, wait_timeout = 28800, \
     sql_select_limit = 18446744073709551615, autocommit = 1";

/// A generated invisible key is in every row image, so the catalog must name it even where the server would hide it
/// (pitfall 41). MariaDB has no such keys, and passes over the comment, as MySQL does before 8.0.30.
const SHOW_GENERATED_KEYS: &str =
    "/*!80030 SET SESSION show_gipk_in_create_table_and_information_schema = ON */";

/// What a person does about a server to which no connection comes about.
pub(super) const REACHABLE: &str = "see that the server runs, takes connections and can be reached from here, and check \
                         `source.host` and `source.port`";

/// A password that is wrong, or a signature.
const ER_ACCESS_DENIED: u16 = 1045;

async fn open(config: &SourceConfig) -> Result<Conn> {
    let mut opts = OptsBuilder::default()
        .ip_or_hostname(config.host.clone())
        .tcp_port(config.port)
        .user(Some(config.user.clone()))
        .pass(Some(config.password.expose().to_owned()))
        .prefer_socket(Some(false))
        .tcp_keepalive(Some(KEEPALIVE))
        .init(vec![
            "SET NAMES utf8mb4".to_owned(),
            SESSION.to_owned(),
            SHOW_GENERATED_KEYS.to_owned(),
        ]);
    if config.tls.mode != TlsMode::Disabled {
        let mut tls = SslOpts::default()
            .with_danger_accept_invalid_certs(config.tls.mode == TlsMode::Required)
            .with_danger_skip_domain_validation(config.tls.mode != TlsMode::VerifyIdentity);
        if let Some(ca) = &config.tls.ca {
            tls = tls.with_root_certs(vec![ca.clone().into()]);
        }
        opts = opts.ssl_opts(Some(tls));
    }
    let connect = |opts| tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(opts));
    let opened = match connect(opts.clone()).await {
        // The library signs one challenge in 256 of MariaDB's ed25519 wrongly: it takes a last byte of 0 for a terminator.
        Ok(Err(mysql_async::Error::Server(refusal))) if refusal.code == ER_ACCESS_DENIED => {
            connect(opts).await
        }
        opened => opened,
    };
    match opened {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(error)) => Err(connect_error(config, error)),
        Err(_) => Err(Error::new(
            ErrorKind::SourceUnavailable,
            format!(
                "no answer from {}:{} in {} s",
                config.host,
                config.port,
                CONNECT_TIMEOUT.as_secs()
            ),
        )
        .with_hint(REACHABLE)),
    }
}

fn connect_error(config: &SourceConfig, error: mysql_async::Error) -> Error {
    // MySQL asks an account that it does not have for a method at random, so that nobody learns which accounts there are.
    if let mysql_async::Error::Driver(mysql_async::DriverError::UnknownAuthPlugin { .. }) = &error {
        return denied(config, error);
    }
    let place = format!("{}:{}", config.host, config.port);
    match query_error(error) {
        refused if refused.kind() == ErrorKind::SourceDenied => denied(config, refused),
        other => {
            let message = format!("cannot connect to the source at {place}");
            let error = Error::new(other.kind(), message);
            match other.kind() {
                ErrorKind::SourceUnavailable => error.with_hint(REACHABLE),
                _ => error,
            }
            .with_source(other)
        }
    }
}

/// The error for an account that the server does not let in.
pub(super) fn denied(
    config: &SourceConfig,
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    let SourceConfig {
        host, port, user, ..
    } = config;
    Error::new(
        ErrorKind::SourceDenied,
        format!("the source at {host}:{port} refused user `{user}`"),
    )
    .with_hint(
        "check `source.user` and `source.password`, and the host that the account is granted for; `pipewright set` gives a \
         paused or failed pipe others, and `start` or `resume` reads what references such as `${file:…}` lead to anew",
    )
    .with_source(cause)
}

fn parse_version(text: &str) -> ServerVersion {
    // MariaDB once put `5.5.5-` before its own number.
    let text = text.strip_prefix("5.5.5-").unwrap_or(text);
    let mut numbers = text
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    ServerVersion(next(), next(), next())
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
