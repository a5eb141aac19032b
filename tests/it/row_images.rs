//! Row images that leave columns out: refused by name, or completed from the source, and never NULL by mistake
//! (pitfalls 44 and 45).

use anyhow::{Context, Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rand::Rng;
use serde_json::{Value, json};
use testbed::harness::{Comparison, Pipe, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::definitions::identity;
use crate::support::{
    CATCH_UP, START, Seed, assert_caught_up, assert_stream_survives_kills, filtered, launch,
    on_all_sources, on_both_sources, plugins, running, running_with, start,
};

const IMAGES: [&str; 2] = ["MINIMAL", "NOBLOB"];

on_all_sources! {
    rows_of_partial_images_are_completed: 300,
}

on_both_sources! {
    rows_are_read_by_keys_of_every_type: 240,
    rows_read_long_after_their_event_converge: 300,
    many_rows_are_completed_in_several_selects: 300,
    a_session_with_partial_images_is_refused_by_name: 240,
    a_key_that_the_image_leaves_out_is_refused_by_name: 240,
    a_changed_definition_is_no_row: 240,
    a_row_read_behind_statements_has_no_value_of_another_column: 300,
    plugins_see_whole_rows_where_images_are_partial: 300,
    a_plugin_that_sends_rows_elsewhere_takes_no_partial_images: 240,
    a_stream_of_minimal_images_killed_at_random_moments_converges: 300,
}

fn completing(stage: &Stage, tables: &[&str]) -> Value {
    let mut file = stage.pipe_file(tables);
    file["row_image"] = json!("complete");
    file
}

async fn session(stage: &Stage, image: &str) -> Result<Conn> {
    let mut conn = stage.source.connect().await?;
    conn.query_drop(format!("SET SESSION binlog_row_image = '{image}'"))
        .await?;
    Ok(conn)
}

async fn run(conn: &mut Conn, statements: &[&str]) -> Result<()> {
    for statement in statements {
        conn.query_drop(*statement).await?;
    }
    Ok(())
}

/// The pipe has failed, and says all of this.
async fn assert_failed(pipe: &mut Pipe, said: &[&str]) -> Result<()> {
    let status = pipe.wait_state("Degraded", CATCH_UP).await?.to_string();
    for text in said {
        ensure!(status.contains(text), "no `{text}` in {status}");
    }
    Ok(())
}

const TABLE: &str = "CREATE TABLE t (id INT NOT NULL, part SMALLINT UNSIGNED NOT NULL DEFAULT 3, \
     name VARCHAR(40) CHARACTER SET latin1 NULL DEFAULT 'ünnamed', amount DECIMAL(12,3) NOT NULL DEFAULT -1.5, \
     at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), state ENUM('a','b','c') NOT NULL DEFAULT 'b', \
     note TEXT NULL, code BINARY(4) NOT NULL DEFAULT 'abc', data LONGBLOB NULL, doc JSON NULL, big BIGINT UNSIGNED NULL DEFAULT 18446744073709551615, \
     twice INT GENERATED ALWAYS AS (id * 2) VIRTUAL, label VARCHAR(60) GENERATED ALWAYS AS (CONCAT(state, '-', id)) STORED, \
     PRIMARY KEY (id, part))";

async fn rows_of_partial_images_are_completed(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage.source.execute(TABLE).await?;
    stage
        .source
        .execute(
            "INSERT INTO t (id, part, note, data, doc) VALUES (1, 1, 'loaded', X'00FF', '{\"a\": 1}'), \
             (2, 1, NULL, NULL, NULL), (3, 1, 'x', X'', '[]')",
        )
        .await?;
    let mut file = completing(&stage, &["t"]);
    // No tombstone has a value of that length to show.
    file["tables"][0]["columns"] = json!({ "code": { "type": "FixedString(4)" } });
    let mut pipe = running_with(&file).await?;
    for (index, image) in IMAGES.iter().enumerate() {
        let mut conn = session(&stage, image).await?;
        let from = 100 * (index + 1);
        // Defaults that the image leaves out; all of them, some of them, an expression among them.
        conn.query_drop(format!(
            "INSERT INTO t (id, part) VALUES ({from}, 1), ({from}, 2), ({}, 1)",
            from + 1
        ))
        .await?;
        conn.query_drop(format!(
            "INSERT INTO t (id, part, name, note) VALUES ({}, 1, NULL, NULL)",
            from + 2
        ))
        .await?;
        conn.query_drop(format!("INSERT INTO t (id, part, data, doc) VALUES ({}, 1, REPEAT('d', 5000), '{{\"k\": [1.5]}}')", from + 3)).await?;
        // NULL on purpose beside columns that do not change.
        run(
            &mut conn,
            &[
                "UPDATE t SET name = NULL WHERE id = 1",
                "UPDATE t SET amount = amount + 1 WHERE id = 2",
                "UPDATE t SET note = 'changed', data = NULL WHERE id = 3",
                "UPDATE t SET doc = '{\"b\": \"ü\"}' WHERE id = 2",
            ],
        )
        .await?;
        // The key changes, wholly and in part, alone and with others; and back in one transaction.
        run(
            &mut conn,
            &[
                "UPDATE t SET id = id + 1000 WHERE id = 1",
                "UPDATE t SET part = part + 1, state = 'c' WHERE id = 2",
                "START TRANSACTION",
                "UPDATE t SET id = 77 WHERE id = 3",
                "UPDATE t SET note = 'on the way' WHERE id = 77",
                "UPDATE t SET id = 3 WHERE id = 77",
                "COMMIT",
            ],
        )
        .await?;
        // Several changes of one row, a row that is gone before anyone can read it, one that comes back.
        conn.query_drop("START TRANSACTION").await?;
        for n in 0..5 {
            conn.query_drop(format!(
                "UPDATE t SET amount = {n}, note = 'step {n}' WHERE id = {from} AND part = 2"
            ))
            .await?;
        }
        conn.query_drop("COMMIT").await?;
        conn.query_drop(format!("UPDATE t SET amount = 9 WHERE id = {}", from + 1))
            .await?;
        conn.query_drop(format!("DELETE FROM t WHERE id = {}", from + 1))
            .await?;
        conn.query_drop(format!("DELETE FROM t WHERE id = {}", from + 2))
            .await?;
        conn.query_drop(format!(
            "INSERT INTO t (id, part, name) VALUES ({}, 1, 'back')",
            from + 2
        ))
        .await?;
        run(&mut conn, &["UPDATE t SET id = id - 1000 WHERE id = 1001"]).await?;
        drop(conn);
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    }
    // Whole images again, among rows that were completed.
    stage
        .source
        .execute("UPDATE t SET amount = amount * 2, id = id + 10000")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let table = &pipe.status().await?["tables"][0];
    let changed = table["columns"].as_array();
    ensure!(
        changed.is_none_or(Vec::is_empty),
        "no policy had a say: {table}"
    );
    Ok(())
}

async fn rows_are_read_by_keys_of_every_type(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let keys: &[(&str, &[&str])] = &[
        ("TINYINT", &["-128", "0", "127"]),
        ("MEDIUMINT", &["-8388608", "-1", "8388607"]),
        (
            "BIGINT UNSIGNED",
            &["0", "9223372036854775808", "18446744073709551615"],
        ),
        (
            "DECIMAL(30,10)",
            &["-12345678901234567890.0123456789", "0", "1.5"],
        ),
        (
            "DOUBLE",
            &["-1.7976931348623157e308", "0.1", "123456789.12345679"],
        ),
        ("FLOAT", &["0.1", "16777216", "-3.4028234e38"]),
        ("BIT(33)", &["b'0'", "b'100000000000000000000000000000001'"]),
        ("YEAR", &["1901", "2024", "2155", "0"]),
        ("DATE", &["'1900-01-01'", "'2024-02-29'"]),
        (
            "TIME(3)",
            &["'-838:59:58.999'", "'-00:00:00.001'", "'12:34:56.789'"],
        ),
        (
            "DATETIME(6)",
            &[
                "'1000-01-01 00:00:00.000001'",
                "'2024-02-29 23:59:59.999999'",
            ],
        ),
        (
            "TIMESTAMP(6)",
            &["'1970-01-01 00:00:01.000001'", "'2038-01-19 03:14:07'"],
        ),
        (
            "VARCHAR(20) CHARACTER SET utf8mb4",
            &["'😀 it''s \\\\'", "''", "'a'"],
        ),
        ("VARCHAR(20) CHARACTER SET latin1", &["'é'", "'plain'"]),
        ("CHAR(10) CHARACTER SET ucs2", &["'ä€'", "'a '"]),
        ("BINARY(4)", &["X'01000000'", "X'00000000'", "X'FF'"]),
        ("VARBINARY(8)", &["X''", "X'00'", "X'0000'"]),
        ("ENUM('b','a','c')", &["'a'", "'b'", "'c'"]),
        ("SET('x','y','z')", &["''", "'x,z'", "'y'"]),
    ];
    let mut tables = Vec::new();
    let mut conn = session(&stage, "MINIMAL").await?;
    conn.query_drop("SET sql_mode = ''").await?;
    for (n, (definition, literals)) in keys.iter().enumerate() {
        for (name, key) in [("single", "k"), ("pair", "k, n")] {
            let table = format!("{name}_{n}");
            conn.query_drop(format!(
                "CREATE TABLE {table} (v INT DEFAULT 7, k {definition} NOT NULL, n INT NOT NULL, w VARCHAR(9) DEFAULT 'd', PRIMARY KEY ({key}))"
            ))
            .await?;
            for (row, literal) in literals.iter().enumerate() {
                conn.query_drop(format!(
                    "INSERT INTO {table} (k, n) VALUES ({literal}, {row})"
                ))
                .await?;
            }
            tables.push(table);
        }
    }
    let names: Vec<&str> = tables.iter().map(String::as_str).collect();
    let mut pipe = running_with(&completing(&stage, &names)).await?;
    for table in &names {
        conn.query_drop(format!("UPDATE {table} SET v = v + n"))
            .await?;
    }
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    for table in &names {
        stage.assert_same(table).await?;
        conn.query_drop(format!("DELETE FROM {table} WHERE n = 1"))
            .await?;
        conn.query_drop(format!("UPDATE {table} SET w = NULL"))
            .await?;
    }
    assert_caught_up(&stage, &mut pipe, &names).await
}

/// Whatever was done while nobody looked is there when the first event is read: rows newer than their event, or gone.
async fn rows_read_long_after_their_event_converge(kind: SourceKind) -> Result<()> {
    let seed = Seed::new("rows_read_long_after_their_event_converge");
    let mut random = seed.generator(0);
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute("CREATE TABLE t (id VARCHAR(10) PRIMARY KEY, a INT NOT NULL, b TEXT NULL, c INT NULL DEFAULT 4)")
        .await?;
    let mut file = completing(&stage, &["t"]);
    file["sync"] = json!({ "interval": "10ms", "max_rows": 3 });
    let mut pipe = running_with(&file).await?;
    let mut conn = session(&stage, "MINIMAL").await?;
    for round in 0..4 {
        let (code, answer) = pipe.command("pause").await?;
        ensure!(code == 200, "{answer}");
        pipe.wait_state("Paused", CATCH_UP).await?;
        for n in 0..150 {
            let id = random.random_range(0..12);
            let other = random.random_range(0..12);
            let statement = match random.random_range(0..9) {
                0 | 1 => format!("INSERT IGNORE INTO t (id, a) VALUES ('k{id}', {n})"),
                2 => format!("DELETE FROM t WHERE id = 'k{id}'"),
                3 => format!("UPDATE IGNORE t SET id = 'k{other}' WHERE id = 'k{id}'"),
                4 => format!("UPDATE t SET id = UPPER(id) WHERE id = 'k{id}'"),
                5 => format!("UPDATE t SET id = LOWER(id), b = NULL WHERE id = 'k{id}'"),
                6 => format!("UPDATE t SET b = 'round {round} {n}' WHERE id = 'k{id}'"),
                7 => format!("REPLACE INTO t (id, a, c) VALUES ('K{id}', {n}, NULL)"),
                _ => format!("UPDATE t SET a = a + 1 WHERE id = 'k{id}'"),
            };
            conn.query_drop(statement).await?;
        }
        let (code, answer) = pipe.command("resume").await?;
        ensure!(code == 200, "{answer}");
        pipe.wait_state("Running", START).await?;
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    }
    Ok(())
}

async fn many_rows_are_completed_in_several_selects(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT NOT NULL, b VARCHAR(40) NOT NULL)",
            "CREATE TABLE digits (d INT PRIMARY KEY)",
            "INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)",
            "INSERT INTO t SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d, 1, CONCAT('row ', a.d, b.d, c.d, e.d) \
             FROM digits a, digits b, digits c, digits e WHERE e.d < 5",
        ])
        .await?;
    let mut pipe = running_with(&completing(&stage, &["t"])).await?;
    let mut conn = session(&stage, "MINIMAL").await?;
    run(
        &mut conn,
        &[
            "UPDATE t SET a = a + id",
            "UPDATE t SET b = 'even' WHERE id % 2 = 0",
        ],
    )
    .await?;
    drop(conn);
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    ensure!(stage.assert_same("t").await? == 5000);
    Ok(())
}

