//! What plugins made of a row, when the row or the table becomes another.

use anyhow::Result;
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::Comparison;

use super::{people, through};
use crate::support::{CATCH_UP, on_both_sources, running_with, wait_answer};

on_both_sources! {
    route_leaves_no_row_behind_where_the_table_is_ordered_by_more_than_its_key: 300,
    what_a_plugin_has_made_of_earlier_rows_is_made_anew_where_its_columns_change: 300,
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
