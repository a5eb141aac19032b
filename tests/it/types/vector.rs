//! Vectors: MySQL's own wire type, MariaDB's in the clothes of a VARBINARY (pitfall 32).

use anyhow::{Result, ensure};
use testbed::SourceKind;
use testbed::harness::Stage;

use super::both_paths;
use crate::support::{CATCH_UP, running};

/// The two kinds that have vectors.
macro_rules! where_there_are_vectors {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_mysql() {
                crate::support::case(120, super::$name(testbed::SourceKind::MySql)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_mariadb11() {
                crate::support::case(120, super::$name(testbed::SourceKind::MariaDb11)).await;
            }
        })+
    };
}

where_there_are_vectors! {
    vectors_keep_every_bit,
    a_null_vector_is_an_empty_array,
}

/// The function that makes a vector of a text.
fn of_text(kind: SourceKind, text: &str) -> String {
    match kind {
        SourceKind::MySql => format!("STRING_TO_VECTOR('{text}')"),
        SourceKind::MariaDb | SourceKind::MariaDb11 => format!("VEC_FromText('{text}')"),
    }
}

async fn vectors_keep_every_bit(kind: SourceKind) -> Result<()> {
    let of = |text: &str| of_text(kind, text);
    let long: Vec<String> = (0..1536)
        .map(|n| format!("{}", f64::from(n) / 7.0))
        .collect();
    let long = of(&format!("[{}]", long.join(",")));
    let zeros = of("[0,0,0]");
    let extremes = of("[3.4028235e38,-3.4028235e38,1.1754944e-38]");
    let usual = of("[0.1,-2.5,16777217]");
    // Fewer than declared, which MySQL takes.
    let short = match kind {
        SourceKind::MySql => of("[1,2]"),
        SourceKind::MariaDb | SourceKind::MariaDb11 => usual.clone(),
    };
    both_paths(
        kind,
        "",
        &[
            ("VECTOR(3)", &[&zeros, &extremes, &usual, &short]),
            ("VECTOR(1536)", &[&long]),
            ("VECTOR(1)", &["X'0000803F'"]),
        ],
    )
    .await
}

async fn a_null_vector_is_an_empty_array(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let one = of_text(kind, "[1,2.5]");
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, v VECTOR(2), n VECTOR(2) NOT NULL)".to_owned(),
            format!("INSERT INTO t VALUES (1, NULL, {one}), (2, {one}, {one})"),
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    stage
        .source
        .execute(format!(
            "INSERT INTO t VALUES (3, NULL, {one}), (4, {one}, {one})"
        ))
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let shown = stage
        .clickhouse
        .query(&format!(
            "SELECT id, v, n, toTypeName(v) FROM `{}`.t_current ORDER BY id",
            stage.database
        ))
        .await?;
    let expected = "1\t[]\t[1,2.5]\tArray(Float32)\n2\t[1,2.5]\t[1,2.5]\tArray(Float32)\n\
                    3\t[]\t[1,2.5]\tArray(Float32)\n4\t[1,2.5]\t[1,2.5]\tArray(Float32)";
    ensure!(shown == expected, "{shown}");
    stage.assert_same("t").await.map(drop)
}
