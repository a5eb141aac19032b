//! JSON documents that updates change in parts, on MySQL (pitfall 28): the text is the server's own.

use anyhow::{Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::Stage;

use crate::support::{CATCH_UP, Seed, assert_caught_up, once, running, running_with};

/// Updates of the random test.
const UPDATES: u32 = 600;

once! {
    a_document_that_the_server_keeps_without_a_byte_is_null: 240,
    documents_changed_in_parts_are_as_the_server_prints_them: 300,
    documents_changed_at_random_are_as_the_server_prints_them: 240,
    a_document_that_no_image_holds_is_completed: 240,
    a_document_that_no_image_holds_is_refused_by_name: 240,
}

async fn session(stage: &Stage, image: &str) -> Result<Conn> {
    let mut conn = stage.source.connect().await?;
    conn.query_drop(format!(
        "SET SESSION binlog_row_value_options = 'PARTIAL_JSON', binlog_row_image = '{image}'"
    ))
    .await?;
    Ok(conn)
}

/// Events of the kind that holds parts, in the newest binlog file.
async fn partial_events(conn: &mut Conn) -> Result<usize> {
    let file: Option<(String, u64)> = conn
        .query_map("SHOW BINARY LOG STATUS", |row: mysql_async::Row| {
            (
                row.get::<String, _>(0).unwrap_or_default(),
                row.get::<u64, _>(1).unwrap_or_default(),
            )
        })
        .await?
        .pop();
    let Some((file, _)) = file else { return Ok(0) };
    let events: Vec<mysql_async::Row> = conn
        .query(format!("SHOW BINLOG EVENTS IN '{file}'"))
        .await?;
    let kinds = events
        .iter()
        .filter_map(|row| row.get::<String, _>("Event_type"));
    Ok(kinds.filter(|kind| kind.contains("partial")).count())
}

/// Long enough that a part is shorter than the whole.
const PADDING: &str = "'padding', REPEAT('long ', 60)";

async fn documents_changed_in_parts_are_as_the_server_prints_them() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    let document = format!(
        "JSON_OBJECT('a', 1, 'bb', JSON_ARRAY(1, 2, JSON_OBJECT('c', 'd')), 'it\"s a \\\\ key', 0.5, '', TRUE, {PADDING})"
    );
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, j JSON NULL, n INT NULL, k JSON NULL, l JSON NOT NULL)".to_owned(),
            format!("INSERT INTO t VALUES (1, {document}, 1, {document}, {document})"),
            format!("INSERT INTO t VALUES (2, {document}, NULL, NULL, {document})"),
            format!("INSERT INTO t VALUES (3, NULL, NULL, {document}, '[]')"),
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let mut conn = session(&stage, "FULL").await?;
    let before = partial_events(&mut conn).await?;
    let updates = [
        "j = JSON_SET(j, '$.a', 2)",
        "j = JSON_SET(j, '$.new', 'value', '$.\"with space\"', NULL)",
        "j = JSON_SET(j, '$.bb[1]', 'two'), k = JSON_REMOVE(k, '$.a')",
        "j = JSON_SET(j, '$.bb[99]', 'appended'), l = JSON_SET(l, '$.bb[2].c', JSON_ARRAY(1, 'x'))",
        "j = JSON_SET(j, '$.bb[last]', 'last', '$.bb[0]', 'first')",
        "j = JSON_REMOVE(j, '$.bb[0]'), k = '{\"whole\": \"document\"}'",
        "j = JSON_REPLACE(j, '$.\"it\\\\\"s a \\\\\\\\ key\"', 'quoted')",
        "j = JSON_SET(j, '$.\"\"', 'empty key')",
        "l = JSON_SET(l, '$.decimal', CAST(1.50 AS DECIMAL(10,2)), '$.day', CAST('2024-02-29' AS DATE), \
         '$.at', CAST('2024-02-29 12:34:56.789' AS DATETIME(3)), '$.time', CAST('-12:34:56.789' AS TIME(3)))",
        "l = JSON_SET(l, '$.bytes', CAST('bytes' AS BINARY), '$.big', 18446744073709551615, '$.tiny', -1e-300)",
        "j = JSON_SET(j, '$.deep', JSON_OBJECT('a', JSON_OBJECT('b', JSON_ARRAY(JSON_OBJECT('c', 1)))))",
        "j = JSON_SET(j, '$.deep.a.b[0].c', 2, '$.deep.a.b[0].d', 3)",
        "j = JSON_REMOVE(j, '$.deep.a.b[0].c'), n = n + 1",
        "j = JSON_SET(j, '$.a[0]', 'of a scalar')",
        "j = JSON_SET(j, '$.a[1]', 'beside a scalar')",
        "j = JSON_SET(JSON_REMOVE(j, '$.bb'), '$.bb', JSON_ARRAY())",
        "j = JSON_SET(j, '$.bb[0]', 1), j = JSON_SET(j, '$.bb[1]', 2)",
        "j = JSON_SET(j, '$.ü', 'ä😀', '$.\"\\\\u0001\"', 'control')",
        "l = NULL, n = 5",
        "j = NULL, k = JSON_SET(k, '$.whole', 'd')",
        "n = NULL",
    ];
    for update in updates {
        // A NOT NULL column that is set to NULL by the way of an error is no update.
        if update.starts_with("l = NULL") {
            conn.query_drop("UPDATE t SET n = 5").await?;
            continue;
        }
        for id in 1..=3 {
            conn.query_drop(format!("UPDATE t SET {update} WHERE id = {id}"))
                .await?;
        }
    }
    let written = partial_events(&mut conn).await? - before;
    ensure!(written >= 20, "only {written} events held parts");
    // A new key takes the changed document along.
    conn.query_drop("UPDATE t SET id = id + 10, l = JSON_SET(l, '$.moved', id)")
        .await?;
    drop(conn);
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

