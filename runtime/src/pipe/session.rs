//! A connected pipe: both ends, the plugins, and each table as it runs at the moment.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::append::{self, Snapshots};
use super::lag::Spent;
use super::mirror::Mirrored;
use super::obstacles::Obstacles;
use super::pinned::{self, PinnedPlugin, PluginRules};
use super::plugin_files::PluginFiles;
use super::record::TableRecord;
use super::store::PipeStore;
use super::table_state::TableState;
use crate::batch::TableName;
use crate::config::{PipeConfig, PositionMode, RowImage, TableConfig};
use crate::destination::clickhouse::{ClickHouse, LabelsByColumn, TargetTable};
use crate::error::{Error, ErrorKind, Result, Scope};
use crate::source::mysql::Source;
use crate::source::mysql::catalog::SourceTable;
use crate::source::mysql::past::Past;
use crate::transform::{Chain, ChainOutput, Engine, Plugin, first_start};

/// Both ends and everything bound between them.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) config: Arc<PipeConfig>,
    pub(super) source: Arc<Source>,
    pub(super) destination: ClickHouse,
    /// Where the applier's time goes.
    pub(super) spent: Spent,
    /// What loads of append tables read by.
    pub(super) snapshots: Snapshots,
    /// What this run has told readers.
    pub(super) mirrored: Mirrored,
    pub(super) engine: Arc<Engine>,
    plugins: BTreeMap<String, Arc<Plugin>>,
    /// Those that ran into a limit or trapped before they had seen a table: the trouble of the tables that they are for.
    failed: BTreeMap<String, Error>,
    /// Those of tables that are not taken up to the present ones yet.
    kept: RwLock<BTreeMap<TableName, Vec<Arc<Plugin>>>>,
    tables: RwLock<BTreeMap<TableName, Arc<LiveTable>>>,
}

/// A table as it runs: replaced whole when its definition changes.
#[derive(Debug)]
pub(super) struct LiveTable {
    pub(super) config: TableConfig,
    pub(super) source: Arc<SourceTable>,
    pub(super) chain: Chain,
    /// The target of the chain's first output; for most tables the only one.
    pub(super) target: TargetTable,
    /// Those of the others, in their order.
    pub(super) routed: Vec<TargetTable>,
    /// The tables that are being loaded beside the targets, in the same order, and whether they alone receive the stream.
    shadow: Option<(Vec<TargetTable>, bool)>,
    /// Which of the table's loads its rows belong to, for dead letters; empty before it is recorded.
    pub(super) load: String,
    /// Ordinals in the source table of the columns that make the destination's key.
    pub(super) key_ordinals: Vec<usize>,
    /// Read-held by each partition from its SELECT until its rows are durable; write-held where the stream needs every
    /// row read so far to be at the destination, as for TRUNCATE. Shared by all versions of the table.
    pub(super) gate: Arc<tokio::sync::RwLock<()>>,
}

impl LiveTable {
    /// Gives the table the shadow that it is recorded with, or none.
    pub(super) fn recorded_as(mut self, store: &PipeStore, record: &TableRecord) -> Self {
        self.load = record.load(&store.record().id);
        self.shadow = record.shadow.as_ref().map(|shadow| {
            let beside = self
                .targets()
                .map(|target| target.with_name(shadow.name_for(target.name(), self.target.name())));
            (beside.collect(), shadow.alone)
        });
        self
    }

    /// The names of the targets beside the first.
    pub(super) fn routed_names(&self) -> Vec<String> {
        let routed = self.routed.iter();
        routed.map(|target| target.name().to_owned()).collect()
    }

    /// The live tables, one for each of the chain's outputs.
    pub(super) fn targets(&self) -> impl Iterator<Item = &TargetTable> {
        std::iter::once(&self.target).chain(&self.routed)
    }

    /// Where the stream's rows of one output go: to the live table, to its shadow, or to both.
    pub(super) fn stream_targets_of(&self, output: usize) -> impl Iterator<Item = &TargetTable> {
        let live = match &self.shadow {
            Some((_, true)) => None,
            Some((_, false)) | None => self.targets().nth(output),
        };
        live.into_iter().chain(
            self.shadow
                .as_ref()
                .and_then(|(shadows, _)| shadows.get(output)),
        )
    }

    /// All tables that rows of the stream go to.
    pub(super) fn stream_targets(&self) -> impl Iterator<Item = &TargetTable> {
        (0..self.chain.outputs().len()).flat_map(|output| self.stream_targets_of(output))
    }

    /// Where the rows of a load go, one for each of the chain's outputs.
    pub(super) fn load_targets(&self) -> Vec<&TargetTable> {
        match &self.shadow {
            Some((shadows, _)) => shadows.iter().collect(),
            None => self.targets().collect(),
        }
    }
}

