//! Every charset that a server ships (pitfalls 20, 21 and 22): each of its characters on both paths, codes that are none, labels, and keys.

mod collations;
mod labels;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::charsets::{self, Codes};
use testbed::harness::{Comparison, Pipe, Stage};

use crate::support::{
    CATCH_UP, START, assert_caught_up, launch, on_all_sources, on_both_sources, once, running,
    running_with, start,
};

on_all_sources! {
    every_character_of_every_charset: 600,
}

on_both_sources! {
    codes_that_are_no_character_stay_as_they_are_stored: 300,
    keys_of_east_asian_charsets_are_cut: 300,
    keys_that_would_become_one_are_refused_by_name: 240,
}

once! {
    the_committed_tables_are_what_both_servers_say: 300,
    collations_of_mariadb_alone: 240,
}

/// Characters in one row's value.
const CHARACTERS_A_ROW: usize = 64;

const ROWS_A_STATEMENT: usize = 400;

/// Rows of the stream have the ids of the load's and this.
const STREAMED: u32 = 10_000_000;

async fn the_committed_tables_are_what_both_servers_say() -> Result<()> {
    let mysql = Stage::shared(SourceKind::MySql).await?;
    let mariadb = Stage::shared(SourceKind::MariaDb).await?;
    let mut conns = Vec::new();
    for stage in [&mysql, &mariadb] {
        conns.push(mysql_async::Conn::from_url(stage.source_server.root_url()).await?);
    }
    let asked = charsets::tables(&mut conns).await?;
    let kept = std::fs::read_to_string(charsets::committed())?;
    let differences: Vec<(&str, &str)> = kept
        .lines()
        .zip(asked.lines())
        .filter(|(kept, asked)| kept != asked)
        .take(10)
        .collect();
    ensure!(
        kept == asked,
        "run `testbed charsets`; kept and asked: {differences:?}"
    );
    Ok(())
}

async fn every_character_of_every_charset(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let mut conn = stage.source.connect().await?;
    let mut names = charsets::charsets(&mut conn).await?;
    names.retain(|name| name != "binary");
    let expected = match kind {
        SourceKind::MySql => 40,
        SourceKind::MariaDb | SourceKind::MariaDb11 => 39,
    };
    ensure!(names.len() >= expected, "only {names:?}");
    for name in &names {
        let mut values = Vec::new();
        if charsets::has_table(name) {
            let codes = charsets::codes(&mut conn, name).await?;
            let real = codes.iter().filter(|(_, code)| code.character.is_some());
            values = literals(name, real.map(|(code, _)| code.as_slice()));
        }
        // GB 18030 has all of Unicode, most of it in codes of four bytes.
        if !charsets::has_table(name) || name == "gb18030" {
            values.extend(unicode_literals(name));
        }
        fill(&stage, name, &values).await?;
    }
    drop(conn);
    let mut tables: Vec<String> = names.iter().map(|name| table_of(name)).collect();
    for name in names.iter().filter(|name| has_all_planes(name)) {
        tables.push(fill_planes(&stage, name).await?);
    }
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    let mut pipe = running(&stage, &tables).await?;
    for table in &tables {
        stage.assert_same(table).await?;
        stage
            .source
            .execute(format!(
                "INSERT INTO {table} SELECT id + {STREAMED}, c, t, h FROM {table}"
            ))
            .await?;
    }
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    for table in &tables {
        let rows = stage.assert_same(table).await?;
        let expected = stage
            .source
            .number(format!("SELECT COUNT(*) FROM {table}"))
            .await?;
        ensure!(rows == expected && rows > 1, "{table} has {rows} rows");
    }
    Ok(())
}

fn table_of(charset: &str) -> String {
    format!("c_{charset}")
}

/// A table of the charset with these values, thrice in each row: as VARCHAR, whose bytes are counted in a byte or two,
/// as TEXT, and as CHAR, which is cut at its last space in the charset's own sense (pitfalls 17, 19).
async fn fill(stage: &Stage, charset: &str, values: &[String]) -> Result<()> {
    let table = table_of(charset);
    stage
        .source
        .execute(format!(
            "CREATE TABLE {table} (id INT PRIMARY KEY, c VARCHAR({CHARACTERS_A_ROW}), t TEXT, h CHAR({CHARACTERS_A_ROW})) \
             CHARACTER SET {charset}"
        ))
        .await?;
    let rows: Vec<String> = values
        .iter()
        .enumerate()
        .map(|(id, value)| format!("({id}, {value}, {value}, {value})"))
        .collect();
    for rows in rows.chunks(ROWS_A_STATEMENT) {
        let sql = format!("INSERT INTO {table} VALUES {}", rows.join(", "));
        stage.source.execute(sql).await.context(table.clone())?;
    }
    Ok(())
}