async fn documents_changed_at_random_are_as_the_server_prints_them() -> Result<()> {
    let seed = Seed::new("documents_changed_at_random_are_as_the_server_prints_them");
    let mut random = seed.generator(0);
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, j JSON, v VARCHAR(9), k JSON)")
        .await?;
    let mut conn = session(&stage, "FULL").await?;
    for _ in 0..8 {
        conn.query_drop(format!(
            "INSERT INTO t (j, k) VALUES (JSON_OBJECT('a', 1, {PADDING}), JSON_OBJECT('b', JSON_ARRAY(), {PADDING}))"
        ))
        .await?;
    }
    let mut pipe = running(&stage, &["t"]).await?;
    let before = partial_events(&mut conn).await?;
    for _ in 0..UPDATES {
        let id = random.random_range(1..=8);
        let first = format!("j = {}", change(&mut random, "j"));
        let second = match random.random_range(0..4) {
            0 => format!(", k = {}", change(&mut random, "k")),
            1 => ", v = 'other'".to_owned(),
            _ => String::new(),
        };
        // Some paths cannot be: the same statement then changes nothing.
        conn.query_drop(format!(
            "UPDATE IGNORE t SET {first}{second} WHERE id = {id}"
        ))
        .await?;
    }
    let written = partial_events(&mut conn).await? - before;
    ensure!(
        written > UPDATES as usize / 4,
        "only {written} of {UPDATES} updates were written in parts"
    );
    drop(conn);
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

/// One to three changes of a column, in one call or nested.
fn change(random: &mut StdRng, column: &str) -> String {
    let mut expression = column.to_owned();
    for _ in 0..random.random_range(1..4) {
        let path = path(random);
        expression = match random.random_range(0..6) {
            0 => format!("JSON_REMOVE({expression}, '{path}')"),
            1 => format!("JSON_REPLACE({expression}, '{path}', {})", value(random)),
            _ => format!("JSON_SET({expression}, '{path}', {})", value(random)),
        };
    }
    expression
}

fn path(random: &mut StdRng) -> String {
    let mut path = "$".to_owned();
    for _ in 0..random.random_range(1..4) {
        path += [
            ".a",
            ".b",
            ".cc",
            ".\"two words\"",
            ".\"q\\\\\"uote\"",
            ".ü",
            ".\"\"",
            "[0]",
            "[1]",
            "[7]",
            "[last]",
            "[last-1]",
        ][random.random_range(0..12)];
    }
    path
}