/// Whether rows whose images leave columns out are read from the source.
pub(super) fn completes_rows(config: &PipeConfig, source: &Source) -> bool {
    let by_gtid = config.source.position != PositionMode::File && source.has_gtid();
    config.row_image == RowImage::Complete && by_gtid
}

impl Session {
    /// Connects both ends, and takes the plugins as they were read. A pipe that has read something goes on behind `past`.
    ///
    /// # Errors
    /// Whatever either end or a plugin refuses with.
    pub(super) async fn connect(
        config: Arc<PipeConfig>,
        engine: &Arc<Engine>,
        files: &PluginFiles,
        past: Option<&Past>,
    ) -> Result<Self> {
        let (source, destination) = tokio::try_join!(
            Source::connect(&config.source, past),
            ClickHouse::connect(&config.destination)
        )?;
        let (mut plugins, mut failed) = (BTreeMap::new(), BTreeMap::new());
        for (name, plugin) in files.all(engine, &config).await {
            match plugin {
                Ok(plugin) => drop(plugins.insert(name, plugin)),
                Err(error) if error.kind().scope() == Scope::Table => {
                    files.keep_failed(&name, &error);
                    failed.insert(name, error);
                }
                Err(error) => return Err(error),
            }
        }
        let session = Self::of(config, engine, (source, destination), plugins);
        Ok(Self { failed, ..session })
    }

    /// The same for a pipe that has read nothing yet, which tells everything that stands in the way and not what happens to
    /// be met first: an end that refuses, or is away, keeps nobody from asking the other.
    ///
    /// # Errors
    /// Whatever either end or a plugin refuses with, and what is found at an end that can be asked.
    pub(super) async fn connect_or_tell(
        config: Arc<PipeConfig>,
        engine: &Arc<Engine>,
        files: &PluginFiles,
    ) -> Result<Self, Obstacles> {
        let (source, destination, read) = tokio::join!(
            Source::connect(&config.source, None),
            ClickHouse::connect(&config.destination),
            files.all(engine, &config)
        );
        let mut plugins = BTreeMap::new();
        let mut refused = Vec::new();
        for (name, plugin) in read {
            match plugin {
                Ok(plugin) => drop(plugins.insert(name, plugin)),
                Err(error) => refused.push(("plugin", error)),
            }
        }
        match (source, destination) {
            (Ok(source), Ok(destination)) if refused.is_empty() => {
                Ok(Self::of(config, engine, (source, destination), plugins))
            }
            ends => Err(Obstacles::find(&config, ends, refused).await),
        }
    }

    fn of(
        config: Arc<PipeConfig>,
        engine: &Arc<Engine>,
        (source, destination): (Arc<Source>, ClickHouse),
        plugins: BTreeMap<String, Arc<Plugin>>,
    ) -> Self {
        Self {
            config,
            source,
            destination,
            spent: Spent::default(),
            snapshots: Snapshots::default(),
            mirrored: Mirrored::default(),
            engine: Arc::clone(engine),
            plugins,
            failed: BTreeMap::new(),
            kept: RwLock::default(),
            tables: RwLock::default(),
        }
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
        let plugins = self.plugins_of(config, &name)?;
        let bound = first_start(|| Chain::bind(&plugins, Arc::clone(&source.schema)));
        let chain = bound.await.map_err(|error| error.with_table(&name))?;
        let labels = labels(&source, &chain);
        let mut targets = Vec::with_capacity(chain.outputs().len());
        for output in chain.outputs() {
            let entry = match &output.target {
                None => config.clone(),
                Some(target) => routed_entry(config, target, output),
            };
            targets.push(
                self.destination
                    .plan(&self.config, &entry, &output.schema, &labels)?,
            );
        }
        let ordered_wider = targets
            .iter()
            .zip(chain.outputs())
            .any(|(target, output)| target.key_columns().len() > output.schema.key.len());
        let target = targets.remove(0);
        append::ensure_possible(&self.config, config, &source, &target, &chain)?;
        let key_ordinals = match chain.is_routing() {
            // Both images come in any case, whatever their keys.
            true => {
                ensure_whole_images(&self.config).map_err(|error| error.with_table(&name))?;
                Vec::new()
            }
            false => key_ordinals(&source, &chain, &target)?,
        };
        let chain = match chain.is_routing() && ordered_wider {
            true => chain.ordered_wider(),
            false => chain,
        };
        Ok(LiveTable {
            config: config.clone(),
            source,
            chain,
            target,
            routed: targets,
            shadow: None,
            load: String::new(),
            key_ordinals,
            gate,
        })
    }

