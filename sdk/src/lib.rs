//! Write a Pipewright transform plugin: code over columns, run in a sandbox, on the snapshot and on the stream alike.
//!
//! A plugin that writes e-mail domains into a column of their own:
//!
//! ```
//! use pipewright_sdk::*;
//!
//! struct Domain;
//!
//! impl Transform for Domain {
//!     type Config = serde_json::Map<String, serde_json::Value>;
//!     type Binding = Bound;
//!
//!     fn new(_config: Self::Config) -> Result<Self, Vec<Problem>> {
//!         Ok(Domain)
//!     }
//!
//!     fn bind(&self, table: &Table) -> Result<Bound, Failure> {
//!         let (email, _) = table.require("email")?;
//!         let mut shape = Shape::new();
//!         let email = shape.read(email);
//!         let domain = shape.add(Field::new("domain", DataType::Utf8));
//!         Ok(Bound { shape, email, domain })
//!     }
//! }
//!
//! struct Bound {
//!     shape: Shape,
//!     email: Read,
//!     domain: Write,
//! }
//!
//! impl Binding for Bound {
//!     fn shape(&self) -> Shape {
//!         self.shape.clone()
//!     }
//!
//!     fn transform(&self, batch: &Batch) -> Result<Outcome, Failure> {
//!         let mut domains = BytesBuilder::new(DataType::Utf8, batch.len());
//!         for email in batch.column(self.email).strings()?.iter() {
//!             let domain = email.and_then(|email| email.rsplit_once('@')).map(|(_, domain)| domain.as_bytes());
//!             domains.push(domain);
//!         }
//!         Ok(Outcome::unchanged().column(self.domain, domains.finish()))
//!     }
//! }
//!
//! export!(Domain);
//!
//! use pipewright_sdk::testing::{Cell, Harness};
//! let harness = Harness::<Domain>::new("{}", &[Field::new("email", DataType::Utf8)])?;
//! let rows = harness.run(&[(Op::Insert, vec![Cell::text("ann@example.com")])])?;
//! assert_eq!(rows[0].as_ref().unwrap()[1], Cell::text("example.com"));
//! # Ok::<(), String>(())
//! ```
//!
//! `pipewright plugin build` makes the component. The result must be a function of the row and of the configuration: a
//! replay after a crash cuts rows into other batches and must give the same values.

#![deny(missing_docs)]

mod calendar;
mod column;
mod config;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
pub mod helpers;
pub mod log;
pub mod lookup;
#[cfg(feature = "schema")]
pub mod schema;
mod target;
pub mod testing;
mod transform;
mod types;

pub use calendar::days_since_1970;
pub use column::{
    BooleanBuilder, Booleans, Bytes, BytesBuilder, Column, I256, Integers, List, ListBuilder,
    Lists, Selection, Strings, Value, Values, ValuesBuilder,
};
pub use config::Ordered;
pub use target::{Made, Rows, Target, To};
pub use transform::{Batch, Binding, Outcome, Read, Shape, Transform, Write};
pub use types::{DataType, Failure, Field, Item, Op, Problem, Table};

/// Makes a type that implements [`Transform`] the plugin of this crate. Once a crate; natively it does nothing.
///
/// ```
/// # use pipewright_sdk::*;
/// # struct Keep;
/// # impl Transform for Keep {
/// #     type Config = ();
/// #     type Binding = Keep;
/// #     fn new(_: ()) -> Result<Self, Vec<Problem>> { Ok(Keep) }
/// #     fn bind(&self, _: &Table) -> Result<Keep, Failure> { Ok(Keep) }
/// # }
/// # impl Binding for Keep {
/// #     fn shape(&self) -> Shape { Shape::new() }
/// #     fn transform(&self, _: &Batch) -> Result<Outcome, Failure> { Ok(Outcome::unchanged()) }
/// # }
/// pipewright_sdk::export!(Keep);
/// ```
#[macro_export]
macro_rules! export {
    ($transform:ident) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(
            unsafe_code,
            unused_qualifications,
            reason = "generated: exports of the canonical ABI"
        )]
        mod pipewright_export {
            pub(crate) struct Name;

            impl $crate::guest::Named for Name {
                const NAME: &'static str = env!("CARGO_PKG_NAME");
                const VERSION: &'static str = env!("CARGO_PKG_VERSION");
            }

            type Exported = $crate::guest::Guest<super::$transform, Name>;

            $crate::guest::bindings::export_transform!(Exported);
        }
    };
}
