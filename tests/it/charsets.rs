//! Every charset that a server ships (pitfalls 20, 21 and 22): each of its characters on both paths, codes that are none, labels, and keys.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testbed::SourceKind;
use testbed::charsets::{self, Codes};
use testbed::harness::{Comparison, Stage};

use crate::support::{
    CATCH_UP, START, assert_caught_up, launch, on_all_sources, on_both_sources, once, running,
    running_with, start,
};

on_all_sources! {
    every_character_of_every_charset: 300,
}

on_both_sources! {
    codes_that_are_no_character_stay_as_they_are_stored: 300,
    labels_in_every_charset: 300,
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
const STREAMED: u32 = 1_000_000;

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
    let tables: Vec<String> = names.iter().map(|name| table_of(name)).collect();
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
    Ok(())
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

async fn labels_in_every_charset(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let odd = "'x\u{1f600}', 'b?', 'it''s', 'a\\\\b', '\"q\"', '\u{e9}', '(', '?'";
    let enums = [
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

fn numbered(text: &str, count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("'{text}{n}'")).collect()
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
