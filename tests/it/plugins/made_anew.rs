//! What plugins made of a row, when the row or the table becomes another.

use anyhow::Result;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::Comparison;

use super::{TAKEN_UP, people, sent_and_killed, through, wait_told};
use crate::support::{CATCH_UP, on_both_sources, once, running_with, wait_answer};

on_both_sources! {
    route_leaves_no_row_behind_where_the_table_is_ordered_by_more_than_its_key: 300,
    what_a_plugin_has_made_of_earlier_rows_is_made_anew_where_its_columns_change: 300,
    rows_go_where_what_a_plugin_in_front_makes_of_them_says: 300,
}

once! {
    what_was_sent_passes_once_more_as_it_did_whatever_its_plugins_are_told_now: 300,
}

async fn route_leaves_no_row_behind_where_the_table_is_ordered_by_more_than_its_key(
    kind: SourceKind,
) -> Result<()> {
    let stage = people(kind).await?;
    let routes = json!([{ "when": "age >= 18", "to": "adults" }]);
    let by_age = ("by_age", "route", json!({ "routes": routes }));
    let mut file = through(&stage, &[by_age]).await?;
    file["tables"][0]["order_by"] = json!(["name", "id"]);
    let mut pipe = running_with(&file).await?;
    for statement in [
        "UPDATE people SET name = CONCAT(name, ' II')",
        "UPDATE people SET name = 'Grown', age = 20 WHERE id = 4",
        "UPDATE people SET name = 'Young', age = 2 WHERE id IN (4, 5)",
        "DELETE FROM people WHERE id = 5",
    ] {
        stage.source.execute(statement).await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        let adults = Comparison::of("people").target("adults");
        stage.assert(adults.only_where("age >= 18")).await?;
        let others = Comparison::of("people").only_where("age < 18 OR age IS NULL");
        stage.assert(others).await?;
    }
    Ok(())
}

async fn rows_go_where_what_a_plugin_in_front_makes_of_them_says(kind: SourceKind) -> Result<()> {
    let stage = people(kind).await?;
    // A name that is no number is a row that fails in front.
    let made = json!({ "columns": { "kind": "if(age >= 18, 'adult', 'child')" } });
    let checked = json!({ "columns": { "name": "CAST(CAST(name AS int64) AS text)" } });
    let routes = json!({ "routes": [{ "when": "kind = 'adult'", "to": "adults" }] });
    let steps = [
        ("made", "compute", made),
        ("checked", "compute", checked),
        ("by_kind", "route", routes),
    ];
    let mut file = through(&stage, &steps).await?;
    file["transforms"]["checked"]["on_error"] = json!("skip");
    stage
        .source
        .execute("UPDATE people SET name = id WHERE id < 5")
        .await?;
    let mut pipe = running_with(&file).await?;
    let is_whole = async |numbers: &str| -> Result<()> {
        let adults = Comparison::of("people").target("adults");
        let of_adults = format!("age >= 18 AND name REGEXP '{numbers}'");
        stage.assert(adults.only_where(&of_adults)).await?;
        let of_others = format!("(age < 18 OR age IS NULL) AND name REGEXP '{numbers}'");
        let others = Comparison::of("people").only_where(&of_others);
        stage.assert(others).await.map(drop)
    };
    is_whole("^[0-9]+$").await?;
    for (number, statement) in [
        "INSERT INTO people VALUES (6, NULL, '6', 20), (7, NULL, '7', 5), (8, NULL, 'eight', 50)",
        "UPDATE people SET age = 18 WHERE id IN (4, 8)",
        "UPDATE people SET age = 3, name = '33' WHERE id = 1",
        // Fails from now on, and no more.
        "UPDATE people SET name = 'six' WHERE id = 6",
        "UPDATE people SET name = '88' WHERE id = 8",
        "UPDATE people SET id = id + 100 ORDER BY id DESC",
        "ALTER TABLE people ADD COLUMN town VARCHAR(30) NOT NULL DEFAULT 'none'",
        "UPDATE people SET age = 70, town = 'Paris' WHERE id IN (106, 107)",
        "DELETE FROM people WHERE id IN (102, 108)",
    ]
    .into_iter()
    .enumerate()
    {
        stage.source.execute(statement).await?;
        if number % 3 == 0 {
            pipe.kill9()?;
            pipe.restart()?;
        }
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        is_whole("^[0-9]+$").await?;
    }
    Ok(())
}

