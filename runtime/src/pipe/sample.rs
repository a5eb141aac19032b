//! A few rows of a real table through its plugins, with nothing written anywhere.

use std::sync::Arc;

use crate::batch::{ChangeBatch, Changes, TableName};
use crate::config::{PipeConfig, TableConfig, match_tables};
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::Source;
use crate::source::mysql::catalog::{self, SourceTable};
use crate::source::mysql::decode::TableBuilder;
use crate::source::mysql::snapshot::{Partition, PartitionReader, SnapshotSession};
use crate::transform::{Applied, Chain, Engine, first_start};

/// Rows before and after a table's plugins.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The source table.
    pub table: TableName,
    /// Its plugins.
    pub chain: Chain,
    /// Each row as it was read, and what became of it: nothing where a plugin dropped it.
    pub rows: Vec<(ChangeBatch, Applied)>,
}

/// Reads some rows of the table `wanted` (`database.table`), or of the only one that has plugins, and sends each through.
///
/// # Errors
/// When the source cannot be read, the pipe file means no such table, or a plugin refuses or fails.
pub async fn sample(
    engine: &Arc<Engine>,
    config: &PipeConfig,
    wanted: Option<&str>,
    rows: usize,
) -> Result<Sample> {
    let source = Source::connect(&config.source, None).await?;
    let (entry, table) = choose(config, &source, wanted).await?;
    let chain = bind(engine, config, &entry, &table).await?;
    let mut batches = Vec::new();
    for batch in read(config, &source, &table, rows).await? {
        let after = chain.apply(batch.clone()).await?;
        batches.push((batch, after));
    }
    Ok(Sample {
        table: table.name().clone(),
        chain,
        rows: batches,
    })
}

async fn choose(
    config: &PipeConfig,
    source: &Source,
    wanted: Option<&str>,
) -> Result<(TableConfig, SourceTable)> {
    let mut conn = source.control().await?;
    let listed = catalog::list_tables(&mut conn).await?;
    let names: Vec<TableName> = listed.into_iter().map(|table| table.name).collect();
    let matched = match_tables(&config.tables, &names).map_err(|findings| {
        let found = findings
            .first()
            .map_or_else(String::new, |finding| finding.found.clone());
        Error::new(
            ErrorKind::Config,
            format!("the tables of the pipe file cannot be told: {found}"),
        )
    })?;
    let mut fitting = matched.into_iter().filter(|(entry, name)| match wanted {
        Some(wanted) => name.to_string() == wanted,
        None => !entry.transforms.is_empty(),
    });
    let (entry, name) = match (fitting.next(), fitting.next()) {
        (Some(found), None) => found,
        (None, _) => {
            return Err(Error::new(
                ErrorKind::Config,
                wanted.map_or_else(
                    || format!("no table of pipe `{}` has transforms", config.pipe),
                    |wanted| format!("pipe `{}` means no table `{wanted}`", config.pipe),
                ),
            ));
        }
        (Some(_), Some(_)) => {
            return Err(Error::new(
                ErrorKind::Config,
                format!("several tables of pipe `{}` have transforms", config.pipe),
            )
            .with_hint("choose one: --table database.table"));
        }
    };
    let names = [name];
    let mut tables =
        catalog::load_tables(&mut conn, source, &names, |_| entry.exclude_columns.clone()).await?;
    conn.disconnect().await.ok();
    let table = tables.pop().ok_or_else(|| {
        Error::new(ErrorKind::SourceMissing, "the table is gone").with_table(&names[0])
    })?;
    Ok((entry, table))
}

async fn bind(
    engine: &Arc<Engine>,
    config: &PipeConfig,
    entry: &TableConfig,
    table: &SourceTable,
) -> Result<Chain> {
    let mut plugins = Vec::new();
    for name in &entry.transforms {
        let transform = config.transforms.get(name).ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("no transform is named `{name}`"))
        })?;
        plugins.push(first_start(|| engine.load(name, transform)).await?);
    }
    let bound = first_start(|| Chain::bind(&plugins, Arc::clone(&table.schema))).await;
    bound.map_err(|error| error.with_table(table.name()))
}

/// Each row a batch of its own, so that what becomes of it can be told.
async fn read(
    config: &PipeConfig,
    source: &Source,
    table: &SourceTable,
    rows: usize,
) -> Result<Vec<ChangeBatch>> {
    let partition = Partition {
        number: 0,
        predicate: "TRUE".to_owned(),
        description: "a sample".to_owned(),
    };
    let mut packets: Vec<Vec<u8>> = Vec::new();
    let mut reader = PartitionReader::new(SnapshotSession::open(source, None).await?);
    reader.start(table, &partition).await?;
    let mut more = true;
    while more && packets.len() < rows {
        more = reader
            .next_rows(|packet| {
                if packets.len() < rows {
                    packets.push(packet.to_vec());
                }
                Ok(())
            })
            .await?;
    }
    // Kills the SELECT where it is still running.
    reader.close().await;
    let mut builder = TableBuilder::new(table, !config.nullable)?;
    packets
        .iter()
        .map(|packet| {
            builder.push_packet_row(packet)?;
            Ok(ChangeBatch {
                schema: Arc::clone(&table.schema),
                row_count: builder.row_count(),
                columns: builder.finish(),
                changes: Changes::Load,
            })
        })
        .collect()
}
