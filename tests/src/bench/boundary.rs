//! What a plugin costs by itself, without servers: a batch into the sandbox and back, beside the same work in native Rust.

use std::env;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int8Array,
    Int32Array, Int64Array, TimestampMicrosecondArray,
};
use arrow::compute::filter;
use arrow::datatypes::Int32Type;
use pipewright::batch::{ChangeBatch, Changes, Column, ColumnType, TableName, TableSchema};
use pipewright::config::{LimitsConfig, OnError, OnRejected, TransformConfig};
use pipewright::transform::{Chain, Engine, Plugin};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testbed::harness::{build_guest, workspace_folder};

use super::report::{median, print};

/// What one call is given at most.
const ROWS: usize = 65_536;

/// One line of the table: what was taken, its limit, and whether it is below.
struct Figure {
    name: String,
    found: f64,
    unit: &'static str,
    at_most: Option<f64>,
    at_least: Option<f64>,
}

/// Takes the figures.
pub(super) async fn boundary(rounds: u32) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let bench = Bench {
        program: env::current_exe()?,
        cache: folder.path().to_owned(),
        engine: Engine::new(None)?,
        batch: batch()?,
        rounds: rounds.max(1),
    };
    let bytes = bench.batch.byte_count() as f64 / ROWS as f64;
    eprintln!("{ROWS} rows of 10 columns, {bytes:.0} bytes a row; medians of {rounds} rounds");
    let mut figures = bench.calls().await?;
    figures.extend(bench.starts().await?);
    let mut lines = vec![
        ["figure", "found", "wanted", ""]
            .map(str::to_owned)
            .to_vec(),
    ];
    lines.extend(figures.iter().map(Figure::line));
    print(&lines);
    let figures = figures.iter().map(Figure::json);
    Ok(json!({ "rows": ROWS, "bytes_per_row": bytes, "boundary": figures.collect::<Vec<_>>() }))
}

impl Figure {
    fn new(name: impl Into<String>, found: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            found,
            unit,
            at_most: None,
            at_least: None,
        }
    }

    fn at_most(mut self, limit: f64) -> Self {
        self.at_most = Some(limit);
        self
    }

    fn at_least(mut self, limit: f64) -> Self {
        self.at_least = Some(limit);
        self
    }

    fn is_reached(&self) -> bool {
        self.at_most.is_none_or(|limit| self.found <= limit)
            && self.at_least.is_none_or(|limit| self.found >= limit)
    }

    fn line(&self) -> Vec<String> {
        let wanted = match (self.at_most, self.at_least) {
            (Some(limit), _) => format!("at most {limit}"),
            (None, Some(limit)) => format!("at least {limit}"),
            (None, None) => String::new(),
        };
        let missed = if self.is_reached() { "" } else { "missed" };
        vec![
            self.name.clone(),
            format!("{:.2} {}", self.found, self.unit),
            wanted,
            missed.to_owned(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "figure": self.name, "found": self.found, "unit": self.unit,
            "at_most": self.at_most, "at_least": self.at_least,
        })
    }
}

struct Bench {
    program: PathBuf,
    cache: PathBuf,
    engine: Arc<Engine>,
    batch: ChangeBatch,
    rounds: u32,
}

impl Bench {
    async fn built(&self, folder: &str) -> Result<PathBuf> {
        build_guest(&self.program, &workspace_folder().join(folder)).await
    }

    async fn chain(&self, engine: &Arc<Engine>, plugin: &Path, config: Value) -> Result<Chain> {
        let plugin = self.loaded(engine, plugin, config).await?;
        Ok(Chain::bind(&[plugin], Arc::clone(&self.batch.schema)).await?)
    }

    async fn loaded(
        &self,
        engine: &Arc<Engine>,
        plugin: &Path,
        config: Value,
    ) -> Result<Arc<Plugin>> {
        let transform = TransformConfig {
            plugin: plugin.to_owned(),
            config: config.into(),
            on_error: OnError::Fail,
            on_rejected: OnRejected::Hide,
            limits: LimitsConfig {
                time: Duration::from_secs(60),
                ..LimitsConfig::default()
            },
            lookups: std::collections::BTreeMap::new(),
        };
        Ok(engine.load("bench", &transform).await?)
    }

