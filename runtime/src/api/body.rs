//! Bodies and queries, bounded in size and time, with problem documents for what cannot be read.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// A pipe file of some thousand tables; nothing larger is meant for us.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Who needs longer for that is not about to finish.
const BODY_TIME: Duration = Duration::from_secs(30);

/// A request's whole body.
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match tokio::time::timeout(BODY_TIME, Bytes::from_request(request, state)).await {
            Ok(Ok(bytes)) => Ok(Self(bytes)),
            Ok(Err(rejection)) => Err(Problem::new(
                rejection.status(),
                "body",
                "the request's body cannot be read",
            )
            .with_hint(format!("send at most {BODY_BYTES_MAX} bytes"))),
            Err(_) => Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "body",
                "the request's body did not come in time",
            )),
        }
    }
}

/// The pipe that a path names.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(rejection) => {
                Err(
                    Problem::new(StatusCode::NOT_FOUND, "unknown_pipe", rejection.body_text())
                        .with_hint("a pipe's name has letters, digits, `_` and `-`"),
                )
            }
        }
    }
}

/// What stands behind the question mark.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(rejection) => Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "query",
                rejection.body_text(),
            )
            .with_hint("/openapi.json describes the parameters")),
        }
    }
}
