//! The numbers of collations, by which table maps name a column's charset, against the servers' own lists.

use anyhow::{Result, ensure};
use pipewright::source::mysql::decode::charset_of_collation;
use testbed::SourceKind;
use testbed::harness::Stage;

use crate::support::on_all_sources;

on_all_sources! {
    every_collation_has_the_charset_that_the_server_says: 240,
}

/// Pitfall 22. MariaDB's list of collations leaves out the numbers of those that belong to several charsets; its list of
/// what is applicable has them.
async fn every_collation_has_the_charset_that_the_server_says(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let lists: &[&str] = match kind {
        SourceKind::MySql => &["collations"],
        SourceKind::MariaDb | SourceKind::MariaDb11 => {
            &["collations", "collation_character_set_applicability"]
        }
    };
    let at_least = match kind {
        SourceKind::MySql => 280,
        SourceKind::MariaDb | SourceKind::MariaDb11 => 320,
    };
    let mut counted = 0;
    let mut wrong = Vec::new();
    for list in lists {
        let rows: Vec<(u32, String, String)> = stage
            .source
            .rows(format!(
                "SELECT id, character_set_name, collation_name FROM information_schema.{list} \
                 WHERE id IS NOT NULL AND character_set_name IS NOT NULL"
            ))
            .await?;
        counted = counted.max(rows.len());
        wrong.extend(rows.into_iter().filter_map(|(number, charset, name)| {
            let found = charset_of_collation(number);
            (found != Some(charset.as_str()))
                .then(|| format!("{name} ({number}) of {charset}: {found:?}"))
        }));
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    ensure!(counted >= at_least, "only {counted} collations");
    Ok(())
}