async fn a_session_with_partial_images_is_refused_by_name(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT, unchanged INT)",
            "INSERT INTO t VALUES (1, 1, 1)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let mut conn = session(&stage, "MINIMAL").await?;
    run(&mut conn, &["UPDATE t SET a = 2"]).await?;
    let table = format!("{}.t", stage.database);
    assert_failed(&mut pipe, &[&table, "leaves out", "binlog_row_image"]).await
}

async fn a_key_that_the_image_leaves_out_is_refused_by_name(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, tenant INT NOT NULL, a INT)",
            "INSERT INTO t VALUES (1, 1, 1)",
        ])
        .await?;
    let entry = json!({ "source": format!("{}.t", stage.database), "order_by": ["tenant", "id"] });
    let mut file = stage.pipe_file_of(vec![entry]);
    file["row_image"] = json!("complete");
    let mut pipe = running_with(&file).await?;
    let mut conn = session(&stage, "MINIMAL").await?;
    run(&mut conn, &["UPDATE t SET a = 2"]).await?;
    assert_failed(&mut pipe, &["tenant", "leaves out", "binlog_row_image"]).await
}

/// A definition that changed behind the event's back: the answer has other types than the decoders read.
async fn a_changed_definition_is_no_row(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT NOT NULL, b INT NOT NULL)",
            "INSERT INTO t VALUES (1, 1, 1)",
        ])
        .await?;
    let mut pipe = running_with(&completing(&stage, &["t"])).await?;
    let (code, answer) = pipe.command("pause").await?;
    ensure!(code == 200, "{answer}");
    pipe.wait_state("Paused", CATCH_UP).await?;
    let mut conn = session(&stage, "MINIMAL").await?;
    run(
        &mut conn,
        &[
            "UPDATE t SET a = 2",
            // Four bytes as before, and not one of them means the same.
            "ALTER TABLE t MODIFY b FLOAT NOT NULL",
        ],
    )
    .await?;
    pipe.command("resume").await?;
    assert_failed(&mut pipe, &["`b`", "type"]).await
}

