//! The way to a running process: address, certificate, token, and what its refusals mean here.

use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::arguments::Server;
use super::exit::Exit;
use super::output::{Failure, Result};
use crate::error::{Error, ErrorKind};

/// A command answers when it is persisted: once the servers have been asked, and the work has stopped at a checkpoint.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Where the token is taken from: an argument would show in the list of processes.
const TOKEN_VARIABLE: &str = "PIPEWRIGHT_TOKEN";

/// A running process that can be asked.
pub(super) struct Connection {
    server: String,
    client: Client,
}

impl Connection {
    /// Prepares to ask; nothing is sent yet.
    ///
    /// # Errors
    /// Usage, for an address or a file that cannot be one.
    pub(super) fn new(server: &Server) -> Result<Self> {
        let usage = |error: Error| Failure::Error {
            exit: Exit::Usage,
            error,
        };
        let tls = crate::tls::client(server.ca.as_deref(), "--ca").map_err(usage)?;
        let mut headers = HeaderMap::new();
        if let Some(token) = std::env::var(TOKEN_VARIABLE)
            .ok()
            .filter(|token| !token.is_empty())
        {
            let mut value =
                HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(|_| {
                    usage(Error::new(
                        ErrorKind::Config,
                        format!("what {TOKEN_VARIABLE} holds is no access token"),
                    ))
                })?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let url = server.url.trim_end_matches('/').to_owned();
        // Nothing between us and the process: a proxy of the environment would send the question elsewhere.
        let client = Client::builder()
            .no_proxy()
            .use_preconfigured_tls(tls)
            .default_headers(headers)
            .build()
            .map_err(|error| unavailable(&url, error))?;
        Ok(Self {
            server: url,
            client,
        })
    }

    /// What a path shows.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.send(Method::GET, path, None).await
    }

    /// Sends a request that is answered with one JSON document.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T> {
        let mut request = self.request(method, path)?.timeout(ANSWER_TIMEOUT);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = self.answered(request).await?;
        let bytes = response.bytes().await;
        let bytes = bytes.map_err(|error| unavailable(&self.server, error))?;
        serde_json::from_slice(&bytes).map_err(|_| self.strange())
    }

    /// Opens a stream of server-sent events.
    pub(super) async fn stream(&self, path: &str) -> Result<Response> {
        let request = self.request(Method::GET, path)?;
        self.answered(request.header(header::ACCEPT, "text/event-stream"))
            .await
    }

    /// The next piece of a stream; none at its end.
    pub(super) async fn next(&self, stream: &mut Response) -> Result<Option<bytes::Bytes>> {
        let chunk = stream.chunk().await;
        chunk.map_err(|error| unavailable(&self.server, error))
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder> {
        let url = reqwest::Url::parse(&format!("{}{path}", self.server));
        let url = url.map_err(|error| Failure::Error {
            exit: Exit::Usage,
            error: Error::new(
                ErrorKind::Config,
                format!("`{}` is no address", self.server),
            )
            .with_hint("write --server http://127.0.0.1:8686")
            .with_source(error),
        })?;
        Ok(self.client.request(method, url))
    }

    async fn answered(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await;
        let response = response.map_err(|error| unavailable(&self.server, error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let bytes = response.bytes().await;
        let bytes = bytes.map_err(|error| unavailable(&self.server, error))?;
        Err(match serde_json::from_slice(&bytes) {
            Ok(refusal) => Failure::Refused(refusal),
            Err(_) => self.strange(),
        })
    }

    fn strange(&self) -> Failure {
        let message = format!(
            "what answers at {} is no pipewright of this version",
            self.server
        );
        Failure::Error {
            exit: Exit::Failed,
            error: Error::new(ErrorKind::Internal, message).with_hint("check --server"),
        }
    }
}

fn unavailable(server: &str, error: reqwest::Error) -> Failure {
    Failure::Error {
        exit: Exit::Unavailable,
        error: Error::new(
            ErrorKind::SourceUnavailable,
            format!("no pipewright answers at {server}"),
        )
        .with_hint("start one with `pipewright run pipe.yaml`, or name its address with --server")
        .with_source(error.without_url()),
    }
}
