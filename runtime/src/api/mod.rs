//! The REST interface and the metrics of a running process.
//!
//! Without tokens it listens on loopback only, and answers only to loopback's names (`access`). What each request may
//! cost is bounded: connections, a head's bytes and time (`server`), a body's bytes and time (`body`), streams that stay
//! open (`events`). Every route is registered together with its description (`openapi`), so `/openapi.json` cannot leave
//! one out.

mod access;
mod body;
mod commands;
mod events;
mod letters;
mod metrics;
mod openapi;
mod problem;
mod routes;
mod server;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use access::{Role, Tokens};

use crate::error::{Error, ErrorKind, Result};
use crate::pipe::document::PipeDocument;
use crate::pipe::journal::Journal;
use crate::pipe::requests::{Refused, Validation};
use crate::pipe::{Command, LetterPage, Letters, Replayed, Runtime};
use crate::source::mysql::inspect::Inspection;

/// What the interface needs of the pipes behind it.
pub trait Pipes: Send + Sync + 'static {
    /// Every pipe's document, by name.
    fn pipes(&self) -> Vec<PipeDocument>;

    /// One pipe's document.
    fn pipe(&self, name: &str) -> Option<PipeDocument>;

    /// What has happened to a pipe.
    fn journal(&self, name: &str) -> Option<Arc<Journal>>;

    /// Gives a command to a pipe. After Ok the new state is persisted; a command for the present state succeeds without
    /// effect; `IllegalCommand` names the state where it has no place.
    fn command(
        &self,
        name: &str,
        command: Command,
    ) -> impl Future<Output = Result<PipeDocument>> + Send;

    /// Dead letters of a pipe that have not been replayed.
    fn letters(
        &self,
        name: &str,
        which: &Letters<'_>,
    ) -> impl Future<Output = Result<LetterPage>> + Send;

    /// Sends dead letters through the present plugins.
    fn replay_letters(
        &self,
        name: &str,
        which: Letters<'_>,
    ) -> impl Future<Output = Result<Replayed>> + Send;

    /// Makes a pipe of a document that was sent.
    fn create(&self, text: &str) -> impl Future<Output = Result<PipeDocument, Refused>> + Send;

    /// Says everything that stands against a document.
    fn validate(&self, text: &str) -> impl Future<Output = Validation> + Send;

    /// Looks at a source, given as the section of a document.
    fn inspect(&self, section: Value) -> impl Future<Output = Result<Inspection, Refused>> + Send;

    /// The document that a pipe runs by, with what commands have changed.
    fn file(&self, name: &str) -> Option<Value>;
}

impl Pipes for Runtime {
    fn pipes(&self) -> Vec<PipeDocument> {
        self.pipes()
    }

    fn pipe(&self, name: &str) -> Option<PipeDocument> {
        self.pipe(name)
    }

    fn journal(&self, name: &str) -> Option<Arc<Journal>> {
        self.journal(name)
    }

    async fn command(&self, name: &str, command: Command) -> Result<PipeDocument> {
        self.command(name, command).await
    }

    async fn letters(&self, name: &str, which: &Letters<'_>) -> Result<LetterPage> {
        self.letters(name, which).await
    }

    async fn replay_letters(&self, name: &str, which: Letters<'_>) -> Result<Replayed> {
        self.replay_letters(name, which).await
    }

    async fn create(&self, text: &str) -> Result<PipeDocument, Refused> {
        self.create(text).await
    }

    async fn validate(&self, text: &str) -> Validation {
        self.validate(text).await
    }

    async fn inspect(&self, section: Value) -> Result<Inspection, Refused> {
        self.inspect(section).await
    }

    fn file(&self, name: &str) -> Option<Value> {
        self.file(name)
    }
}

/// Where the interface listens, and for whom.
#[derive(Clone, Debug)]
pub struct Access {
    /// The address.
    pub address: SocketAddr,
    /// The file of access tokens; everybody who reaches the address may do everything when absent.
    pub token_file: Option<PathBuf>,
    /// PEM files of certificate chain and private key; plain text when absent.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// An address taken, and all that guards it read.
#[derive(Debug)]
pub struct Interface {
    listener: TcpListener,
    tokens: Option<Tokens>,
    tls: Option<rustls::ServerConfig>,
    address: SocketAddr,
}

/// Takes the address. Done before any pipe starts, so that a taken port costs nothing.
///
/// # Errors
/// `Config` for an address that is not loopback without tokens, or a file that cannot be used; `Busy` for a taken address.
pub async fn listen(access: &Access) -> Result<Interface> {
    let address = access.address;
    if access.token_file.is_none() && !address.ip().is_loopback() {
        return Err(Error::new(
            ErrorKind::Config,
            format!("listening on {address} without access tokens would let anyone on the network command the pipes"),
        )
        .with_hint("name a file of tokens with --token-file, or listen on 127.0.0.1 or [::1]"));
    }
    let tokens = access.token_file.as_deref().map(Tokens::open).transpose()?;
    let tls = match &access.tls {
        Some((chain, key)) => Some(crate::tls::server(chain, key)?),
        None => None,
    };
    if tls.is_none() && !address.ip().is_loopback() {
        tracing::warn!(
            "tokens and rows' positions cross the network in plain text: give --tls-cert and --tls-key, or put a proxy \
             that speaks TLS in front"
        );
    }
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let hint = "another pipewright may be running here: stop it, or choose another port with --listen 127.0.0.1:PORT";
        Error::new(ErrorKind::Busy, format!("cannot listen on {address}"))
            .with_hint(hint)
            .with_source(error)
    })?;
    Ok(Interface {
        address: listener.local_addr().unwrap_or(address),
        listener,
        tokens,
        tls,
    })
}

impl Interface {
    /// Where it answers.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until `shutdown`; `/readyz` says no, and event streams end, from the moment `draining` is cancelled.
    pub async fn serve<P: Pipes>(
        self,
        pipes: Arc<P>,
        draining: CancellationToken,
        shutdown: CancellationToken,
    ) {
        let gate = access::Gate {
            tokens: self.tokens,
            loopback: self.address.ip().is_loopback(),
        };
        let tls = self.tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let router = routes::router(pipes, draining, Arc::new(gate));
        server::serve(self.listener, tls, router, shutdown).await;
    }
}
