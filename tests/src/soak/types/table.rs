//! A random table: its definition, and the statements that write to it.

use rand::Rng;
use rand::rngs::StdRng;

use super::columns::{Column, Defaults, TYPES, Type, once_in, pick, pick_ref};
use super::keys::Key;
use super::server::Server;
use super::{Breadth, ROWS, comparison_by};
use crate::SourceKind;
use crate::harness::Comparison;

/// Columns that the server computes of `base`, and whether each may be stored only.
const GENERATED: [&str; 6] = [
    "INT GENERATED ALWAYS AS (base DIV 3)",
    "VARCHAR(40) GENERATED ALWAYS AS (CONCAT(base, '!'))",
    "DECIMAL(20,5) GENERATED ALWAYS AS (base / 7)",
    "DOUBLE GENERATED ALWAYS AS (base / 3e0)",
    "BIGINT GENERATED ALWAYS AS (base * 3000000000)",
    "BIT(40) GENERATED ALWAYS AS (base & 255)",
];

/// What the generated columns are computed of.
const BASE: &str = "base";

/// A column of the table that is written.
struct Field {
    name: String,
    column: Column,
    nullable: bool,
    default: Option<String>,
    invisible: bool,
}

/// A table `t`, and how its rows are written.
pub(super) struct Table {
    kind: SourceKind,
    key: Key,
    fields: Vec<Field>,
    generated: Vec<String>,
    table_clause: String,
    /// How much of a row its images hold.
    image: &'static str,
    /// The place of the key's columns among the others.
    key_place: usize,
}

impl Table {
    pub(super) fn random(random: &mut StdRng, server: &Server, breadth: Breadth) -> Self {
        let known: Vec<Type> = TYPES
            .iter()
            .filter(|(has, _)| has(server.kind))
            .map(|(_, make)| *make)
            .collect();
        let types = match breadth {
            Breadth::Every => known,
            Breadth::Some => (0..random.random_range(1..=14))
                .map(|_| *pick_ref(random, &known))
                .collect(),
        };
        let mut fields: Vec<Field> = types
            .into_iter()
            .enumerate()
            .map(|(n, make)| {
                let column = make(random, server);
                Field::random(random, format!("c{n}"), column)
            })
            .collect();
        let mut generated = Vec::new();
        if breadth == Breadth::Every || once_in(random, 4) {
            generated = generated_columns(random, breadth);
            let base = super::columns::column("INT", |random: &mut StdRng| {
                random.random_range(-100_000..100_000).to_string()
            });
            fields.push(Field::random(random, BASE.to_owned(), base));
        }
        let image = match random.random_range(0..8) {
            0 => "MINIMAL",
            1 => "NOBLOB",
            _ => "FULL",
        };
        Self {
            kind: server.kind,
            key: Key::random(random, server),
            key_place: random.random_range(0..=fields.len()),
            fields,
            generated,
            table_clause: server.table_clause(),
            image,
        }
    }

    /// The CREATE TABLE.
    pub(super) fn definition(&self) -> String {
        let mut parts: Vec<String> = self
            .fields
            .iter()
            .map(|field| field.definition(self.kind))
            .collect();
        let (columns, index) = self.key.definitions();
        parts.splice(self.key_place..self.key_place, columns);
        parts.extend(self.generated.iter().cloned());
        parts.extend(index);
        format!("CREATE TABLE t ({}){}", parts.join(", "), self.table_clause)
    }

    /// What makes the table.
    pub(super) fn statements(&self) -> Vec<String> {
        let mut statements = Vec::new();
        if matches!(self.key, Key::Hidden) {
            statements.push("SET sql_generate_invisible_primary_key = ON".to_owned());
        }
        statements.push(self.definition());
        statements
    }

    /// Settings of the session that writes to it once it is streamed.
    pub(super) fn sessions(&self, random: &mut StdRng) -> Vec<String> {
        let mut settings = vec![format!("SET binlog_row_image = '{}'", self.image)];
        match (self.kind, random.random()) {
            (SourceKind::MySql, true) => {
                settings.push("SET binlog_row_value_options = 'PARTIAL_JSON'".to_owned());
            }
            (SourceKind::MariaDb | SourceKind::MariaDb11, true) => {
                settings.push("SET column_compression_zlib_wrap = ON".to_owned());
            }
            (_, false) => {}
        }
        settings
    }

    /// Whether row images lack columns that must be read from the source.
    pub(super) fn reads_by_key(&self) -> bool {
        self.image != "FULL" || (self.kind == SourceKind::MariaDb11 && !self.generated.is_empty())
    }

    /// By its key, where that is no primary one.
    pub(super) fn comparison(&self) -> Comparison {
        comparison_by(match &self.key {
            Key::Own { primary: false, .. } => Some(self.key.names()),
            Key::Own { .. } | Key::Numbered | Key::Hidden => None,
        })
    }

    /// A row's values but for the key's, separated by commas.
    pub(super) fn values(&self, random: &mut StdRng) -> String {
        let values: Vec<String> = self
            .fields
            .iter()
            .map(|field| field.value(random))
            .collect();
        values.join(", ")
    }