    /// Seconds a batch through the plugin.
    async fn guest(&self, folder: &str, config: Value) -> Result<f64> {
        let native = |_: &ChangeBatch| Ok(());
        Ok(self.guest_and_native(folder, config, native).await?.0)
    }

    /// Seconds a batch through the plugin, and through the same work in native Rust: by turns, since a shared machine may
    /// be twice as fast a second later.
    async fn guest_and_native<T>(
        &self,
        folder: &str,
        config: Value,
        work: impl Fn(&ChangeBatch) -> Result<T>,
    ) -> Result<(f64, f64)> {
        let component = self.built(folder).await?;
        let chain = self.chain(&self.engine, &component, config).await?;
        let (mut guest, mut native) = (Vec::new(), Vec::new());
        for round in 0..=self.rounds {
            let batch = self.batch.clone();
            let began = Instant::now();
            black_box(chain.apply(batch).await?);
            let between = Instant::now();
            black_box(work(&self.batch)?);
            // The first round fills pages.
            if round > 0 {
                guest.push((between - began).as_secs_f64());
                native.push(between.elapsed().as_secs_f64());
            }
        }
        Ok((median(&guest), median(&native)))
    }

    /// Seconds that a call takes to reach a thread that may block, and its answer to come back: the machine's part of the
    /// cost of a plugin that does nothing.
    async fn handed_over(&self) -> Result<f64> {
        let mut seconds = Vec::new();
        for _ in 0..self.rounds {
            let began = Instant::now();
            tokio::task::spawn_blocking(|| ()).await?;
            seconds.push(began.elapsed().as_secs_f64());
        }
        Ok(median(&seconds))
    }

    async fn calls(&self) -> Result<Vec<Figure>> {
        let nothing = "tests/guests/nothing";
        let idle = self.guest(nothing, json!({ "columns": [] })).await?;
        let mut figures = vec![
            Figure::new("nothing, a batch", idle * 1e6, "us").at_most(60.0),
            Figure::new(
                "of it to another thread and back",
                self.handed_over().await? * 1e6,
                "us",
            ),
        ];
        for name in ["email", "price"] {
            let crossed = self.guest(nothing, json!({ "columns": [name] })).await?;
            let bytes = self.batch.columns[self.place(name)?].get_buffer_memory_size();
            let speed = bytes as f64 / (crossed - idle).max(1e-9) / 1e9;
            let name = format!("column `{name}` crosses");
            figures.push(Figure::new(name, speed, "GB/s").at_least(2.0));
        }
        let (quantity, email, doc) = (
            self.place("quantity")?,
            self.place("email")?,
            self.place("doc")?,
        );
        let condition = json!({ "where": "quantity < 25" });
        let native = |batch: &ChangeBatch| kept(batch, quantity);
        let both = self.guest_and_native("plugins/filter", condition, native);
        figures.extend(beside("filter, keep", both.await?, 1.25));
        let config = json!({ "columns": ["email"], "method": "sha256", "salt": "bench" });
        let native = |batch: &ChangeBatch| Ok(hashed(batch.columns[email].as_binary()));
        let both = self.guest_and_native("plugins/mask", config, native);
        figures.extend(beside("mask, sha256 of one column", both.await?, 3.2));
        let path = json!({ "name": "city", "path": "/address/city", "type": "text" });
        let config = json!({ "column": "doc", "columns": [path] });
        let native = |batch: &ChangeBatch| cities(batch.columns[doc].as_binary());
        let both = self.guest_and_native("plugins/flatten_json", config, native);
        figures.extend(beside("flatten_json, one path", both.await?, 2.6));
        Ok(figures)
    }

    fn place(&self, name: &str) -> Result<usize> {
        let place = self.batch.schema.index_of(name);
        place.with_context(|| format!("no column {name}"))
    }