/// By the names that it had at its event a row is read behind all statements, when these stand for other columns.
async fn a_row_read_behind_statements_has_no_value_of_another_column(
    kind: SourceKind,
) -> Result<()> {
    const TABLES: [&str; 3] = ["named_anew", "exchanged", "kept"];
    let stage = Stage::shared(kind).await?;
    for table in TABLES {
        stage
            .source
            .execute_all([
                format!(
                    "CREATE TABLE {table} (id INT PRIMARY KEY, a INT NOT NULL, b INT NOT NULL, c INT NOT NULL)"
                ),
                format!("INSERT INTO {table} VALUES (1, 10, 11, 12), (7, 70, 71, 72)"),
            ])
            .await?;
    }
    let mut pipe = running_with(&completing(&stage, &TABLES)).await?;
    let mut conn = session(&stage, "MINIMAL").await?;
    run(&mut conn, &["UPDATE kept SET c = 1 WHERE id = 7"]).await?;
    assert_caught_up(&stage, &mut pipe, &TABLES).await?;
    let before = identity(&stage, "kept").await?;
    let (code, answer) = pipe.command("pause").await?;
    ensure!(code == 200, "{answer}");
    pipe.wait_state("Paused", CATCH_UP).await?;
    run(
        &mut conn,
        &[
            "UPDATE named_anew SET c = 1 WHERE id = 7",
            "UPDATE exchanged SET c = 1 WHERE id = 7",
            "ALTER TABLE named_anew RENAME COLUMN a TO x",
            "ALTER TABLE named_anew ADD COLUMN a INT NOT NULL DEFAULT 0",
            "ALTER TABLE exchanged RENAME COLUMN a TO b, RENAME COLUMN b TO a",
            // Nothing was read behind these.
            "ALTER TABLE kept RENAME COLUMN a TO x",
            "ALTER TABLE kept ADD COLUMN a INT NOT NULL DEFAULT 0",
        ],
    )
    .await?;
    let (code, answer) = pipe.command("resume").await?;
    ensure!(code == 200, "{answer}");
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &TABLES).await?;
    ensure!(
        identity(&stage, "kept").await? == before,
        "a table of which nothing was read behind its statements was loaded anew"
    );
    Ok(())
}

