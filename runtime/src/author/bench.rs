//! What a batch costs: through the plugin, and through one that reads the same columns and does nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use super::cases::Case;
use super::check::load;
use super::project::{Language, Project};
use super::scaffold::{digest_of_nothing, scaffold_nothing};
use super::toolchain::find_toolchain;
use crate::batch::ChangeBatch;
use crate::config::TransformConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::cache;
use crate::transform::{Chain, Engine, Plugin};

/// Time of one measurement, and the batches that are thrown away before it.
const MEASURED: Duration = Duration::from_secs(2);
const WARM_UP: usize = 3;

/// Instances that are made to measure one.
const INSTANCES: usize = 51;

/// What a batch cost; times are medians.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// The case whose rows were repeated.
    pub case: String,
    /// Rows of a batch.
    pub rows: usize,
    /// Bytes of a batch, all columns.
    pub bytes: usize,
    /// Batches measured.
    pub batches: usize,
    /// Microseconds a batch.
    pub micros: f64,
    /// Rows a second, on one core.
    pub rows_per_second: f64,
    /// Megabytes (of all columns) a second, on one core.
    pub megabytes_per_second: f64,
    /// Microseconds a batch of a plugin that reads the same columns and does nothing: the boundary.
    pub nothing_micros: Option<f64>,
    /// The boundary's share of the time.
    pub boundary_share: Option<f64>,
    /// Why there is no such figure.
    pub nothing_missing: Option<String>,
    /// Microseconds that one more instance takes to be there.
    pub instantiate_micros: f64,
}

/// Measures a plugin over a case's rows, repeated to `rows`.
///
/// # Errors
/// When the plugin refuses the case, or fails over its rows.
pub async fn bench(
    engine: &Arc<Engine>,
    name: &str,
    component: &Path,
    case: &Case,
    rows: usize,
) -> Result<Figures> {
    let refused = |what: String| Error::new(ErrorKind::PluginRefused, what);
    let plugin = load(engine, name, component, case)
        .await?
        .map_err(refused)?;
    let instantiate_micros = instantiate(&plugin).await?;
    let chain = Chain::bind(&[plugin], Arc::clone(&case.schema)).await?;
    let batch = case
        .batch
        .repeated(rows)
        .map_err(|what| Error::new(ErrorKind::Config, what))?;
    let nothing = match nothing(engine, case, &chain).await {
        Ok(nothing) => Ok(measure(&nothing, &batch).await?.0),
        Err(error) => Err(error.telling().message().to_owned()),
    };
    let (micros, batches) = measure(&chain, &batch).await.map_err(Error::telling)?;
    let bytes = batch.byte_count();
    let nothing_micros = nothing.as_ref().ok().copied();
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    Ok(Figures {
        case: case.name.clone(),
        rows,
        bytes,
        batches,
        micros,
        rows_per_second: rows as f64 / micros * 1e6,
        megabytes_per_second: bytes as f64 / micros,
        nothing_micros,
        boundary_share: nothing_micros.map(|nothing| nothing / micros),
        nothing_missing: nothing.err(),
        instantiate_micros,
    })
}

/// The median in microseconds.
async fn instantiate(plugin: &Arc<Plugin>) -> Result<f64> {
    let mut times = Vec::with_capacity(INSTANCES);
    for _ in 0..INSTANCES {
        times.push(plugin.time_to_instantiate().await?);
    }
    times.sort();
    Ok(times[times.len() / 2].as_secs_f64() * 1e6)
}

/// The median in microseconds, and how many batches it is of.
async fn measure(chain: &Chain, batch: &ChangeBatch) -> Result<(f64, usize)> {
    for _ in 0..WARM_UP {
        chain.apply(batch.clone()).await?;
    }
    let begin = Instant::now();
    let mut times = Vec::new();
    while begin.elapsed() < MEASURED || times.len() < WARM_UP {
        let batch = batch.clone();
        let start = Instant::now();
        chain.apply(batch).await?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok((times[times.len() / 2].as_secs_f64() * 1e6, times.len()))
}

/// A plugin that reads what `chain` reads, bound to the case's table.
async fn nothing(engine: &Arc<Engine>, case: &Case, chain: &Chain) -> Result<Chain> {
    let component = tokio::task::spawn_blocking(nothing_component)
        .await
        .map_err(|error| {
            Error::new(ErrorKind::Internal, "building a plugin panicked").with_source(error)
        })??;
    let reads: Vec<String> = chain
        .describe()
        .into_iter()
        .flat_map(|step| step.reads)
        .collect();
    let mut config = TransformConfig::of(&component);
    config.config = json!({ "columns": reads }).into();
    let plugin = engine.load("nothing", &config).await?;
    Chain::bind(&[plugin], Arc::clone(&case.schema)).await
}

/// Built once for each SDK and toolchain, in the cache.
fn nothing_component() -> Result<PathBuf> {
    let toolchain = find_toolchain(Language::Rust, Path::new("."))?;
    let version = format!("{}-{}", digest_of_nothing(), toolchain.version);
    let item = cache::exact("nothing-guest", &version, |folder| {
        scaffold_nothing(folder)?;
        let built = Project::open(folder)?.build(Some(&folder.join("nothing.wasm")), &toolchain)?;
        std::fs::remove_dir_all(folder.join("target"))?;
        anyhow::ensure!(built.size > 0, "the component is empty");
        Ok(())
    });
    item.map(|item| item.join("nothing.wasm")).map_err(|error| {
        Error::new(
            ErrorKind::PluginRefused,
            format!("the plugin that does nothing cannot be built: {error:#}"),
        )
    })
}