    async fn starts(&self) -> Result<Vec<Figure>> {
        let mask = self.built("plugins/mask").await?;
        let config = || json!({ "columns": ["email"], "method": "redact" });
        let cold = {
            let engine = Engine::new(Some(self.cache.clone()))?;
            let began = Instant::now();
            self.chain(&engine, &mask, config()).await?;
            began.elapsed()
        };
        let mut warm = Vec::new();
        for _ in 0..self.rounds {
            let engine = Engine::new(Some(self.cache.clone()))?;
            let began = Instant::now();
            self.chain(&engine, &mask, config()).await?;
            warm.push(began.elapsed().as_secs_f64());
        }
        let engine = Engine::new(Some(self.cache.clone()))?;
        let plugins = [self.loaded(&engine, &mask, config()).await?];
        let bind = || Chain::bind(&plugins, Arc::clone(&self.batch.schema));
        let (mut made, mut bound) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            made.push(plugins[0].time_to_instantiate().await?.as_secs_f64());
            let began = Instant::now();
            let chain = bind().await?;
            bound.push(began.elapsed().as_secs_f64());
            drop(chain);
        }
        let mut figures = vec![
            Figure::new("mask, compiled and bound", cold.as_secs_f64(), "s").at_most(3.0),
            Figure::new("mask from the cache, bound", median(&warm) * 1e3, "ms").at_most(5.0),
            Figure::new("mask instantiated", median(&made) * 1e6, "us").at_most(100.0),
            Figure::new("the same, configured and bound", median(&bound) * 1e6, "us"),
            self.idle_memory("mask", &plugins).await?,
        ];
        for language in ["python", "javascript"] {
            let component = self.built(&format!("plugins/examples/{language}")).await?;
            let config = json!({ "columns": ["email"] });
            let plugin = self.loaded(&engine, &component, config).await?;
            figures.push(self.idle_memory(language, &[plugin]).await?);
        }
        Ok(figures)
    }

    /// What an instance keeps after a batch, where as many wait as the pool of an engine holds.
    async fn idle_memory(&self, name: &str, plugins: &[Arc<Plugin>]) -> Result<Figure> {
        let bind = || Chain::bind(plugins, Arc::clone(&self.batch.schema));
        // One before, for what the first call of a process costs it.
        bind().await?.apply(self.batch.clone()).await?;
        let instances = 2 * thread::available_parallelism()?.get();
        let (before, mut waiting) = (resident()?, Vec::new());
        for _ in 0..instances {
            let chain = bind().await?;
            chain.apply(self.batch.clone()).await?;
            waiting.push(chain);
        }
        let grown = resident()?.saturating_sub(before) as f64 / instances as f64;
        let name = format!("{name}, memory of an idle instance");
        Ok(Figure::new(name, grown / f64::from(1 << 20), "MiB").at_most(32.0))
    }
}

fn beside(name: &str, (guest, native): (f64, f64), at_most: f64) -> [Figure; 2] {
    [
        Figure::new(format!("{name}, a batch"), guest * 1e6, "us"),
        Figure::new(format!("{name}, to native"), guest / native, "times").at_most(at_most),
    ]
}

fn kept(batch: &ChangeBatch, quantity: usize) -> Result<Vec<ArrayRef>> {
    let quantities = batch.columns[quantity].as_primitive::<Int32Type>();
    let keep: BooleanArray = quantities.values().iter().map(|q| Some(*q < 25)).collect();
    let columns = batch.columns.iter();
    Ok(columns
        .map(|column| filter(column, &keep))
        .collect::<Result<_, _>>()?)
}

fn hashed(emails: &BinaryArray) -> BinaryArray {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let salted = Sha256::new_with_prefix("bench");
    let mut text = [0_u8; 64];
    let mut builder = arrow::array::BinaryBuilder::with_capacity(emails.len(), 64 * emails.len());
    for email in emails {
        builder.append_option(email.map(|email| {
            let digest = salted.clone().chain_update(email).finalize();
            for (place, byte) in digest.iter().enumerate() {
                text[2 * place] = DIGITS[usize::from(byte >> 4)];
                text[2 * place + 1] = DIGITS[usize::from(byte & 15)];
            }
            &text
        }));
    }
    builder.finish()
}