/// Code points in one value of a table of whole planes.
const CODE_POINTS_A_ROW: u32 = 0x4000;

fn has_all_planes(charset: &str) -> bool {
    matches!(
        charset,
        "utf8mb4" | "utf16" | "utf16le" | "utf32" | "gb18030"
    )
}

/// A table of the charset with every code point of every plane.
async fn fill_planes(stage: &Stage, charset: &str) -> Result<String> {
    let table = format!("p_{charset}");
    stage
        .source
        .execute(format!(
            "CREATE TABLE {table} (id INT PRIMARY KEY, c CHAR(1), t LONGTEXT, h CHAR(1)) \
             CHARACTER SET {charset} COLLATE {charset}_bin"
        ))
        .await?;
    for start in (0..=0x10_ffff).step_by(CODE_POINTS_A_ROW as usize) {
        let text: String = (start..start + CODE_POINTS_A_ROW)
            .filter_map(char::from_u32)
            .collect();
        let value = format!("_utf8mb4 X'{}'", hex(text.as_bytes()));
        stage
            .source
            .execute(format!(
                "INSERT INTO {table} (id, t) VALUES ({start}, {value})"
            ))
            .await?;
    }
    // What the server cannot take over, it makes a question mark.
    let marks = stage
        .source
        .number(format!(
            "SELECT CAST(SUM(CHAR_LENGTH(t) - CHAR_LENGTH(REPLACE(t, '?', ''))) AS UNSIGNED) \
             FROM {table} WHERE id > 65535"
        ))
        .await?;
    ensure!(marks == 0, "{table} has {marks} question marks");
    Ok(table)
}

/// Codes as literals of their charset, many in each.
fn literals<'a>(charset: &str, codes: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let codes: Vec<String> = codes.map(hex).collect();
    codes
        .chunks(CHARACTERS_A_ROW)
        .map(|codes| format!("_{charset} X'{}'", codes.concat()))
        .collect()
}

