//! What a round must know of its server: its kind, and the charsets and collations that it has.

use anyhow::{Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;

use super::columns::{once_in, pick_ref};
use crate::SourceKind;
use crate::harness::Stage;

/// Charsets that many tables have; the others come as often together.
const USUAL: [&str; 3] = ["utf8mb4", "utf8mb3", "latin1"];

/// A server, and the charset of the round's table.
pub(super) struct Server {
    pub(super) kind: SourceKind,
    /// A charset, and each of its collations.
    collations: Vec<(String, String)>,
    default: (String, String),
}

impl Server {
    pub(super) async fn ask(stage: &Stage, random: &mut StdRng) -> Result<Self> {
        let kind = stage.kind();
        // MariaDB's newer collations belong to several charsets, and have a name with each.
        let name = match kind {
            SourceKind::MySql => "collation_name",
            SourceKind::MariaDb | SourceKind::MariaDb11 => "full_collation_name",
        };
        let collations: Vec<(String, String)> = stage
            .source
            .rows(format!(
                "SELECT character_set_name, {name} FROM information_schema.collation_character_set_applicability \
                 WHERE character_set_name <> 'binary' ORDER BY 1, 2"
            ))
            .await?;
        ensure!(!collations.is_empty(), "the server has no collations");
        let mut server = Self {
            kind,
            collations,
            default: Default::default(),
        };
        server.default = server.charset_of_its_own(random);
        Ok(server)
    }

    /// What a table's definition says of its charset.
    pub(super) fn table_clause(&self) -> String {
        clause(&self.default)
    }

    /// A charset by its name, and what a column's definition says of it: nothing where it is the table's.
    pub(super) fn charset(&self, random: &mut StdRng) -> (String, String) {
        if once_in(random, 5) {
            return (self.default.0.clone(), String::new());
        }
        let chosen = self.charset_of_its_own(random);
        let clause = clause(&chosen);
        (chosen.0, clause)
    }

    fn charset_of_its_own(&self, random: &mut StdRng) -> (String, String) {
        let mut names: Vec<&str> = self
            .collations
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        names.dedup();
        let charset = match random.random() {
            true => *pick_ref(random, &USUAL),
            false => *pick_ref(random, &names),
        };
        let of_it: Vec<&(String, String)> = self
            .collations
            .iter()
            .filter(|(name, _)| name == charset)
            .collect();
        (*pick_ref(random, &of_it)).clone()
    }
}

fn clause((charset, collation): &(String, String)) -> String {
    format!(" CHARACTER SET {charset} COLLATE {collation}")
}
