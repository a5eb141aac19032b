//! Error answers: RFC 9457 documents with a stable code and a hint.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::pipe::requests::Refused;

/// An error answer (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ProblemDocument")]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: Kind,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// What went wrong, for programs; it does not change between versions.
    code: String,
    /// What went wrong, for people.
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// The faults of a pipe document.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schemars(default)]
    problems: Box<[crate::config::Problem]>,
}

/// What a type of `about:blank` says: the title is the status's own, and `code` tells problems apart.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ProblemType")]
enum Kind {
    #[serde(rename = "about:blank")]
    AboutBlank,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        code: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind: Kind::AboutBlank,
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code: code.into(),
            detail: detail.into(),
            hint: None,
            problems: Box::default(),
        }
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same of one part of a request, whose other parts are carried out.
    pub(super) fn behind(mut self, done: &[&str], part: &str) -> Self {
        if !done.is_empty() {
            let done = done.join("`, `");
            let detail = &self.detail;
            self.detail =
                format!("`{done}` of the request are carried out, `{part}` is not: {detail}");
        }
        self
    }

    /// What stands against a pipe document.
    pub(super) fn of_document(problems: Vec<crate::config::Problem>) -> Self {
        let detail = "the pipe document has faults";
        Self {
            problems: problems.into(),
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "config", detail)
        }
    }
}

/// The chain below the message may name addresses and statements; it goes to the log, not to the caller.
impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::UnknownPipe => StatusCode::NOT_FOUND,
            ErrorKind::IllegalCommand => StatusCode::CONFLICT,
            ErrorKind::Stopped
            | ErrorKind::SourceUnavailable
            | ErrorKind::DestinationUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::State | ErrorKind::Busy | ErrorKind::Internal => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            // The servers or the pipe's own settings stand against what was asked.
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!("a command failed: {}", error.chain());
        }
        let problem = Self::new(status, error.kind().code(), error.to_string());
        match error.hint() {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Document(problems) => Self::of_document(problems),
            Refused::Error(error) => error.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self)).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}
