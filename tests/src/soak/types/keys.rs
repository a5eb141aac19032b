//! Keys: numbers that the server gives, generated invisible ones, and columns of any type that may be one.

use rand::Rng;
use rand::rngs::StdRng;

use super::columns::{Column, Type, once_in, pick};
use super::server::Server;
use super::{numbers, places, texts, times};
use crate::SourceKind;

/// What tells rows apart.
pub(super) enum Key {
    /// An AUTO_INCREMENT.
    Numbered,
    /// MySQL's generated invisible key.
    Hidden,
    /// Columns with values of their own: a primary key, or a unique one without NULL.
    Own { columns: Vec<Column>, primary: bool },
}

/// Types of a key's columns, in which no two values become one.
const TYPES: &[Type] = &[
    numbers::integer,
    numbers::integer,
    numbers::decimal,
    numbers::bit,
    numbers::year,
    times::key_date,
    times::time,
    times::key_datetime,
    times::key_timestamp,
    texts::key_text,
    texts::key_text,
    texts::key_bytes,
    texts::key_label,
    texts::set,
];

const MARIADB_TYPES: &[Type] = &[places::uuid, places::inet4, places::inet6];

impl Key {
    pub(super) fn random(random: &mut StdRng, server: &Server) -> Self {
        match random.random_range(0..6) {
            0 | 1 => Key::Numbered,
            2 if server.kind == SourceKind::MySql => Key::Hidden,
            _ => Key::Own {
                columns: (0..random.random_range(1..=3))
                    .map(|_| {
                        let types = match server.kind.is_mariadb() && once_in(random, 3) {
                            true => MARIADB_TYPES,
                            false => TYPES,
                        };
                        pick(random, types)(random, server)
                    })
                    .collect(),
                primary: random.random_range(0..3) > 0,
            },
        }
    }

    /// The names of its own columns.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Key::Numbered | Key::Hidden => Vec::new(),
            Key::Own { columns, .. } => (0..columns.len()).map(|n| format!("k{n}")).collect(),
        }
    }

    /// Literals for its own columns.
    pub(super) fn literals(&self, random: &mut StdRng) -> Vec<String> {
        match self {
            Key::Numbered | Key::Hidden => Vec::new(),
            Key::Own { columns, .. } => columns
                .iter()
                .map(|column| (column.literal)(random))
                .collect(),
        }
    }

    /// The definitions of its columns, and that of the index.
    pub(super) fn definitions(&self) -> (Vec<String>, Option<String>) {
        match self {
            Key::Numbered => (vec!["id INT AUTO_INCREMENT PRIMARY KEY".to_owned()], None),
            Key::Hidden => (Vec::new(), None),
            Key::Own { columns, primary } => {
                let names = self.names();
                let definitions = names.iter().zip(columns);
                // In another order than the columns stand.
                let mut order = names.clone();
                order.reverse();
                let kind = if *primary {
                    "PRIMARY KEY"
                } else {
                    "UNIQUE KEY by_key"
                };
                (
                    definitions
                        .map(|(name, column)| format!("{name} {} NOT NULL", column.definition))
                        .collect(),
                    Some(format!("{kind} ({})", order.join(", "))),
                )
            }
        }
    }
}