/// The path through a parser that knows what it looks for, as the plugin does.
fn cities(docs: &BinaryArray) -> Result<BinaryArray> {
    #[derive(serde::Deserialize)]
    struct Document<'a> {
        #[serde(borrow)]
        address: Address<'a>,
    }
    #[derive(serde::Deserialize)]
    struct Address<'a> {
        city: &'a str,
    }
    let mut builder = arrow::array::BinaryBuilder::with_capacity(docs.len(), 8 * docs.len());
    for doc in docs {
        let city = doc
            .map(serde_json::from_slice::<Document<'_>>)
            .transpose()?;
        builder.append_option(city.map(|document| document.address.city));
    }
    Ok(builder.finish())
}

/// Memory of this process that is in use now, in bytes.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.context("a process without memory")?;
    let kilobytes: u64 = kilobytes.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

fn batch() -> Result<ChangeBatch> {
    let text = |value: &dyn Fn(usize) -> String| -> ArrayRef {
        let mut array = BinaryArray::from_iter_values((0..ROWS).map(value));
        array.shrink_to_fit();
        Arc::new(array)
    };
    let decimal = ColumnType::Decimal {
        precision: 12,
        scale: 2,
    };
    let whole = |row: usize| row as i64;
    let columns: Vec<(&str, ColumnType, ArrayRef)> = vec![
        (
            "id",
            ColumnType::Int64,
            Arc::new(Int64Array::from_iter_values((0..ROWS).map(whole))),
        ),
        (
            "quantity",
            ColumnType::Int32,
            Arc::new(Int32Array::from_iter_values(
                (0..ROWS).map(|row| (row % 50) as i32),
            )),
        ),
        (
            "price",
            decimal,
            Arc::new(
                Decimal128Array::from_iter_values((0..ROWS).map(|row| row as i128 * 7))
                    .with_precision_and_scale(12, 2)?,
            ),
        ),
        (
            "ratio",
            ColumnType::Float64,
            Arc::new(Float64Array::from_iter_values(
                (0..ROWS).map(|row| row as f64 / 3.0),
            )),
        ),
        (
            "at",
            ColumnType::DateTime { digits: 6 },
            Arc::new(TimestampMicrosecondArray::from_iter_values(
                (0..ROWS).map(|row| 1_700_000_000_000_000 + whole(row)),
            )),
        ),
        (
            "flag",
            ColumnType::Int8,
            Arc::new(Int8Array::from_iter_values(
                (0..ROWS).map(|row| (row % 2) as i8),
            )),
        ),
        (
            "email",
            ColumnType::Text,
            text(&|row| format!("customer{row:010}@example.com")),
        ),
        (
            "doc",
            ColumnType::Text,
            text(&|row| format!(r#"{{"id":{},"address":{{"city":"Rome"}}}}"#, 10_000 + row)),
        ),
        (
            "code",
            ColumnType::Text,
            text(&|row| format!("{:04}", row % 10_000)),
        ),
        ("note", ColumnType::Text, text(&|row| format!("{row:021}"))),
    ];
    let described = columns.iter().map(|(name, column_type, _)| Column {
        name: (*name).to_owned(),
        column_type: *column_type,
        nullable: false,
        source_type: String::new(),
    });
    let schema = TableSchema {
        name: TableName::new("bench", "rows"),
        columns: described.collect(),
        key: vec![0],
    };
    for (column, (name, _, array)) in schema.columns.iter().zip(&columns) {
        ensure!(
            *array.data_type() == column.column_type.arrow(),
            "column {name} is of another type"
        );
    }
    Ok(ChangeBatch {
        schema: Arc::new(schema),
        columns: columns.into_iter().map(|(.., array)| array).collect(),
        row_count: ROWS,
        changes: Changes::Load,
    })
}
