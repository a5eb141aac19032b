//! A connected pipe: both ends, the plugins, and each table as it runs at the moment.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest, Sha256};

use super::lag::Spent;
use super::record::{PinnedPlugin, Shadow};
use super::store::PipeStore;
use super::table_state::TableState;
use crate::batch::TableName;
use crate::config::{PipeConfig, PositionMode, RowImage, TableConfig};
use crate::destination::clickhouse::{ClickHouse, LabelsByColumn, TargetTable};
use crate::error::{Error, ErrorKind, Finding, Result, Retry, Severity};
use crate::source::mysql::Source;
use crate::source::mysql::catalog::SourceTable;
use crate::source::mysql::position::Position;
use crate::source::mysql::preflight;
use crate::transform::{Chain, Engine, Plugin};

/// Both ends and everything bound between them.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) config: Arc<PipeConfig>,
    pub(super) source: Arc<Source>,
    pub(super) destination: ClickHouse,
    /// Where the applier's time goes.
    pub(super) spent: Spent,
    plugins: BTreeMap<String, Arc<Plugin>>,
    tables: RwLock<BTreeMap<TableName, Arc<LiveTable>>>,
}

/// A table as it runs: replaced whole when its definition changes.
#[derive(Debug)]
pub(super) struct LiveTable {
    pub(super) config: TableConfig,
    pub(super) source: Arc<SourceTable>,
    pub(super) chain: Chain,
    pub(super) target: TargetTable,
    /// The table that is being loaded beside the target, and whether it alone receives the stream.
    shadow: Option<(TargetTable, bool)>,
    /// Ordinals in the source table of the columns that make the destination's key.
    pub(super) key_ordinals: Vec<usize>,
    /// Read-held by each partition from its SELECT until its rows are durable; write-held where the stream needs every
    /// row read so far to be at the destination, as for TRUNCATE. Shared by all versions of the table.
    pub(super) gate: Arc<tokio::sync::RwLock<()>>,
}

impl LiveTable {
    /// Gives the table a shadow, or none.
    pub(super) fn with_shadow(mut self, shadow: Option<&Shadow>) -> Self {
        self.shadow = shadow.map(|shadow| (self.target.with_name(&shadow.name), shadow.alone));
        self
    }

    /// Where the rows of the stream go: to the live table, to its shadow, or to both.
    pub(super) fn stream_targets(&self) -> impl Iterator<Item = &TargetTable> {
        let live = match &self.shadow {
            Some((_, true)) => None,
            Some((_, false)) | None => Some(&self.target),
        };
        live.into_iter()
            .chain(self.shadow.as_ref().map(|(shadow, _)| shadow))
    }

    /// Where the rows of a load go.
    pub(super) fn load_target(&self) -> &TargetTable {
        self.shadow
            .as_ref()
            .map_or(&self.target, |(shadow, _)| shadow)
    }
}

impl Session {
    /// Whether rows whose images leave columns out are read from the source.
    pub(super) fn completes_rows(&self) -> bool {
        let by_gtid = self.config.source.position != PositionMode::File && self.source.has_gtid();
        self.config.row_image == RowImage::Complete && by_gtid
    }

    /// Connects both ends and loads the plugins. A pipe that has read something goes on behind `past`.
    ///
    /// # Errors
    /// Whatever either end or a plugin refuses with.
    pub(super) async fn connect(
        config: Arc<PipeConfig>,
        engine: &Arc<Engine>,
        past: Option<&Position>,
    ) -> Result<Self> {
        let (source, destination) = tokio::try_join!(
            Source::connect(&config.source, past),
            ClickHouse::connect(&config.destination)
        )?;
        let mut plugins = BTreeMap::new();
        for (name, transform) in &config.transforms {
            plugins.insert(name.clone(), engine.load(name, transform).await?);
        }
        Ok(Self {
            config,
            source,
            destination,
            spent: Spent::default(),
            plugins,
            tables: RwLock::default(),
        })
    }

