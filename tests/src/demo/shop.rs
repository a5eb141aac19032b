//! A small shop: its tables, the writer that keeps it busy, and the comparison at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use testbed::harness::{Comparison, Source, Stage};
use tokio::task::JoinHandle;

use super::say;

const CUSTOMERS: u32 = 20_000;
const ORDERS: u32 = 60_000;
const ITEMS: u32 = 120_000;

/// Rows of one INSERT.
const STEP: u32 = 5_000;

/// A pause between transactions: about two hundred a second.
const PAUSE: Duration = Duration::from_millis(4);

const FIRST_NAMES: [&str; 12] = [
    "ada", "ben", "chloé", "dmitri", "emma", "fatima", "george", "hana", "ivan", "jürgen", "kim",
    "lucía",
];

const TABLES: [&str; 3] = ["customers", "orders", "order_items"];

const CREATE: [&str; 3] = [
    "CREATE TABLE customers (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(80) NOT NULL, email VARCHAR(120) NOT NULL, \
     joined DATE NOT NULL)",
    "CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY, customer_id INT NOT NULL, \
     status ENUM('new','paid','sent','returned') NOT NULL DEFAULT 'new', total DECIMAL(10,2) NOT NULL, \
     created DATETIME(3) NOT NULL)",
    "CREATE TABLE order_items (order_id INT NOT NULL, line SMALLINT NOT NULL, sku VARCHAR(20) NOT NULL, \
     quantity INT NOT NULL, price DECIMAL(8,2) NULL, PRIMARY KEY (order_id, line))",
];

/// Makes and fills the tables; the number of rows.
pub(super) async fn fill(source: &Source) -> Result<u32> {
    source.execute_all(CREATE).await?;
    let customer = |n: u32| {
        let name = FIRST_NAMES[n as usize % FIRST_NAMES.len()];
        format!(
            "({}, '{name} no. {n}', '{name}.{n}@example.com', '2020-01-01' + INTERVAL {} DAY)",
            n + 1,
            n % 1500
        )
    };
    let order = |n: u32| {
        let status = ["new", "paid", "sent", "returned"][n as usize % 4];
        let created = format!("'2024-01-01' + INTERVAL {n} MINUTE");
        format!(
            "({}, {}, '{status}', {}.{:02}, {created})",
            n + 1,
            n % CUSTOMERS + 1,
            n % 900 + 5,
            n % 100
        )
    };
    let item = |n: u32| {
        format!(
            "({}, {}, 'sku-{:05}', {}, {}.99)",
            n / 2 + 1,
            n % 2 + 1,
            n % 4000,
            n % 5 + 1,
            n % 150 + 1
        )
    };
    insert(source, "customers", CUSTOMERS, &customer).await?;
    insert(source, "orders", ORDERS, &order).await?;
    insert(source, "order_items", ITEMS, &item).await?;
    Ok(CUSTOMERS + ORDERS + ITEMS)
}

async fn insert(
    source: &Source,
    table: &str,
    row_count: u32,
    row: &dyn Fn(u32) -> String,
) -> Result<()> {
    for from in (0..row_count).step_by(STEP as usize) {
        let rows: Vec<String> = (from..row_count.min(from + STEP)).map(row).collect();
        source
            .execute(format!("INSERT INTO {table} VALUES {}", rows.join(", ")))
            .await?;
    }
    Ok(())
}

/// Customers who go on shopping.
pub(super) struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<u64>>,
}

impl Writer {
    pub(super) fn start(source: &Source) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(write(source.clone(), Arc::clone(&stop)));
        Self { stop, task }
    }

    /// Ends the writer; how many transactions it has committed.
    pub(super) async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the writer panicked")?
    }
}

async fn write(source: Source, stop: Arc<AtomicBool>) -> Result<u64> {
    let mut generator = StdRng::from_os_rng();
    let mut conn = source.connect().await?;
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        conn.query_drop("START TRANSACTION").await?;
        for statement in transaction(&mut generator, written) {
            conn.query_drop(statement).await?;
        }
        conn.query_drop("COMMIT").await?;
        written += 1;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(written)
}

fn transaction(generator: &mut StdRng, number: u64) -> Vec<String> {
    let order = generator.random_range(1..=ORDERS);
    let customer = generator.random_range(1..=CUSTOMERS);
    let name = FIRST_NAMES[customer as usize % FIRST_NAMES.len()];
    match generator.random_range(0..10) {
        0..=3 => {
            let mut statements = vec![format!(
                "INSERT INTO orders (customer_id, total, created) VALUES ({customer}, 0, NOW(3))"
            )];
            for line in 1..=generator.random_range(1..4) {
                let sku = generator.random_range(0..4000);
                statements.push(format!("INSERT INTO order_items VALUES (LAST_INSERT_ID(), {line}, 'sku-{sku:05}', 1, 7.50)"));
            }
            statements
        }
        4..=6 => vec![format!(
            "UPDATE orders SET status = 'sent', total = total + 1 WHERE id = {order}"
        )],
        7 => vec![format!(
            "UPDATE customers SET email = '{name}.{number}@example.org' WHERE id = {customer}"
        )],
        8 => vec![format!(
            "INSERT INTO customers (name, email, joined) VALUES ('new {number}', 'new.{number}@example.net', CURDATE())"
        )],
        _ => vec![
            format!("DELETE FROM order_items WHERE order_id = {order}"),
            format!("DELETE FROM orders WHERE id = {order}"),
        ],
    }
}

/// Compares every value, and prints row counts of both ends and some customers side by side.
pub(super) async fn compare(stage: &Stage, salt: &str) -> Result<()> {
    say("");
    say(&format!(
        "  {:<14}{:>12}{:>12}",
        "table", "MariaDB", "ClickHouse"
    ));
    for table in TABLES {
        let comparison = match table {
            "customers" => Comparison::of(table)
                .text_is("email", &format!("SHA2(CONCAT('{salt}', email), 256)")),
            _ => Comparison::of(table),
        };
        stage.assert(comparison).await?;
        let here = stage
            .source
            .number(format!("SELECT COUNT(*) FROM {table}"))
            .await?;
        let there = stage
            .clickhouse
            .number(&format!("SELECT count() FROM shop.{table}_current"))
            .await?;
        say(&format!(
            "  {table:<14}{here:>12}{there:>12}   every value equal"
        ));
    }
    say("");
    say(&format!(
        "  {:<4} {:<16} {:<28} {}",
        "id", "name", "email in MariaDB", "email in ClickHouse"
    ));
    let rows: Vec<(u32, String, String)> = stage
        .source
        .rows("SELECT id, name, email FROM customers ORDER BY id LIMIT 5")
        .await?;
    for (id, name, email) in rows {
        let sql = format!("SELECT email FROM shop.customers_current WHERE id = {id}");
        say(&format!(
            "  {id:<4} {name:<16} {email:<28} {}",
            stage.clickhouse.query(&sql).await?
        ));
    }
    say("");
    Ok(())
}
