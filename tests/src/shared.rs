//! One server of a kind for all tests of a test binary, each test in a database of its own.
//!
//! Statics are not dropped: the supervisor ends these servers and removes their folders when the test process ends.

use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::{ClickHouseOptions, ClickHouseServer, SourceKind, SourceOptions, SourceServer};

/// The MySQL server of this process, started by the first caller; a server that cannot start fails the test.
pub fn shared_mysql() -> &'static SourceServer {
    static SERVER: OnceLock<SourceServer> = OnceLock::new();
    SERVER.get_or_init(|| started(SourceServer::start(SourceOptions::new(SourceKind::MySql))))
}

/// The MariaDB server of this process.
pub fn shared_mariadb() -> &'static SourceServer {
    static SERVER: OnceLock<SourceServer> = OnceLock::new();
    SERVER.get_or_init(|| started(SourceServer::start(SourceOptions::new(SourceKind::MariaDb))))
}

/// The MariaDB server of the newer generation of this process, for tests of what differs there.
pub fn shared_mariadb11() -> &'static SourceServer {
    static SERVER: OnceLock<SourceServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        started(SourceServer::start(SourceOptions::new(
            SourceKind::MariaDb11,
        )))
    })
}

/// The shared server of this kind, for tests that run once a kind.
pub fn shared_source(kind: SourceKind) -> &'static SourceServer {
    match kind {
        SourceKind::MySql => shared_mysql(),
        SourceKind::MariaDb => shared_mariadb(),
        SourceKind::MariaDb11 => shared_mariadb11(),
    }
}

/// The ClickHouse server of this process, with the user `pipewright` beside `default`.
pub fn shared_clickhouse() -> &'static ClickHouseServer {
    static SERVER: OnceLock<ClickHouseServer> = OnceLock::new();
    let options = || ClickHouseOptions {
        password_user: true,
        ..ClickHouseOptions::default()
    };
    SERVER.get_or_init(|| started(ClickHouseServer::start(options())))
}

/// A database name that no other test of this machine uses.
pub fn database_name(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!(
        "{prefix}_{}_{}",
        process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

fn started<Server>(result: Result<Server>) -> Server {
    match result {
        Ok(server) => server,
        Err(error) => panic!("{error:#}"),
    }
}
