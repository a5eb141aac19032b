//! ENUM and SET labels, which the catalog and the table maps have in the column's charset.

use anyhow::{Result, ensure};
use mysql_async::Conn;
use testbed::SourceKind;
use testbed::charsets;
use testbed::harness::Stage;

use crate::support::{assert_caught_up, on_both_sources, running};

on_both_sources! {
    labels_in_every_charset: 300,
}

/// Pitfall 22.
async fn labels_in_every_charset(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let mut conn = stage.source.connect().await?;
    let mut enums = chosen_columns();
    enums.extend(sampled_columns(&mut conn).await?);
    drop(conn);
    let columns: Vec<String> = enums
        .iter()
        .enumerate()
        .map(|(n, (charset, column))| format!("c{n} {column} CHARACTER SET {charset} NULL"))
        .collect();
    stage
        .source
        .execute(format!(
            "CREATE TABLE t (id INT PRIMARY KEY, {})",
            columns.join(", ")
        ))
        .await?;
    // Numbers, so that no label depends on how it is written here; 0 is the empty value, 1500 the last label.
    let rows = (0..=10u64).chain([257, 1_000, 1_001, 1_499, 1_500]);
    let insert = |id: u64, row: u64| {
        let values = enums.iter().map(|(_, column)| {
            let members = column.matches("', '").count() as u32 + 1;
            match (column.starts_with("SET"), members) {
                (false, _) => row.min(members.into()).to_string(),
                (true, 64) if row > 10 => u64::MAX.to_string(),
                (true, 64) => (1u64 << (row * 6 + 3)).to_string(),
                (true, _) => (row % (1 << members)).to_string(),
            }
        });
        let values: Vec<String> = values.collect();
        format!("INSERT INTO t VALUES ({id}, {})", values.join(", "))
    };
    let statements = |first: u64| -> Vec<String> {
        let lax = "SET sql_mode = 'NO_ENGINE_SUBSTITUTION'".to_owned();
        let inserts = rows.clone().map(|row| insert(first + row, row));
        std::iter::once(lax).chain(inserts).collect()
    };
    stage.source.execute_all(statements(0)).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    stage.assert_same("t").await?;
    stage.source.execute_all(statements(10_000)).await?;
    stage
        .source
        .execute("INSERT INTO t (id) VALUES (-1)")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let emoji = format!(
        "SELECT count() FROM `{}`.t_current WHERE c0 = 'x\u{1f600}'",
        stage.database
    );
    ensure!(stage.clickhouse.number(&emoji).await? == 2);
    Ok(())
}

/// Columns with marks among their labels, many labels, and characters that information_schema cannot print.
fn chosen_columns() -> Vec<(String, String)> {
    let odd = "'x\u{1f600}', 'b?', 'it''s', 'a\\\\b', '\"q\"', '\u{e9}', '(', '?'";
    let astral = "'\u{10000}1', 'x\u{20000}y', '\u{10ffff}2', '\u{1f600}3'";
    let columns = [
        ("utf8mb4", format!("ENUM({odd}, 'a,b', '')")),
        ("utf8mb4", format!("SET({odd})")),
        ("gbk", "ENUM('一', '丂', 'Б', 'c', '?', ',')".to_owned()),
        ("gbk", "SET('一', '丂', 'c')".to_owned()),
        // Their second bytes are a backslash and other marks.
        ("sjis", "ENUM('表', 'ソ', 'ｱ', 'it''s', '十,能')".to_owned()),
        ("sjis", "SET('表', 'ソ', 'ｱ')".to_owned()),
        ("latin2", "ENUM('ł', 'Ő', 'plain', 'a?')".to_owned()),
        ("latin2", "SET('ł', 'Ő', 'plain')".to_owned()),
        ("utf16", "ENUM('x\u{1f600}', '\u{1f601}')".to_owned()),
        ("ucs2", "SET('ä', '€')".to_owned()),
        ("utf16le", format!("ENUM({astral})")),
        ("utf32", format!("ENUM({astral})")),
        ("utf32", format!("SET({astral})")),
        ("swe7", "ENUM('Å', 'x')".to_owned()),
        (
            "koi8r",
            format!("ENUM({})", numbered("я", 1_500).join(", ")),
        ),
        (
            "utf8mb4",
            format!("SET({})", numbered("\u{1f600}", 64).join(", ")),
        ),
    ];
    columns
        .into_iter()
        .map(|(charset, column)| (charset.to_owned(), column))
        .collect()
}

/// An ENUM and a SET in each charset that has a table, of letters that the server has in it.
async fn sampled_columns(conn: &mut Conn) -> Result<Vec<(String, String)>> {
    let mut columns = Vec::new();
    for charset in charsets::charsets(conn).await? {
        if !charsets::has_table(&charset) {
            continue;
        }
        let codes = charsets::codes(conn, &charset).await?;
        let letters: Vec<char> = codes
            .values()
            .filter(|code| code.own)
            .filter_map(|code| code.character)
            .filter(|letter| *letter > '\u{7f}' && letter.is_alphabetic())
            .collect();
        ensure!(letters.len() > 5, "{charset} has only {letters:?}");
        // A number behind each: to a collation two letters may be one.
        let labels: Vec<String> = letters
            .iter()
            .step_by(letters.len().div_ceil(6))
            .enumerate()
            .map(|(n, letter)| format!("'{letter}{n}'"))
            .collect();
        for kind in ["ENUM", "SET"] {
            columns.push((charset.clone(), format!("{kind}({})", labels.join(", "))));
        }
    }
    Ok(columns)
}

fn numbered(text: &str, count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("'{text}{n}'")).collect()
}