/// A table of people whose rows go through these plugins.
async fn through(stage: &Stage, transforms: &[(&str, Value)]) -> Result<Value> {
    stage
        .source
        .execute_all([
            "CREATE TABLE people (id INT PRIMARY KEY, email VARCHAR(100) NULL, age INT NULL DEFAULT 40, \
             note VARCHAR(30) NOT NULL DEFAULT 'none', town VARCHAR(30) NULL)",
            "INSERT INTO people VALUES (1, 'ada@example.com', 36, 'a', 'Rome'), (2, NULL, NULL, 'b', NULL), \
             (3, 'kid@example.com', 7, 'c', 'Bern'), (4, 'zoë@beispiel.de', 18, 'd', 'Köln')",
        ])
        .await?;
    let names: Vec<&str> = transforms.iter().map(|(plugin, _)| *plugin).collect();
    let mut file = completing(stage, &["people"]);
    file["tables"][0]["transforms"] = json!(names);
    for (plugin, config) in transforms {
        file["transforms"][*plugin] =
            json!({ "plugin": plugins().await?.path(plugin), "config": config });
    }
    Ok(file)
}

async fn plugins_see_whole_rows_where_images_are_partial(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let condition = "age >= 18 OR age IS NULL";
    let mask = json!({ "columns": ["email"], "method": "sha256", "salt": "pepper" });
    let transforms = [("filter", json!({ "where": condition })), ("mask", mask)];
    let mut pipe = running_with(&through(&stage, &transforms).await?).await?;
    let expected = Comparison::of("people")
        .text_is("email", "SHA2(CONCAT('pepper', email), 256)")
        .only_where(condition);
    ensure!(stage.assert(expected.clone()).await? == 3);
    let mut conn = session(&stage, "MINIMAL").await?;
    for statements in [
        // No column that a plugin reads; of a row that the filter drops as well.
        [
            "UPDATE people SET note = CONCAT(note, '!')",
            "UPDATE people SET town = NULL WHERE id = 1",
        ],
        // The defaults are left out, which the filter and the mask read.
        [
            "INSERT INTO people (id, town) VALUES (5, 'Ulm')",
            "INSERT INTO people (id, age) VALUES (6, 5)",
        ],
        // What the mask reads, alone, and what the filter reads: one begins to match and another ceases to.
        [
            "UPDATE people SET email = CONCAT(id, '@new.example') WHERE id <> 1",
            "UPDATE people SET email = NULL WHERE id = 4",
        ],
        [
            "UPDATE people SET age = 18 WHERE id = 3",
            "UPDATE people SET age = 17 WHERE id = 4",
        ],
        // Keys of a row that matches, of one that does not, and of one that begins to on the way.
        [
            "UPDATE people SET id = 10 WHERE id = 1",
            "UPDATE people SET id = 60 WHERE id = 6",
        ],
        [
            "UPDATE people SET id = 40, age = NULL WHERE id = 4",
            "UPDATE people SET id = 50, age = 1 WHERE id = 5",
        ],
        [
            "DELETE FROM people WHERE id = 10",
            "DELETE FROM people WHERE id = 60",
        ],
        // Nothing of the row is left to read.
        [
            "UPDATE people SET note = 'last' WHERE id = 2",
            "DELETE FROM people WHERE id = 2",
        ],
    ] {
        run(&mut conn, &statements).await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        let compared = stage.assert(expected.clone()).await;
        compared.with_context(|| statements.join("; "))?;
    }
    // Whatever was read again went through the mask as well, in old versions and tombstones too.
    let leaks = format!(
        "SELECT count() FROM `{}`.people WHERE position(email, '@') > 0",
        stage.database
    );
    ensure!(stage.clickhouse.number(&leaks).await? == 0);
    Ok(())
}

