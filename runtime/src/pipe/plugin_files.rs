//! A pipe's plugins, as their files were when somebody last had them read.
//!
//! A file may be replaced at any moment, by accident too, and may be there by half. So a lost connection, or a table that
//! falls out of service, reads none: all runs of one process go on with what the first of them read. Files are read again
//! where a person asks for it: with a start of the process or the pipe, a resume, a resync, the retry or skip of a table that a
//! plugin took out of service, and a changed pipe file. Resume, resync, retry and skip are refused where a file is no plugin,
//! or one that a table in service needs does not start, and the pipe is as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::record::TableRecord;
use super::supervisor::Pipe;
use crate::batch::TableName;
use crate::config::PipeConfig;
use crate::error::{Error, Result, Scope};
use crate::transform::{Engine, Plugin, first_start};

/// What was read, by the names of the pipe file.
#[derive(Debug, Default)]
pub(super) struct PluginFiles {
    /// Held while a file is read, so that two sessions never have two plugins of one name.
    reading: tokio::sync::Mutex<()>,
    read: Mutex<BTreeMap<String, Result<Arc<Plugin>>>>,
}

impl PluginFiles {
    /// Each plugin of the pipe file: as it was read before, else as its file is now. What cannot be read is read the next
    /// time, unless the pipe goes on without it ([`PluginFiles::keep_failed`]).
    pub(super) async fn all(
        &self,
        engine: &Arc<Engine>,
        config: &PipeConfig,
    ) -> BTreeMap<String, Result<Arc<Plugin>>> {
        let _reading = self.reading.lock().await;
        let mut plugins = BTreeMap::new();
        for (name, transform) in &config.transforms {
            let known = self.lock().get(name).map(again);
            let plugin = match known {
                Some(plugin) => plugin,
                None => first_start(|| engine.load(name, transform)).await,
            };
            if let Ok(plugin) = &plugin {
                self.lock().insert(name.clone(), Ok(Arc::clone(plugin)));
            }
            plugins.insert(name.clone(), plugin);
        }
        plugins
    }

    /// The pipe goes on without a plugin that does not start; a lost connection is no reason to try it again.
    pub(super) fn keep_failed(&self, name: &str, error: &Error) {
        self.lock().insert(name.to_owned(), Err(error.again()));
    }

    /// What the present files are. One that does not start is no matter to tables that do not need it: those that are out of
    /// service for it stay there.
    ///
    /// # Errors
    /// Whatever the first plugin is refused with that is none, or that a table needs and does not start.
    pub(super) async fn read_anew(
        pipe: &Pipe,
        needs: impl Fn(&TableName, &TableRecord) -> bool,
    ) -> Result<Self> {
        let files = Self::default();
        let config = pipe.effective_config()?;
        let records = pipe.store.records();
        let tables = records.tables.iter();
        let needed: BTreeSet<&str> = tables
            .filter(|(name, table)| needs(name, table))
            .flat_map(|(_, table)| &table.plugins)
            .map(|plugin| plugin.name.as_str())
            .collect();
        for (name, plugin) in files.all(&pipe.engine, &config).await {
            match plugin {
                Err(error)
                    if needed.contains(name.as_str()) || error.kind().scope() == Scope::Pipe =>
                {
                    return Err(error);
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(files)
    }

    /// Goes on with what another has read; what that could not read stays as it is.
    pub(super) fn take(&self, other: &Self) {
        let other = other.lock();
        let read = other.iter().filter(|(_, plugin)| plugin.is_ok());
        let read = read.map(|(name, plugin)| (name.clone(), again(plugin)));
        self.lock().extend(read);
    }

    /// Has all files read the next time.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Result<Arc<Plugin>>>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn again(plugin: &Result<Arc<Plugin>>) -> Result<Arc<Plugin>> {
    plugin.as_ref().map(Arc::clone).map_err(Error::again)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Secrets, load_files};
    use crate::error::ErrorKind;

    #[tokio::test]
    async fn a_plugin_that_does_not_start_is_not_read_again_until_somebody_asks_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("shop.yaml");
        std::fs::write(folder.path().join("slow.wasm"), "no component").expect("a file");
        let text = "version: 1\n\
                    pipe: shop\n\
                    source: { type: mysql, host: h, user: u, password: p }\n\
                    destination: { url: 'http://h:8123', database: d, user: u, password: p }\n\
                    transforms: { slow: { plugin: ./slow.wasm } }\n\
                    tables: [{ source: shop.orders, transforms: [slow] }]\n";
        std::fs::write(&file, text).expect("a pipe file");
        let read = load_files(&[file], &|_| None, Secrets::Resolve).expect("a pipe");
        let config = &read[0].config;
        let engine = Engine::new(None).expect("an engine");
        let files = PluginFiles::default();
        let kind = async |files: &PluginFiles| {
            let mut all = files.all(&engine, config).await;
            let plugin = all.remove("slow").expect("it is named");
            plugin.expect_err("it cannot be used").kind()
        };
        assert_eq!(kind(&files).await, ErrorKind::PluginRefused, "no component");
        let error = Error::new(ErrorKind::PluginTimeout, "plugin `slow` took longer");
        files.keep_failed("slow", &error);
        assert_eq!(kind(&files).await, ErrorKind::PluginTimeout, "as it was");
        files.forget();
        assert_eq!(kind(&files).await, ErrorKind::PluginRefused, "read anew");
    }
}
