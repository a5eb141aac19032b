//! Values past 16 MiB, which span packets (pitfall 23), on both paths and in bounded memory.

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use testbed::harness::{Stage, usage_of};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{CATCH_UP, on_both_sources, running};

on_both_sources! {
    values_of_64_mib_arrive_whole: 300,
}

const MIB: u64 = 1 << 20;

/// A few copies of one value: the event's two images, the batch, its Arrow stream. Seen: 350 to 420 MiB.
const PEAK_MAX: u64 = 800 * MIB;

async fn values_of_64_mib_arrive_whole(kind: SourceKind) -> Result<()> {
    // Values pass through the server's packet limit, so the server is one's own.
    let stage = Stage::with_source(move || {
        let options = SourceOptions::new(kind).arg("--max-allowed-packet=256M");
        SourceServer::start(options.arg(if kind.is_mariadb() {
            "--innodb-log-file-size=1G"
        } else {
            "--innodb-redo-log-capacity=1G"
        }))
    })
    .await?;
    let mut conn = stage.source.connect().await?;
    let columns = "id INT PRIMARY KEY, b LONGBLOB, t LONGTEXT CHARACTER SET utf8mb4";
    conn.query_drop(format!("CREATE TABLE t ({columns})"))
        .await?;
    // 64 MiB of bytes, and of characters of one to four bytes; 16 MiB and its neighbours, where a packet ends.
    let rows = |first: u32| {
        [
            format!("({first}, REPEAT(X'00FF10', {}), 'short')", 64 * MIB / 3),
            format!(
                "({}, 'short', REPEAT('a\u{e9}\u{20ac}\u{1f600}', {}))",
                first + 1,
                64 * MIB / 10
            ),
            format!("({}, REPEAT('x', {}), NULL)", first + 2, 16 * MIB - 1),
            format!("({}, REPEAT('y', {}), '')", first + 3, 16 * MIB - 16),
        ]
    };
    for row in rows(1) {
        conn.query_drop(format!("INSERT INTO t VALUES {row}"))
            .await?;
    }
    let mut pipe = running(&stage, &["t"]).await?;
    ensure_same(&stage, 4).await?;
    for row in rows(11) {
        conn.query_drop(format!("INSERT INTO t VALUES {row}"))
            .await?;
    }
    conn.query_drop("UPDATE t SET t = 'changed' WHERE id = 11")
        .await?;
    drop(conn);
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure_same(&stage, 8).await?;
    let (_, peak) = usage_of(pipe.pid().context("the pipe runs")?)?;
    eprintln!(
        "the pipe's peak of memory from {kind:?}: {} MiB",
        peak / MIB
    );
    ensure!(peak < PEAK_MAX, "the pipe took {} MiB", peak / MIB);
    Ok(())
}

/// Lengths and checksums: the values themselves would be heavy to carry.
async fn ensure_same(stage: &Stage, row_count: usize) -> Result<()> {
    let columns = "CONCAT_WS(',', id, LENGTH(b), CRC32(b), LENGTH(t), CRC32(t))";
    let expected: Vec<String> = stage
        .source
        .rows(format!("SELECT {columns} FROM t ORDER BY id"))
        .await?;
    ensure!(expected.len() == row_count);
    let columns = "concatWithSeparator(',', toString(id), toString(length(b)), toString(CRC32(b)), \
                   ifNull(toString(length(t)), ''), ifNull(toString(CRC32(t)), ''))";
    let found = stage
        .clickhouse
        .query(&format!(
            "SELECT trimRight({columns}, ',') FROM `{}`.t_current ORDER BY id",
            stage.database
        ))
        .await?;
    ensure!(
        found == expected.join("\n"),
        "{expected:?} became:\n{found}"
    );
    Ok(())
}
