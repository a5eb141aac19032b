//! What a component says of itself and asks for, before it is configured.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::component;
use super::engine::{Engine, blocking};
use super::instance::{Plugin, hex, told};
use super::version::PLUGIN_INTERFACE;
use crate::config::TransformConfig;
use crate::error::Result;

/// A component, looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Inspection {
    /// Its bytes.
    pub size: u64,
    /// SHA-256 of it, in hexadecimal digits: what a pipe pins.
    pub digest: String,
    /// The versions of the contract that it was built for.
    pub contract: Vec<String>,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// The plugin's name, if it can be run here.
    pub name: Option<String>,
    /// The plugin's own version.
    pub version: Option<String>,
    /// The JSON Schema of its configuration, where it has one.
    pub config_schema: Option<String>,
    /// Why this host cannot run it.
    pub refusal: Option<String>,
}

impl Engine {
    /// Looks at a component without configuring it.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::PluginRefused`] when the file is no component at all.
    pub async fn inspect(self: &Arc<Self>, path: &Path) -> Result<Inspection> {
        let bytes = component::read("inspected", path).await?;
        let engine = Arc::clone(self);
        blocking(move || engine.look_at(bytes)).await
    }

    fn look_at(self: &Arc<Self>, bytes: Vec<u8>) -> Result<Inspection> {
        let digest = hex(&Sha256::digest(&bytes));
        let component = self.compile(&digest, &bytes).map_err(|error| {
            component::refused("inspected", "the component does not compile")
                .with_source(told(&error))
        })?;
        let component_type = component.component_type();
        let strings = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        let exports = component_type
            .exports(self.wasmtime())
            .map(|(name, _)| name);
        let contract = exports
            .filter_map(|name| name.strip_prefix(PLUGIN_INTERFACE))
            .collect();
        let imports = component_type
            .imports(self.wasmtime())
            .map(|(name, _)| name)
            .collect();
        let mut inspection = Inspection {
            size: bytes.len() as u64,
            digest,
            contract: strings(contract),
            imports: strings(imports),
            name: None,
            version: None,
            config_schema: None,
            refusal: None,
        };
        let config = TransformConfig::of(Path::new(""));
        match Plugin::describe_only(Arc::clone(self), bytes.to_vec(), config) {
            Ok(info) => {
                inspection.name = Some(info.name);
                inspection.version = Some(info.version);
                inspection.config_schema = info.config_schema;
            }
            Err(error) => inspection.refusal = Some(error.message().to_owned()),
        }
        Ok(inspection)
    }
}
