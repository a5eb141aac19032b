//! The connections under the `clickhouse` crate.
//!
//! The crate's own connector leaves Nagle's algorithm on: the end of each request then waits for the acknowledgement of
//! what came before, which Linux delays by 40 ms. Measured on loopback, a one-row insert took 44 ms with it. It also has
//! no limit on connecting, so that a host that vanished would be noticed after two minutes.

use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// How long one connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// When an idle connection is probed, so that a dead one is noticed while an answer is awaited.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Below the 3 s after which old servers close idle connections themselves, and a request would meet the closing.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// A client for `http` and `https`, without an address yet. Certificates are checked against the public authorities.
pub(super) fn client() -> clickhouse::Client {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(KEEPALIVE));
    connector.enforce_http(false);
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
        .expect("the ring provider has the default protocol versions")
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE_MAX)
        .build(connector);
    clickhouse::Client::with_http_client(client)
}
