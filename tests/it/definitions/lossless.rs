//! New definitions of columns that leave every stored value as it was, on the servers that rewrite them.

use anyhow::{Result, ensure};
use testbed::SourceKind;
use testbed::harness::Stage;

use super::identity;
use crate::support::{assert_caught_up, on_both_sources, running};

on_both_sources! {
    wider_definitions_of_each_type_keep_values_in_place: 400,
}

/// Each with a row that only the new definition holds.
const WIDER: [(&str, &str); 9] = [
    ("MODIFY s SET('a', 'b', 'c')", "s = 'a,c'"),
    ("MODIFY d DATETIME(3)", "d = '2024-05-05 05:05:05.125'"),
    ("MODIFY h TIME(6)", "h = '-12:34:56.654321'"),
    ("MODIFY f DOUBLE", "f = 1e100"),
    (
        "MODIFY c VARCHAR(9) CHARACTER SET utf8mb4",
        "c = '123456789'",
    ),
    ("MODIFY y BLOB", "y = REPEAT(X'00FF', 200)"),
    (
        "MODIFY l MEDIUMTEXT CHARACTER SET utf8mb4",
        "l = '\u{2603}'",
    ),
    ("MODIFY u BIGINT", "u = -5000000000"),
    ("MODIFY v VARBINARY(40)", "v = REPEAT(X'00', 40)"),
];

/// pitfall 106: with rows from before and after each.
async fn wider_definitions_of_each_type_keep_values_in_place(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, s SET('a', 'b'), d DATETIME, h TIME, f FLOAT, \
             c CHAR(5) CHARACTER SET utf8mb4, y TINYBLOB, l TEXT CHARACTER SET latin1, u INT UNSIGNED, v VARBINARY(4))",
            "INSERT INTO t VALUES (1, 'a,b', '2024-01-01 01:01:01', '-838:59:59', 0.1, 'a ', X'00FF', \
             _latin1 X'808E9FE9', 4294967295, X'0000'), \
             (2, '', '1970-01-01 00:00:00', '00:00:01', 2e-38, '', '', '', 0, ''), \
             (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let before = identity(&stage, "t").await?;
    for (number, (change, value)) in WIDER.iter().enumerate() {
        let id = 10 + number;
        stage
            .source
            .execute_all([
                format!("ALTER TABLE t {change}"),
                format!("INSERT INTO t (id) VALUES ({id})"),
                format!("UPDATE t SET {value} WHERE id = {id}"),
            ])
            .await?;
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        ensure!(
            identity(&stage, "t").await? == before,
            "`{change}`: the table was loaded anew"
        );
    }
    Ok(())
}