/// Every character of the first plane, and of the others each 61st and the ends, as far as the charset has them.
fn unicode_literals(charset: &str) -> Vec<String> {
    let last = match charset {
        "ascii" => 0x7f,
        "ucs2" | "utf8mb3" => 0xffff,
        _ => 0x10_ffff,
    };
    let characters: Vec<char> = (0..=last)
        .filter(|code| *code < 0x1_0000 || code % 61 == 0 || code & 0xffff >= 0xfffe)
        .filter_map(char::from_u32)
        .collect();
    characters
        .chunks(CHARACTERS_A_ROW)
        .map(|characters| {
            let text: String = characters.iter().collect();
            format!("_utf8mb4 X'{}'", hex(text.as_bytes()))
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

async fn codes_that_are_no_character_stay_as_they_are_stored(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let mut conn = stage.source.connect().await?;
    let mut tables = Vec::new();
    for name in charsets::charsets(&mut conn).await? {
        if !charsets::has_table(&name) {
            continue;
        }
        let codes = charsets::codes(&mut conn, &name).await?;
        let values = with_holes(&name, &codes);
        if !values.is_empty() {
            fill(&stage, &name, &values).await?;
            tables.push(table_of(&name));
        }
    }
    // Half of a surrogate pair, and a whole one, which UCS-2 does not know.
    let surrogates = ["D83D", "D83DDE00", "0041DC00"].map(|digits| format!("_ucs2 X'{digits}'"));
    fill(&stage, "ucs2", &surrogates).await?;
    tables.push(table_of("ucs2"));
    drop(conn);
    ensure!(tables.len() > 15, "only {tables:?} have holes");
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    let mut pipe = running(&stage, &names).await?;
    for table in &tables {
        assert_stored(&stage, table).await?;
        stage
            .source
            .execute(format!(
                "INSERT INTO {table} SELECT id + {STREAMED}, c, t, h FROM {table}"
            ))
            .await?;
    }
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    for table in &tables {
        assert_stored(&stage, table).await?;
    }
    assert_counted(&stage, &mut pipe, &tables).await
}

/// Every row of these tables has such a code in each column, and status counts them all.
async fn assert_counted(stage: &Stage, pipe: &mut Pipe, tables: &[String]) -> Result<()> {
    let mut expected = Vec::new();
    for table in tables {
        let rows = stage
            .source
            .number(format!("SELECT COUNT(*) FROM {table}"))
            .await?;
        let counted =
            |column| json!({ "column": column, "policy": "invalid_text", "values": rows });
        expected.push(json!(["c", "h", "t"].map(counted)));
    }
    let counted = |status: &Value| -> Vec<Value> {
        let shown = status["tables"].as_array().into_iter().flatten();
        // The marker comes behind them.
        shown
            .take(tables.len())
            .map(|table| table["columns"].clone())
            .collect()
    };
    let status = pipe
        .wait_for("every such text counted", CATCH_UP, |status| {
            counted(status) == expected
        })
        .await;
    status
        .map(drop)
        .with_context(|| format!("not {expected:?}"))
}

/// Values of a character, a hole, and a character; some forty, spread over the charset.
fn with_holes(charset: &str, codes: &Codes) -> Vec<String> {
    let holes: Vec<&Vec<u8>> = codes
        .iter()
        .filter(|(_, code)| code.character.is_none())
        .map(|(code, _)| code)
        // MySQL converts single bytes of eucjpms to nothing, and stores none.
        .filter(|code| charset != "eucjpms" || code.len() > 1)
        .collect();
    let last = codes.iter().rfind(|(_, code)| code.character.is_some());
    let around = last.map(|(code, _)| hex(code)).unwrap_or_default();
    holes
        .iter()
        .step_by(holes.len().div_ceil(40).max(1))
        .map(|hole| format!("_{charset} X'{around}{}{around}'", hex(hole)))
        .collect()
}

/// All columns hold the very bytes of the source.
async fn assert_stored(stage: &Stage, table: &str) -> Result<()> {
    let sql = |function: &str, from: &str| {
        let columns = ["c", "t", "h"].map(|name| format!("' ', {function}({name})"));
        format!(
            "SELECT CONCAT(id, {}) FROM {from} ORDER BY id",
            columns.join(", ")
        )
    };
    let expected: Vec<String> = stage.source.rows(sql("HEX", table)).await?;
    let from = format!("`{}`.{table}_current", stage.database);
    let found: Vec<String> = stage
        .clickhouse
        .rows(&sql("hex", &from).replace("CONCAT(id,", "concat(toString(id),"))
        .await?
        .into_iter()
        .filter_map(|row| row.into_iter().next().flatten())
        .collect();
    ensure!(!expected.is_empty());
    ensure!(
        expected == found,
        "{table}: {:?}",
        expected
            .iter()
            .zip(&found)
            .find(|(expected, found)| expected != found)
    );
    Ok(())
}

async fn keys_of_east_asian_charsets_are_cut(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let mut conn = stage.source.connect().await?;
    let mut tables = Vec::new();
    for (charset, collation) in [
        ("gbk", "gbk_chinese_ci"),
        ("gbk", "gbk_bin"),
        ("sjis", "sjis_bin"),
        ("big5", "big5_chinese_ci"),
        ("utf16", "utf16_bin"),
        ("koi8r", "koi8r_general_ci"),
    ] {
        let table = format!("k_{collation}");
        stage
            .source
            .execute(format!(
                "CREATE TABLE {table} (k VARCHAR(20) PRIMARY KEY, n INT) CHARACTER SET {charset} COLLATE {collation}"
            ))
            .await?;
        let keys = keys(&mut conn, charset).await?;
        for keys in keys.chunks(ROWS_A_STATEMENT) {
            let rows: Vec<String> = keys.iter().map(|key| format!("({key}, 1)")).collect();
            // To some collations two of these are equal.
            let sql = format!("INSERT IGNORE INTO {table} VALUES {}", rows.join(", "));
            stage.source.execute(sql).await?;
        }
        stage
            .source
            .execute(format!("ANALYZE TABLE {table}"))
            .await?;
        tables.push(table);
    }
    drop(conn);
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    let mut file = stage.pipe_file(&names);
    file["snapshot"] = json!({ "rows_per_partition": 500 });
    let mut pipe = running_with(&file).await?;
    let status = pipe.status().await?;
    for (nth, table) in tables.iter().enumerate() {
        let total = status["tables"][nth]["snapshot"]["partitions_total"].as_u64();
        ensure!(total >= Some(3), "{table}: {}", status["tables"][nth]);
        ensure!(stage.assert_same(table).await? > 2_000, "{table}");
        stage
            .source
            .execute_all([
                format!("UPDATE {table} SET n = 2 ORDER BY k LIMIT 50"),
                format!("DELETE FROM {table} ORDER BY k DESC LIMIT 50"),
            ])
            .await?;
    }
    assert_caught_up(&stage, &mut pipe, &names).await
}

/// Three thousand keys of two characters, with a number behind.
async fn keys(conn: &mut mysql_async::Conn, charset: &str) -> Result<Vec<String>> {
    let characters: Vec<Vec<u8>> = if charsets::has_table(charset) {
        let codes = charsets::codes(conn, charset).await?;
        codes
            .into_iter()
            .filter(|(_, code)| code.own && code.character.is_some_and(|c| c > '\u{7f}'))
            .map(|(code, _)| code)
            .collect()
    } else {
        (0x4e00u16..0x8000)
            .map(|code| code.to_be_bytes().to_vec())
            .collect()
    };
    let digit = |n: usize| match charset {
        "utf16" => format!("{:04X}", 0x30 + n % 10),
        _ => format!("{:02X}", 0x30 + n % 10),
    };
    let character = |n: usize| hex(&characters[n % characters.len()]);
    Ok((0..3_000)
        .map(|n| {
            let digits: String = [1_000, 100, 10, 1].map(|unit| digit(n / unit)).concat();
            format!("_{charset} X'{}{}{digits}'", character(n * 7), character(n))
        })
        .collect())
}

async fn keys_that_would_become_one_are_refused_by_name(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (k VARCHAR(20) PRIMARY KEY, n INT) CHARACTER SET cp932 COLLATE cp932_bin",
            // One character, coded as IBM and as NEC did.
            "INSERT INTO t VALUES (_cp932 X'FA5C', 1)",
        ])
        .await?;
    let mut pipe = start(launch(&stage.pipe_file(&["t"])))?;
    pipe.wait_state("Running", START).await?;
    stage.assert_same("t").await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (_cp932 X'ED40', 2)")
        .await?;
    let status = pipe
        .wait_for("a reason", CATCH_UP, |status| {
            status.to_string().contains("in a coding that is not")
        })
        .await?
        .to_string();
    for part in [stage.database.as_str(), "`k`", "CONVERT"] {
        ensure!(status.contains(part), "no `{part}` in {status}");
    }
    ensure!(stage.source.number("SELECT COUNT(*) FROM t").await? == 2);
    Ok(())
}

async fn collations_of_mariadb_alone() -> Result<()> {
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (k VARCHAR(20) COLLATE utf8mb4_uca1400_as_cs PRIMARY KEY, \
             a VARCHAR(20) CHARACTER SET utf16 COLLATE utf16_uca1400_ai_ci, \
             b VARCHAR(20) CHARACTER SET gbk COLLATE gbk_chinese_nopad_ci, g POINT INVISIBLE, \
             c TEXT CHARACTER SET ucs2 COLLATE ucs2_croatian_ci, \
             e ENUM('ä', 'z') CHARACTER SET latin1 COLLATE latin1_swedish_nopad_ci)",
            "INSERT INTO t (k, a, b, c, e) VALUES ('ä', 'ä😀', '一', 'š', 'ä')",
        ])
        .await?;
    let mut file = stage.pipe_file_of(vec![json!({
        "source": format!("{}.t", stage.database),
        "exclude_columns": ["g"],
    })]);
    file["snapshot"] = json!({ "rows_per_partition": 1 });
    let mut pipe = running_with(&file).await?;
    let comparison = Comparison::of("t").without("g");
    stage.assert(comparison.clone()).await?;
    stage
        .source
        .execute("INSERT INTO t (k, a, b, c, e) VALUES ('a', 'ö', '丂', 'đ', 'z'), ('Ä', '', '', '', 'ä')")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert(comparison).await? == 3);
    Ok(())
}
