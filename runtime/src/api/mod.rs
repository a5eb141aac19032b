//! The REST interface and the metrics of a running process.
//!
//! There are no tokens yet, so it listens on loopback only, and answers only to loopback's names: a page in somebody's
//! browser that points its own name at 127.0.0.1 gets nothing.

mod commands;
mod metrics;
mod problem;
mod routes;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::destination::clickhouse::DeadLetter;
use crate::error::{Error, ErrorKind, Result};
use crate::pipe::document::PipeDocument;
use crate::pipe::{Command, Replayed, Runtime};

/// What the interface needs of the pipes behind it.
pub trait Pipes: Send + Sync + 'static {
    /// Every pipe's document, by name.
    fn pipes(&self) -> Vec<PipeDocument>;

    /// One pipe's document.
    fn pipe(&self, name: &str) -> Option<PipeDocument>;

    /// Gives a command to a pipe. After Ok the new state is persisted; a command for the present state succeeds without
    /// effect; `IllegalCommand` names the state where it has no place.
    fn command(
        &self,
        name: &str,
        command: Command,
    ) -> impl Future<Output = Result<PipeDocument>> + Send;

    /// The dead letters of a pipe, of one table or of all, that have not been replayed; `limit` at most.
    fn letters(
        &self,
        name: &str,
        table: Option<&str>,
        limit: u64,
    ) -> impl Future<Output = Result<Vec<DeadLetter>>> + Send;

    /// Sends dead letters through the present plugins.
    fn replay_letters(
        &self,
        name: &str,
        table: Option<&str>,
    ) -> impl Future<Output = Result<Replayed>> + Send;
}

impl Pipes for Runtime {
    fn pipes(&self) -> Vec<PipeDocument> {
        self.pipes()
    }

    fn pipe(&self, name: &str) -> Option<PipeDocument> {
        self.pipe(name)
    }

    async fn command(&self, name: &str, command: Command) -> Result<PipeDocument> {
        self.command(name, command).await
    }

    async fn letters(
        &self,
        name: &str,
        table: Option<&str>,
        limit: u64,
    ) -> Result<Vec<DeadLetter>> {
        self.letters(name, table, limit).await
    }

    async fn replay_letters(&self, name: &str, table: Option<&str>) -> Result<Replayed> {
        self.replay_letters(name, table).await
    }
}

/// Takes the address. Done before any pipe starts, so that a taken port costs nothing.
///
/// # Errors
/// `Config` for an address that is not loopback, `Busy` for a taken one.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    if !address.ip().is_loopback() {
        return Err(Error::new(
            ErrorKind::Config,
            format!("listening on {address} would let anyone on the network command the pipes; access tokens are not built yet"),
        )
        .with_hint("listen on 127.0.0.1 or [::1], and reach it through an SSH tunnel or a proxy that asks for a password"));
    }
    TcpListener::bind(address).await.map_err(|error| {
        let hint = "another pipewright may be running here: stop it, or choose another port with --listen 127.0.0.1:PORT";
        Error::new(ErrorKind::Busy, format!("cannot listen on {address}"))
            .with_hint(hint)
            .with_source(error)
    })
}

/// Serves until `shutdown`; `/readyz` says no from the moment `draining` is cancelled.
///
/// # Errors
/// `Internal` when the listener breaks.
pub async fn serve<P: Pipes>(
    listener: TcpListener,
    pipes: Arc<P>,
    draining: CancellationToken,
    shutdown: CancellationToken,
) -> Result<()> {
    axum::serve(listener, routes::router(pipes, draining))
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .map_err(|error| {
            Error::new(ErrorKind::Internal, "the REST interface broke off").with_source(error)
        })
}
