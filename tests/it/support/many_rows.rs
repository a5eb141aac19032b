//! Tables with so many rows that a load of them takes a while.

use anyhow::Result;
use testbed::harness::Stage;

/// Makes a table of 2 to the power of `doublings` rows, whose `column`, with its type, is `value` in all of them; the key
/// `id` counts by itself. The server has its statistics: without them it takes the table for empty, and it would be one
/// partition.
pub(crate) async fn table_of_many_rows(
    stage: &Stage,
    table: &str,
    (column, value): (&str, &str),
    doublings: u32,
) -> Result<()> {
    let name = column.split(' ').next().unwrap_or(column);
    stage
        .source
        .execute_all([
            format!("CREATE TABLE {table} (id INT AUTO_INCREMENT PRIMARY KEY, {column})"),
            format!("INSERT INTO {table} ({name}) VALUES ({value})"),
        ])
        .await?;
    double(stage, table, name, doublings).await
}

/// Gives a table twice its rows, so many times, and the server its statistics. `columns` are those that every row needs; the
/// key counts by itself.
pub(crate) async fn double(stage: &Stage, table: &str, columns: &str, times: u32) -> Result<()> {
    let double = format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM {table}");
    for _ in 0..times {
        stage.source.execute(&double).await?;
    }
    stage.source.execute(format!("ANALYZE TABLE {table}")).await
}

/// Makes the table `fixed` of that many rows, which nobody writes into, beside the workload's `people` that has as many.
pub(crate) async fn fixed_rows(stage: &Stage, row_count: u64) -> Result<()> {
    stage
        .source
        .execute_all([
            "CREATE TABLE fixed (id INT PRIMARY KEY, a INT)".to_owned(),
            format!("INSERT INTO fixed SELECT id, id FROM people WHERE id <= {row_count}"),
        ])
        .await
}
