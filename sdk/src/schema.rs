//! The JSON Schema of a configuration, made of its type: the feature `schema` of this crate.
//!
//! Comments become descriptions, and what serde renames or defaults is renamed and defaulted here too. Code for it is in
//! the component, some 100 kB of it.
//!
//! ```
//! use pipewright_sdk::schema::{self, JsonSchema, schemars};
//! use pipewright_sdk::{Batch, Binding, Failure, Outcome, Problem, Shape, Table, Transform};
//! use serde::Deserialize;
//!
//! struct Keep;
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     /// The columns to keep.
//!     columns: Vec<String>,
//! }
//!
//! impl Transform for Keep {
//!     type Config = Config;
//!     type Binding = Keep;
//!
//!     fn new(_: Config) -> Result<Self, Vec<Problem>> {
//!         Ok(Keep)
//!     }
//!
//!     fn bind(&self, _: &Table) -> Result<Keep, Failure> {
//!         Ok(Keep)
//!     }
//!
//!     fn config_schema() -> Option<String> {
//!         Some(schema::of::<Config>())
//!     }
//! }
//! # impl Binding for Keep {
//! #     fn shape(&self) -> Shape { Shape::new() }
//! #     fn transform(&self, _: &Batch) -> Result<Outcome, Failure> { Ok(Outcome::unchanged()) }
//! # }
//!
//! let schema: serde_json::Value = serde_json::from_str(&Keep::config_schema().unwrap())?;
//! assert_eq!(schema["properties"]["columns"]["description"], "The columns to keep.");
//! assert_eq!(schema["required"], serde_json::json!(["columns"]));
//! # Ok::<(), serde_json::Error>(())
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;

pub use schemars::{self, JsonSchema};
use schemars::{Schema, SchemaGenerator};

use crate::Ordered;

/// The schema as [`crate::Transform::config_schema`] gives it.
///
/// ```
/// use pipewright_sdk::{Ordered, schema};
/// let schema = schema::of::<Ordered<u8>>();
/// assert!(schema.contains(r#""type":"object""#), "{schema}");
/// ```
pub fn of<T: JsonSchema>() -> String {
    schemars::schema_for!(T).to_value().to_string()
}

impl<T: JsonSchema> JsonSchema for Ordered<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Ordered_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<String, T>::json_schema(generator)
    }
}
