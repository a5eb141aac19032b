//! What a column is, and the list of types.

use rand::Rng;
use rand::rngs::StdRng;

use super::server::Server;
use super::{documents, numbers, places, texts, times};
use crate::SourceKind;

/// Makes a literal, or an expression of an update.
pub(super) type Make = Box<dyn Fn(&mut StdRng) -> String + Send + Sync>;

/// A column: its definition, and what makes a literal for it.
pub(super) struct Column {
    /// Type, charset and collation.
    pub(super) definition: String,
    pub(super) literal: Make,
    pub(super) default: Defaults,
    /// What an update makes of the old value, `{}` in its text; none where it is only ever replaced.
    pub(super) edit: Option<Make>,
}

/// What a DEFAULT may be: MariaDB takes nothing that it would have to change.
#[derive(Clone, Copy)]
pub(super) enum Defaults {
    /// Any of the column's literals.
    Literal,
    /// This one.
    Text(&'static str),
    Never,
}

/// A column whose literals may be a DEFAULT.
pub(super) fn column(
    definition: impl Into<String>,
    literal: impl Fn(&mut StdRng) -> String + Send + Sync + 'static,
) -> Column {
    Column {
        definition: definition.into(),
        literal: Box::new(literal),
        default: Defaults::Literal,
        edit: None,
    }
}

impl Column {
    /// One whose DEFAULT is another, or none.
    pub(super) fn with_default(self, default: Defaults) -> Self {
        Self { default, ..self }
    }
}

/// Makes a column of one family, its width, digits, labels or charset chosen at random.
pub(super) type Type = fn(&mut StdRng, &Server) -> Column;

/// Which servers have a type.
type Where = fn(SourceKind) -> bool;

const EVERYWHERE: Where = |_| true;
const MARIADB: Where = SourceKind::is_mariadb;
const WITH_VECTORS: Where = |kind| kind != SourceKind::MariaDb;

/// Every type, and the servers that have it.
pub(super) const TYPES: &[(Where, Type)] = &[
    (EVERYWHERE, numbers::integer),
    (EVERYWHERE, numbers::integer),
    (EVERYWHERE, numbers::decimal),
    (EVERYWHERE, numbers::float),
    (EVERYWHERE, numbers::double),
    (EVERYWHERE, numbers::bit),
    (EVERYWHERE, numbers::year),
    (EVERYWHERE, times::date),
    (EVERYWHERE, times::time),
    (EVERYWHERE, times::datetime),
    (EVERYWHERE, times::timestamp),
    (EVERYWHERE, texts::short_text),
    (EVERYWHERE, texts::short_text),
    (EVERYWHERE, texts::long_text),
    (EVERYWHERE, texts::short_bytes),
    (EVERYWHERE, texts::long_bytes),
    (MARIADB, texts::compressed_text),
    (MARIADB, texts::compressed_bytes),
    (EVERYWHERE, texts::label),
    (EVERYWHERE, texts::set),
    (EVERYWHERE, documents::json),
    (EVERYWHERE, places::geometry),
    (WITH_VECTORS, places::vector),
    (MARIADB, places::uuid),
    (MARIADB, places::inet4),
    (MARIADB, places::inet6),
];

pub(super) fn pick<T: Copy>(random: &mut StdRng, from: &[T]) -> T {
    *pick_ref(random, from)
}

pub(super) fn pick_ref<'a, T>(random: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[random.random_range(0..from.len())]
}

/// True once in `times`.
pub(super) fn once_in(random: &mut StdRng, times: u32) -> bool {
    random.random_range(0..times) == 0
}
