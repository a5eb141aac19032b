//! The exchange of freshly loaded tables for the live ones, each atomic, so that readers always see a full table.
//!
//! The stream stands still: its last checkpoint covers everything in both tables. The identities are recorded before the
//! exchange and compared after a restart; the table's own record says that it is done.

use super::attach::connected;
use super::lifecycle::PipeEvent;
use super::record::Exchange;
use super::supervisor::Pipe;
use super::table_state::TableEvent;
use crate::batch::TableName;
use crate::config::Mode;
use crate::destination::clickhouse::Owner;
use crate::error::{Error, ErrorKind, Result};
use crate::fault;

/// Exchanges every table whose load has passed its end place, then moves the pipe on.
///
/// # Errors
/// Whatever the destination fails with; what is done stays done.
pub(super) async fn swap(pipe: &Pipe) -> Result<()> {
    let session = connected(pipe).await?;
    fault::point("swap:1");
    let owner = Owner::new(pipe.store.pipe(), pipe.store.record().id);
    let records = pipe.store.records();
    for name in records.names_where(|table| table.state.is_loading()) {
        let shadow = pipe
            .store
            .records()
            .tables
            .get(&name)
            .and_then(|table| table.shadow.clone());
        if let Some(shadow) = shadow {
            let table = session.table(&name);
            let exchange = match shadow.exchange {
                Some(exchange) => exchange,
                None => identities(pipe, &session.destination, &name, &shadow.name).await?,
            };
            session
                .destination
                .exchange(
                    &table.target,
                    &shadow.name,
                    exchange.live.as_deref(),
                    &exchange.shadow,
                    &owner,
                )
                .await?;
            fault::point("swap:6");
            tracing::info!(pipe = pipe.store.pipe(), table = %name, "the freshly loaded table is live");
        }
        pipe.store
            .commit(|draft| {
                draft.table_mut(&name).shadow = None;
                draft.table_event(&name, TableEvent::Loaded)
            })
            .await?;
        fault::point("swap:7");
    }
    pipe.transition(match pipe.config.mode {
        Mode::Snapshot => PipeEvent::SwappedAndDone,
        Mode::Cdc | Mode::CdcOnly => PipeEvent::Swapped,
    })
    .await?;
    fault::point("swap:8");
    Ok(())
}

/// Records what both tables are before they are exchanged.
async fn identities(
    pipe: &Pipe,
    destination: &crate::destination::clickhouse::ClickHouse,
    name: &TableName,
    shadow: &str,
) -> Result<Exchange> {
    let records = pipe.store.records();
    let target = records
        .tables
        .get(name)
        .map(|table| table.target.clone())
        .unwrap_or_default();
    let gone = || {
        Error::new(
            ErrorKind::DestinationLost,
            format!("the table `{shadow}`, which was loaded to replace `{target}`, is gone"),
        )
        .with_table(name)
        .with_hint("resync the pipe")
    };
    let exchange = Exchange {
        live: destination.identity(&target).await?,
        shadow: destination.identity(shadow).await?.ok_or_else(gone)?,
    };
    fault::point("swap:2");
    pipe.store
        .commit(|draft| {
            if let Some(shadow) = &mut draft.table_mut(name).shadow {
                shadow.exchange = Some(exchange.clone());
            }
            Ok(())
        })
        .await?;
    fault::point("swap:3");
    Ok(exchange)
}