    /// An INSERT of rows with these values, each with a key of its own.
    pub(super) fn insert(&self, random: &mut StdRng, rows: &[&String]) -> String {
        let rows: Vec<String> = rows
            .iter()
            .map(|row| {
                let mut values = self.key.literals(random);
                values.push((*row).clone());
                format!("({})", values.join(", "))
            })
            .collect();
        format!(
            "INSERT INTO t ({}) VALUES {}",
            self.names().join(", "),
            rows.join(", ")
        )
    }

    /// A DELETE, an UPDATE of the key or of other columns, or a further INSERT.
    pub(super) fn change(&self, random: &mut StdRng) -> String {
        // The rows that are meant follow from the seed.
        let order = format!("ORDER BY RAND({})", random.random_range(0..10_000));
        match random.random_range(0..10) {
            0 => format!("DELETE FROM t {order} LIMIT {}", random.random_range(1..3)),
            1 | 2 => match &self.key {
                Key::Numbered => format!("UPDATE t SET id = id + {} {order} LIMIT 2", 4 * ROWS),
                Key::Hidden => format!("DELETE FROM t {order} LIMIT 1"),
                Key::Own { .. } => self.change_of_key(random, &order),
            },
            3 => {
                let rows = [self.values(random), self.values(random)];
                self.insert(random, &[&rows[0], &rows[1]])
            }
            4 if matches!(self.key, Key::Numbered | Key::Hidden) => {
                let names = self.names().join(", ");
                format!("INSERT INTO t ({names}) SELECT {names} FROM t {order} LIMIT 2")
            }
            _ => {
                let count = random.random_range(1..=2);
                let changes: Vec<String> = (0..count)
                    .map(|_| pick_ref(random, &self.fields))
                    .collect::<Vec<_>>()
                    .into_iter()
                    .map(|field| field.change(random))
                    .collect();
                let limit = random.random_range(1..=4);
                format!("UPDATE t SET {} {order} LIMIT {limit}", changes.join(", "))
            }
        }
    }

    /// The whole key or one of its columns, and once in a while another column too.
    fn change_of_key(&self, random: &mut StdRng, order: &str) -> String {
        let literals = self.key.literals(random);
        let mut changes: Vec<String> = self
            .key
            .names()
            .into_iter()
            .zip(literals)
            .map(|(name, literal)| format!("{name} = {literal}"))
            .collect();
        if random.random() {
            changes.truncate(1);
        }
        if random.random() {
            changes.push(pick_ref(random, &self.fields).change(random));
        }
        format!("UPDATE t SET {} {order} LIMIT 1", changes.join(", "))
    }

    /// The columns that are written.
    fn names(&self) -> Vec<String> {
        let mut names = self.key.names();
        names.extend(self.fields.iter().map(|field| field.name.clone()));
        names
    }
}

impl Field {
    fn random(random: &mut StdRng, name: String, column: Column) -> Self {
        let nullable = random.random_range(0..3) > 0;
        let default = match column.default {
            _ if !once_in(random, 3) => None,
            Defaults::Literal => Some((column.literal)(random)),
            Defaults::Text(text) => Some(text.to_owned()),
            Defaults::Never => None,
        };
        Self {
            name,
            nullable,
            default,
            invisible: nullable && once_in(random, 8),
            column,
        }
    }

    fn definition(&self, kind: SourceKind) -> String {
        let name = &self.name;
        let definition = &self.column.definition;
        let null = if self.nullable { "NULL" } else { "NOT NULL" };
        let default = match (&self.default, self.nullable) {
            (Some(literal), _) => format!(" DEFAULT ({literal})"),
            (None, true) => " DEFAULT NULL".to_owned(),
            (None, false) => String::new(),
        };
        match (self.invisible, kind) {
            (false, _) => format!("{name} {definition} {null}{default}"),
            // Each server has an order of its own.
            (true, SourceKind::MySql) => format!("{name} {definition} {null}{default} INVISIBLE"),
            (true, _) => format!("{name} {definition} {null} INVISIBLE{default}"),
        }
    }

    fn value(&self, random: &mut StdRng) -> String {
        match random.random_range(0..6) {
            0 if self.nullable => "NULL".to_owned(),
            1 if self.default.is_some() => "DEFAULT".to_owned(),
            _ => (self.column.literal)(random),
        }
    }

    fn change(&self, random: &mut StdRng) -> String {
        let name = &self.name;
        match &self.column.edit {
            Some(edit) if random.random() => {
                format!("{name} = {}", edit(random).replace("{}", name))
            }
            _ => format!("{name} = {}", self.value(random)),
        }
    }
}

/// Stored or not, as it comes.
fn generated_columns(random: &mut StdRng, breadth: Breadth) -> Vec<String> {
    let chosen: Vec<&str> = match breadth {
        Breadth::Every => GENERATED.to_vec(),
        Breadth::Some => vec![pick(random, &GENERATED), pick(random, &GENERATED)],
    };
    chosen
        .into_iter()
        .enumerate()
        .map(|(n, definition)| {
            let kept = pick(random, &["STORED", "VIRTUAL"]);
            format!("g{n} {definition} {kept}")
        })
        .collect()
}