    fn plugins_of(&self, config: &TableConfig, name: &TableName) -> Result<Vec<Arc<Plugin>>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(plugins) = kept.get(name) {
            return Ok(plugins.clone());
        }
        let plugin = |transform: &String| {
            if let Some(error) = self.failed.get(transform) {
                return Err(error.again().with_table(name));
            }
            let plugin = self.plugins.get(transform).cloned();
            plugin.ok_or_else(|| {
                Error::new(
                    ErrorKind::Config,
                    format!("no transform is named `{transform}`"),
                )
                .with_table(name)
            })
        };
        config.transforms.iter().map(plugin).collect()
    }

    /// The plugin that the pipe file gives that name.
    pub(super) fn plugin(&self, name: &str) -> Option<&Plugin> {
        self.plugins.get(name).map(AsRef::as_ref)
    }

    /// Whether the table is bound to plugins that are kept, in the place of the present ones.
    pub(super) fn is_kept(&self, name: &TableName) -> bool {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.contains_key(name)
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
                let config = pinned::config_text(transform);
                Some(PinnedPlugin {
                    name: name.clone(),
                    digest: plugin.digest().to_owned(),
                    config_digest: pinned::digest(config.as_bytes()),
                    lookups: plugin.lookup_digests(),
                    rules: Some(PluginRules::of(transform)),
                })
            })
            .collect()
    }

    /// Binds every recorded table that rows still go to, as it was at its place, to the recorded plugins. Returns those whose
    /// plugins, configurations or granted files are no longer the recorded ones; what is not kept of these is bound to the
    /// present ones. Other limits for the same plugins, or another `on_error`, hold from here on.
    ///
    /// # Errors
    /// As [`Session::bind`].
    pub(super) async fn bind_recorded(
        &self,
        store: &PipeStore,
        tables: &[(TableConfig, TableName)],
    ) -> Result<Vec<TableName>> {
        let records = store.records();
        let (mut changed, mut ruled) = (Vec::new(), Vec::new());
        for (config, name) in tables {
            let Some(record) = records.tables.get(name) else {
                continue;
            };
            if !record.state.is_in_stream() && record.state != TableState::CatchingUp {
                continue;
            }
            let pins = self.pins(config);
            if PinnedPlugin::all_make_the_same(&record.plugins, &pins) {
                if record.plugins != pins {
                    ruled.push((name, pins));
                }
            } else {
                changed.push(name.clone());
                if let Some(plugins) = self.kept_plugins(store, &record.plugins).await? {
                    let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
                    kept.insert(name.clone(), plugins);
                }
            }
            let bound = self
                .bind(config, Arc::new(record.source.clone()), Arc::default())
                .await?;
            self.put(bound.recorded_as(store, record));
        }
        if !ruled.is_empty() {
            store
                .commit(|draft| {
                    for (name, pins) in ruled {
                        draft.table_mut(name).plugins = pins;
                    }
                    Ok(())
                })
                .await?;
        }
        Ok(changed)
    }

    /// Binds these tables to the present plugins.
    ///
    /// # Errors
    /// As [`Session::bind`].
    pub(super) async fn bind_present(&self, store: &PipeStore, names: &[TableName]) -> Result<()> {
        let records = store.records();
        for name in names {
            self.kept
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(name);
            let (table, record) = (self.table(name), records.tables.get(name));
            let (source, gate) = (Arc::clone(&table.source), Arc::clone(&table.gate));
            let bound = self.bind(&table.config, source, gate).await?;
            self.put(match record {
                Some(record) => bound.recorded_as(store, record),
                None => bound,
            });
        }
        Ok(())
    }
}

/// The entry of a target that a plugin names: what the file says of the table's own target does not concern it, but for
/// the columns that they have in common.
fn routed_entry(config: &TableConfig, target: &str, output: &ChainOutput) -> TableConfig {
    let mut entry = config.clone();
    entry.target = Some(target.to_owned());
    (entry.order_by, entry.partition_by) = (None, None);
    let has = |name: &str| output.schema.index_of(name).is_some();
    entry.columns.retain(|name, _| has(name));
    entry
}

/// What an image has become is known from the whole image only, of the row that was as of the one that is.
fn ensure_whole_images(config: &PipeConfig) -> Result<()> {
    match config.row_image {
        RowImage::Refuse => Ok(()),
        RowImage::Complete => Err(Error::new(
            ErrorKind::Config,
            "a plugin sends this table's rows to targets of its own, for which images before changes must be whole",
        )
        .with_hint("set binlog_row_image = FULL at the source, and `row_image: refuse`")),
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
/// place: equal source keys must stay equal, and different ones different. Without a key all columns together are one.
fn key_ordinals(source: &SourceTable, chain: &Chain, target: &TargetTable) -> Result<Vec<usize>> {
    if target.is_keyless() {
        let columns = source.columns.iter().enumerate();
        let included = columns.filter(|(_, column)| column.included.is_some());
        return Ok(included.map(|(ordinal, _)| ordinal).collect());
    }
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
