//! Plugins as they were when rows last passed through them, kept in the state by their digests.
//!
//! A file may be replaced at any time, also while rows are on their way. After an unclean stop everything up to *sent* is
//! sent again, and has to become what it was: it passes through the plugins that are kept, and only then the present ones
//! are taken up. A plugin is kept before its digest is recorded, so what is recorded can be loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::record::{Records, TableRecord};
use super::session::Session;
use super::store::PipeStore;
use crate::batch::TableName;
use crate::config::{LimitsConfig, OnError, OnRejected, PluginConfig, TransformConfig};
use crate::error::Result;
use crate::transform::{Plugin, first_start};

/// A plugin as it was when the table was set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedPlugin {
    /// Its name in the pipe file.
    pub name: String,
    /// SHA-256 of the component.
    pub digest: String,
    /// SHA-256 of the resolved configuration.
    pub config_digest: String,
    /// SHA-256 of each file that it may read, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lookups: BTreeMap<String, String>,
    /// What it ran under; none in a record of an earlier build.
    #[serde(default)]
    pub rules: Option<PluginRules>,
}

/// What rows that fail in a plugin become, and what a call of it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRules {
    /// What a failing row does.
    pub on_error: OnError,
    /// What readers see of it.
    pub on_rejected: OnRejected,
    /// What one call may use.
    pub limits: LimitsConfig,
}

impl PluginRules {
    /// Those of an entry of the pipe file.
    pub fn of(transform: &TransformConfig) -> Self {
        Self {
            on_error: transform.on_error,
            on_rejected: transform.on_rejected,
            limits: transform.limits,
        }
    }
}

impl Default for PluginRules {
    fn default() -> Self {
        Self {
            on_error: OnError::Fail,
            on_rejected: OnRejected::Hide,
            limits: LimitsConfig::default(),
        }
    }
}

impl PinnedPlugin {
    /// Whether rows become the same in both, but for those that fail.
    pub fn makes_the_same(&self, other: &Self) -> bool {
        (&self.name, &self.digest) == (&other.name, &other.digest)
            && (&self.config_digest, &self.lookups) == (&other.config_digest, &other.lookups)
    }

    /// The same of all plugins of a table.
    pub fn all_make_the_same(some: &[Self], others: &[Self]) -> bool {
        some.len() == others.len()
            && some
                .iter()
                .zip(others)
                .all(|(some, other)| some.makes_the_same(other))
    }
}

/// SHA-256 in hexadecimal digits.
pub(super) fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A configuration as it is kept.
pub(super) fn config_text(config: &TransformConfig) -> String {
    config.config.expose().to_string()
}

impl Session {
    /// Keeps the plugins that tables pass through, with their configurations and files.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn keep_plugins(&self, store: &PipeStore) -> Result<()> {
        let entries = &self.config.tables;
        let used = |name: &String| entries.iter().any(|entry| entry.transforms.contains(name));
        for (name, config) in self.config.transforms.iter().filter(|(name, _)| used(name)) {
            let text = config_text(config);
            store
                .keep(&digest(text.as_bytes()), text.as_bytes())
                .await?;
            for (digest, bytes) in self.plugin(name).into_iter().flat_map(Plugin::sources) {
                store.keep(digest, bytes).await?;
            }
        }
        Ok(())
    }

    /// The plugins that are pinned so, in order; none where one of them is not kept, or cannot be loaded any more.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn kept_plugins(
        &self,
        store: &PipeStore,
        pins: &[PinnedPlugin],
    ) -> Result<Option<Vec<Arc<Plugin>>>> {
        let mut plugins = Vec::with_capacity(pins.len());
        for pin in pins {
            let Some(kept) = Kept::read(store, pin).await? else {
                return Ok(None);
            };
            let config = self.config_of(pin, kept.config);
            let Kept {
                component, lookups, ..
            } = kept;
            let restore = || {
                let (config, component) = (config.clone(), component.clone());
                self.engine
                    .restore(&pin.name, config, component, lookups.clone())
            };
            match first_start(restore).await {
                Ok(plugin) => plugins.push(plugin),
                Err(error) => {
                    tracing::warn!(
                        pipe = store.pipe(),
                        plugin = pin.name,
                        "the plugin that rows last passed through cannot be loaded any more: {}",
                        error.chain()
                    );
                    return Ok(None);
                }
            }
        }
        Ok(Some(plugins))
    }

    /// What a plugin was told, under the rules that it ran under.
    fn config_of(&self, pin: &PinnedPlugin, config: PluginConfig) -> TransformConfig {
        let present = self.config.transforms.get(&pin.name);
        let rules = pin.rules.or_else(|| present.map(PluginRules::of));
        let PluginRules {
            on_error,
            on_rejected,
            limits,
        } = rules.unwrap_or_default();
        TransformConfig {
            plugin: (&pin.name).into(),
            config,
            on_error,
            on_rejected,
            limits,
            lookups: BTreeMap::new(),
        }
    }
}

/// What the state has of one plugin.
struct Kept {
    component: Vec<u8>,
    config: PluginConfig,
    lookups: BTreeMap<String, Vec<u8>>,
}

impl Kept {
    async fn read(store: &PipeStore, pin: &PinnedPlugin) -> Result<Option<Self>> {
        let (Some(component), Some(config)) = (
            whole(store, &pin.digest).await?,
            whole(store, &pin.config_digest).await?,
        ) else {
            return Ok(None);
        };
        let Ok(config) = serde_json::from_slice(&config) else {
            return Ok(None);
        };
        let mut lookups = BTreeMap::new();
        for (name, digest) in &pin.lookups {
            let Some(bytes) = whole(store, digest).await? else {
                return Ok(None);
            };
            lookups.insert(name.clone(), bytes);
        }
        Ok(Some(Self {
            component,
            // Which of its strings are secrets is no longer known.
            config: PluginConfig::new(config, serde_json::json!("***")),
            lookups,
        }))
    }
}

/// What is kept under that digest, if it still has it.
async fn whole(store: &PipeStore, wanted: &str) -> Result<Option<Vec<u8>>> {
    let kept = store.kept(wanted).await?;
    Ok(kept.filter(|bytes| digest(bytes) == wanted))
}

/// Forgets what no table is pinned to.
///
/// # Errors
/// When the store fails.
pub(super) async fn forget_others(store: &PipeStore) -> Result<()> {
    let records = store.records();
    let pins = records.tables.values().flat_map(|table| &table.plugins);
    let mut wanted = BTreeSet::new();
    for pin in pins {
        wanted.extend([pin.digest.clone(), pin.config_digest.clone()]);
        wanted.extend(pin.lookups.values().cloned());
    }
    store.forget_except(wanted).await
}

/// Whether rows of the table may be at the destination beyond the checkpoint from which it is read again, and have to pass
/// through the former plugins once more. One on its way back takes a term above all that it had sent.
pub(super) fn is_ahead(records: &Records, name: &TableName) -> bool {
    let in_stream = |table: &Arc<TableRecord>| table.state.is_in_stream();
    if !records.tables.get(name).is_some_and(in_stream) {
        return false;
    }
    let sent = records.pipe.as_ref().and_then(|pipe| pipe.sent.as_ref());
    match (records.checkpoint(), sent) {
        (Some(at), Some(sent)) => at.place.position.contains(&sent.position) != Some(true),
        _ => false,
    }
}