fn value(random: &mut StdRng) -> &'static str {
    [
        "1",
        "-70000",
        "18446744073709551615",
        "0.1e0",
        "CAST(12.340 AS DECIMAL(10,3))",
        "NULL",
        "TRUE",
        "'text'",
        "REPEAT('y', 200)",
        "JSON_ARRAY()",
        "JSON_OBJECT()",
        "JSON_ARRAY(1, 2, 'three')",
        "JSON_OBJECT('a', JSON_ARRAY(JSON_OBJECT('b', 1)), 'cc', 2)",
        "CAST('2024-01-01' AS DATE)",
        "CAST('10:11:12.131415' AS TIME(6))",
        "CAST(X'00FF' AS BINARY)",
        "'ü 😀 \\\" \\\\\\\\'",
    ][random.random_range(0..17)]
}

async fn with_document(stage: &Stage) -> Result<()> {
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, j JSON, a INT, k JSON)".to_owned(),
            format!("INSERT INTO t VALUES (1, JSON_OBJECT('a', 1, {PADDING}), 1, JSON_OBJECT('b', 2, {PADDING}))"),
        ])
        .await
}

/// pitfall 26: rows that were there before their column have a document of no bytes.
async fn a_document_that_the_server_keeps_without_a_byte_is_null() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    let added = |table: &str| format!("ALTER TABLE {table} ADD COLUMN j JSON NOT NULL");
    for table in ["loaded", "streamed"] {
        stage
            .source
            .execute_all([
                format!("CREATE TABLE {table} (id INT PRIMARY KEY, a INT)"),
                format!("INSERT INTO {table} VALUES (1, 1), (2, 2), (3, 3)"),
            ])
            .await?;
    }
    stage.source.execute(added("loaded")).await?;
    let mut pipe = running(&stage, &["loaded", "streamed"]).await?;
    assert_caught_up(&stage, &mut pipe, &["loaded", "streamed"]).await?;
    stage.source.execute(added("streamed")).await?;
    for table in ["loaded", "streamed"] {
        let update = format!("UPDATE {table} SET a = a + 10 WHERE id < 3");
        let delete = format!("DELETE FROM {table} WHERE id = 2");
        stage.source.execute_all([update, delete]).await?;
        let empty = format!("SELECT COUNT(*) FROM {table} WHERE JSON_STORAGE_SIZE(j) = 0");
        ensure!(
            stage.source.number(empty).await? == 2,
            "documents of {table} have bytes"
        );
    }
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    for table in ["loaded", "streamed"] {
        stage.assert_same(table).await?;
        let sql = format!(
            "SELECT countIf(j = 'null' AND (a = 11 OR a = 3)) FROM `{}`.{table}_current",
            stage.database
        );
        ensure!(stage.clickhouse.number(&sql).await? == 2, "{table}");
    }
    Ok(())
}

async fn a_document_that_no_image_holds_is_completed() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    with_document(&stage).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["row_image"] = json!("complete");
    let mut pipe = running_with(&file).await?;
    // NOBLOB leaves out BLOB and TEXT only: its before images have the documents.
    for image in ["NOBLOB", "MINIMAL"] {
        let mut conn = session(&stage, image).await?;
        conn.query_drop("UPDATE t SET j = JSON_SET(j, '$.a', 'changed')")
            .await?;
        conn.query_drop(format!(
            "UPDATE t SET k = JSON_SET(k, '$.{image}', 1), a = a + 1"
        ))
        .await?;
        conn.query_drop("UPDATE t SET id = id + 1, j = JSON_REMOVE(j, '$.a')")
            .await?;
        conn.query_drop("UPDATE t SET j = JSON_SET(j, '$.a', 1)")
            .await?;
        drop(conn);
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    }
    Ok(())
}

async fn a_document_that_no_image_holds_is_refused_by_name() -> Result<()> {
    let stage = Stage::shared(SourceKind::MySql).await?;
    with_document(&stage).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let mut conn = session(&stage, "MINIMAL").await?;
    conn.query_drop("UPDATE t SET j = JSON_SET(j, '$.a', 'changed')")
        .await?;
    drop(conn);
    let status = pipe.wait_state("Degraded", CATCH_UP).await?.to_string();
    ensure!(
        status.contains("leaves out") && status.contains("binlog_row_image"),
        "{status}"
    );
    Ok(())
}