/// A chain, with a granted file and a policy, of which the pipe file and the disk have only other ones any more.
async fn what_was_sent_passes_once_more_as_it_did_whatever_its_plugins_are_told_now() -> Result<()>
{
    let stage = people(SourceKind::MySql).await?;
    let folder = tempfile::tempdir()?;
    let emails = folder.path().join("emails.csv");
    std::fs::write(&emails, "person,address\n7,seven@example.com\n")?;
    let numbers = |name: &str| json!({ "columns": { "name": name } });
    let looked_up = json!({
        "file": "emails", "column": "name", "key": "person", "add": { "address": "address" },
    });
    let through_both = async |name: &str| -> Result<Value> {
        let steps = [
            ("numbers", "compute", numbers(name)),
            ("emails", "lookup", looked_up.clone()),
        ];
        let mut file = through(&stage, &steps).await?;
        file["transforms"]["emails"]["grants"] = json!({ "lookup": { "emails": emails } });
        Ok(file)
    };
    let mut before = through_both("CAST(CAST(name AS int64) AS text)").await?;
    // A row that fails is passed over; from now on it would take its table out of service.
    before["transforms"]["numbers"]["on_error"] = json!("skip");
    let after = through_both("concat('now ', name)").await?;
    let mut pipe = running_with(&before).await?;
    let insert = "INSERT INTO people VALUES (20, NULL, '7', 1), (21, NULL, 'no number', 1)";
    sent_and_killed(&stage, &mut pipe, insert).await?;
    pipe.change_file(&after);
    std::fs::write(&emails, "person,address\nnow 7,other@example.com\n")?;
    pipe.restart()?;
    wait_told(&pipe, TAKEN_UP).await?;
    stage
        .source
        .execute("INSERT INTO people VALUES (22, NULL, '7', 1)")
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let shown = format!(
        "SELECT groupArray((id, address, name)) FROM (SELECT * FROM `{}`.people_current WHERE id >= 20 ORDER BY id)",
        stage.database
    );
    wait_answer(
        &stage,
        &shown,
        "[(20,'seven@example.com','7'),(22,'other@example.com','now 7')]",
    )
    .await
}

/// pitfall 115: no event tells what a plugin makes of a row now that has not changed.
async fn what_a_plugin_has_made_of_earlier_rows_is_made_anew_where_its_columns_change(
    kind: SourceKind,
) -> Result<()> {
    let stage = people(kind).await?;
    stage
        .source
        .execute("ALTER TABLE people ADD COLUMN price DECIMAL(10,2) NOT NULL DEFAULT 1.5")
        .await?;
    let columns = json!({ "label": "concat('EUR ', price)", "name": "'***'" });
    let compute = ("numbers", "compute", json!({ "columns": columns }));
    let mut pipe = running_with(&through(&stage, &[compute]).await?).await?;
    let current = format!("FROM `{}`.people_current", stage.database);
    for (statement, shown, wanted) in [
        (
            "ALTER TABLE people MODIFY price DECIMAL(12,3) NOT NULL",
            "SELECT uniqExact(label), any(label), countIf(name = '***')",
            "1\tEUR 1.500\t5",
        ),
        // What was hidden under its name is another column from now on.
        (
            "ALTER TABLE people RENAME COLUMN name TO full_name",
            "SELECT countIf(name = '***'), countIf(full_name = '***')",
            "5\t0",
        ),
    ] {
        stage.source.execute(statement).await?;
        stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
        pipe.wait_state("Running", CATCH_UP).await?;
        wait_answer(&stage, &format!("{shown} {current}"), wanted).await?;
    }
    stage.assert_no_load_left().await
}