    /// Why a session cannot be made: what each end and each plugin refuses with, and what preflight finds at a source that
    /// can be asked.
    ///
    /// # Errors
    /// The first that may pass by itself.
    pub(super) async fn obstacles(
        config: &PipeConfig,
        engine: &Arc<Engine>,
    ) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let mut refused = |check: &str, error: Error| match error.kind().retry() {
            Retry::Backoff => Err(error),
            Retry::AfterOperator | Retry::Never => {
                findings.push(Finding {
                    severity: Severity::Error,
                    check: check.to_owned(),
                    found: error.chain(),
                    needed: format!("a {check} that takes part"),
                    remedy: error.hint().unwrap_or("change the pipe file").to_owned(),
                    kind: error.kind(),
                });
                Ok(())
            }
        };
        let source = match Source::connect(&config.source, None).await {
            Ok(source) => Some(source),
            Err(error) => {
                refused("source", error)?;
                None
            }
        };
        if let Err(error) = ClickHouse::connect(&config.destination).await {
            refused("destination", error)?;
        }
        for (name, transform) in &config.transforms {
            if let Err(error) = engine.load(name, transform).await {
                refused("plugin", error)?;
            }
        }
        if let Some(source) = source {
            let mut conn = source.control().await?;
            findings.extend(preflight::preflight(&source, &mut conn, config).await?);
            conn.disconnect().await.ok();
        }
        Ok(findings)
    }

    /// Binds a table's plugins to its definition and plans its target; touches neither end.
    ///
    /// # Errors
    /// `PluginRefused` or `Config`, naming table and column.
    pub(super) async fn bind(
        &self,
        config: &TableConfig,
        source: Arc<SourceTable>,
        gate: Arc<tokio::sync::RwLock<()>>,
    ) -> Result<LiveTable> {
        let name = source.name().clone();
        let mut plugins = Vec::new();
        for transform in &config.transforms {
            let plugin = self.plugins.get(transform).ok_or_else(|| {
                Error::new(
                    ErrorKind::Config,
                    format!("no transform is named `{transform}`"),
                )
                .with_table(&name)
            })?;
            plugins.push(Arc::clone(plugin));
        }
        let chain = Chain::bind(&plugins, Arc::clone(&source.schema))
            .await
            .map_err(|error| error.with_table(&name))?;
        let labels = labels(&source, &chain);
        let target = self
            .destination
            .plan(&self.config, config, chain.output(), &labels)?;
        let key_ordinals = key_ordinals(&source, &chain, &target)?;
        Ok(LiveTable {
            config: config.clone(),
            source,
            chain,
            target,
            shadow: None,
            key_ordinals,
            gate,
        })
    }

    /// The table as it runs now.
    ///
    /// # Panics
    /// For a table that was never put.
    pub(super) fn table(&self, name: &TableName) -> Arc<LiveTable> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            tables
                .get(name)
                .expect("every replicated table is bound before it is used"),
        )
    }

    /// All tables as they run now.
    pub(super) fn tables(&self) -> Vec<Arc<LiveTable>> {
        self.tables
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Puts a table in the place of its earlier version.
    pub(super) fn put(&self, table: LiveTable) {
        let name = table.source.name().clone();
        self.tables
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, Arc::new(table));
    }

    /// The digests of a table's plugins and of their configurations, in order.
    pub(super) fn pins(&self, config: &TableConfig) -> Vec<PinnedPlugin> {
        config
            .transforms
            .iter()
            .filter_map(|name| {
                let plugin = self.plugins.get(name)?;
                let transform = self.config.transforms.get(name)?;
                let digest = Sha256::digest(transform.config.expose().to_string().as_bytes());
                Some(PinnedPlugin {
                    name: name.clone(),
                    digest: plugin.digest().to_owned(),
                    config_digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
                })
            })
            .collect()
    }

    /// Binds every recorded table that rows still go to, as it was at its place. Returns those whose plugins, or their
    /// configurations, are no longer the recorded ones.
    ///
    /// # Errors
    /// As [`Session::bind`].
    pub(super) async fn bind_recorded(
        &self,
        store: &PipeStore,
        tables: &[(TableConfig, TableName)],
    ) -> Result<Vec<TableName>> {
        let records = store.records();
        let mut changed = Vec::new();
        for (config, name) in tables {
            let Some(record) = records.tables.get(name) else {
                continue;
            };
            if !record.state.is_in_stream() && record.state != TableState::CatchingUp {
                continue;
            }
            if record.plugins != self.pins(config) {
                changed.push(name.clone());
            }
            let bound = self
                .bind(config, Arc::new(record.source.clone()), Arc::default())
                .await?;
            self.put(bound.with_shadow(record.shadow.as_ref()));
        }
        Ok(changed)
    }
}

/// The labels of the columns that still hold them after the last plugin.
fn labels(source: &SourceTable, chain: &Chain) -> LabelsByColumn {
    let steps = chain.describe();
    let written = |name: &String| steps.iter().any(|step| step.writes.contains(name));
    source
        .columns
        .iter()
        .filter(|column| !column.labels.is_empty() && !written(&column.name))
        .map(|column| (column.name.clone(), column.labels.clone()))
        .collect()
}

/// Where the target's key columns stand in the source's row images. A key column that a plugin writes has no such
/// place: equal source keys must stay equal, and different ones different.
fn key_ordinals(source: &SourceTable, chain: &Chain, target: &TargetTable) -> Result<Vec<usize>> {
    let steps = chain.describe();
    target
        .key_columns()
        .iter()
        .filter_map(|&index| target.columns().get(index))
        .map(|column| {
            let column = &column.name;
            if steps.iter().any(|step| step.writes.contains(column)) {
                return Err(Error::new(
                    ErrorKind::PluginRefused,
                    format!("a plugin writes column `{column}`, which is part of the target's key"),
                )
                .with_table(source.name())
                .with_hint(
                    "take the column out of `order_by`, or out of the plugin's configuration",
                ));
            }
            source
                .columns
                .iter()
                .position(|candidate| candidate.name == *column)
                .ok_or_else(|| {
                    Error::new(
                        ErrorKind::Config,
                        format!("`order_by` names `{column}`, which the table does not have"),
                    )
                    .with_table(source.name())
                })
        })
        .collect()
}