/// Which target a row was in is known from its image before the change alone.
async fn a_plugin_that_sends_rows_elsewhere_takes_no_partial_images(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let routes = json!({ "routes": [{ "when": "age >= 18", "to": "adults" }] });
    let mut file = through(&stage, &[("route", routes)]).await?;
    let people = format!("{}.people", stage.database);
    let said = [
        people.as_str(),
        "images before changes must be whole",
        "binlog_row_image = FULL",
        "row_image: refuse",
    ];
    let mut pipe = start(launch(&file))?;
    let code = pipe.wait_exit(START).await?;
    ensure!(code == 1, "Setup let it through: {code}");
    let printed = pipe.log().tail();
    let path = pipe.path().display().to_string();
    let validated = pipe.cli(&["validate", &path, "--online"]).await?;
    ensure!(validated.code != 0, "{validated:?}");
    for text in said {
        ensure!(printed.contains(text), "no `{text}` in {printed}");
        let told = &validated.stderr;
        ensure!(told.contains(text), "no `{text}` in {told}");
    }
    // As the hint says.
    file["row_image"] = json!("refuse");
    pipe.change_file(&file);
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    let age = "UPDATE people SET age = 17 WHERE id = 4";
    stage.source.execute(age).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let adults = Comparison::of("people").target("adults");
    stage.assert(adults.only_where("age >= 18")).await?;
    let others = Comparison::of("people").only_where("age < 18 OR age IS NULL");
    stage.assert(others).await.map(drop)
}

async fn a_stream_of_minimal_images_killed_at_random_moments_converges(
    kind: SourceKind,
) -> Result<()> {
    let seed = Seed::new("a_stream_of_minimal_images_killed_at_random_moments_converges");
    let stage = Stage::with_source(move || {
        SourceServer::start(SourceOptions::new(kind).arg("--binlog-row-image=MINIMAL"))
    })
    .await?;
    let mut file = filtered(&stage).await?;
    file["row_image"] = json!("complete");
    assert_stream_survives_kills(&stage, &file, seed).await
}
