//! The accept loop: connections, their number, and what each may cost before a route is chosen.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// People, scripts, a scraper and some event streams; a flood waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;

/// Who has not sent a request's head within this is not about to.
const HEAD_TIME: Duration = Duration::from_secs(15);

/// As browsers and proxies limit themselves.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// How long answers under way may take once the process is to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// A broken accept is the machine's trouble (no more file descriptors), and passes.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until `shutdown`, then lets answers under way finish for a moment.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, stream) = tokio::select! {
            (place, accepted) = accepted => match accepted {
                Ok((stream, _)) => (place, stream),
                Err(error) => {
                    tracing::warn!("a connection cannot be accepted: {error}");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => break,
        };
        let (tls, router, shutdown) = (tls.clone(), router.clone(), shutdown.clone());
        connections.spawn(async move {
            connection(stream, tls, router, shutdown).await;
            drop(place);
        });
    }
    let all = async { while connections.join_next().await.is_some() {} };
    // What is still open then is ended with the set.
    tokio::time::timeout(FAREWELL, all).await.ok();
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    shutdown: CancellationToken,
) {
    // Small answers must not wait for an acknowledgement; a socket that is gone already says so later.
    stream.set_nodelay(true).ok();
    let Some(tls) = tls else {
        return requests(stream, router, shutdown).await;
    };
    match tokio::time::timeout(HEAD_TIME, tls.accept(stream)).await {
        Ok(Ok(stream)) => requests(stream, router, shutdown).await,
        Ok(Err(error)) => tracing::debug!("a TLS handshake broke: {error}"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    shutdown: CancellationToken,
) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!("a connection broke: {error}");
    }
}
