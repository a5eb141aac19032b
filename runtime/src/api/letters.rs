//! Dead letters over REST: shown, and sent through the plugins again.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Pipes;
use super::body::{Asked, Named};
use super::openapi::Catalogue;
use super::problem::Problem;
use super::routes::{Shared, find};
use crate::pipe::{DeadLetter, LetterPage, LetterPlace, Letters, Replayed};

/// Letters of one answer, which hold whole rows, unless more or fewer are asked for.
const LETTERS_SHOWN: u64 = 100;

/// And at most.
const LETTERS_SHOWN_MAX: u64 = 1000;

/// Letters that one request sends again, at most, where it says how many.
const LETTERS_SENT_MAX: u64 = 10_000;

/// Which dead letters are shown.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Shown {
    /// Only those of this source table, as `database.table`.
    table: Option<String>,
    /// How many at most; 100 when absent. Rows of more than 16 MiB together are never one answer, but for a single one.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u64>,
    /// Only those behind this place: `next` of the answer before.
    after: Option<LetterPlace>,
}

/// Which dead letters are sent again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sent {
    /// Only those of this source table, as `database.table`.
    table: Option<String>,
    /// How many at most; all of them when absent, which may take longer than a client waits.
    #[schemars(range(min = 1, max = 10_000))]
    limit: Option<u64>,
    /// Only those behind this place: `next` of the answer before.
    after: Option<LetterPlace>,
}

/// Dead letters, in order of their tables and versions.
#[derive(Debug, Serialize, JsonSchema)]
struct LetterList {
    dead_letters: Vec<DeadLetter>,
    /// Behind which to go on, as `after`; absent when there are no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<LetterPlace>,
}

/// Registers both routes.
pub(super) fn describe<P: Pipes>(mut routes: Catalogue<Shared<P>>) -> Catalogue<Shared<P>> {
    let at = (Method::GET, "/v1/pipes/{pipe}/dead-letters");
    let summary = "Rows that a plugin could not transform and that have not passed since.";
    let query = routes.query::<Shown>();
    let op = routes.answering::<LetterList>(at, "listDeadLetters", summary);
    routes = routes.serve(op.with_query(query), list::<P>);

    let at = (Method::POST, "/v1/pipes/{pipe}/dead-letters/replay");
    let summary =
        "Sends dead letters through the present plugins, each with the version that its row had.";
    let query = routes.query::<Sent>();
    let op = routes.answering::<Replayed>(at, "replayDeadLetters", summary);
    routes.serve(op.with_query(query), replay::<P>)
}

async fn list<P: Pipes>(
    State(shared): State<Shared<P>>,
    Named(name): Named,
    Asked(which): Asked<Shown>,
) -> Result<Json<LetterList>, Problem> {
    find(&*shared.pipes, &name)?;
    let limit = which.limit.unwrap_or(LETTERS_SHOWN);
    ensure_within(limit, LETTERS_SHOWN_MAX)?;
    let which = Letters {
        table: which.table.as_deref(),
        after: which.after,
        limit: Some(limit),
    };
    let LetterPage { letters, next } = shared.pipes.letters(&name, &which).await?;
    Ok(Json(LetterList {
        dead_letters: letters,
        next,
    }))
}

fn ensure_within(limit: u64, most: u64) -> Result<(), Problem> {
    if (1..=most).contains(&limit) {
        return Ok(());
    }
    let detail = format!("`limit` is {limit}, and must be between 1 and {most}");
    Err(Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "query",
        detail,
    ))
}

async fn replay<P: Pipes>(
    State(shared): State<Shared<P>>,
    Named(name): Named,
    Asked(which): Asked<Sent>,
) -> Result<Json<Replayed>, Problem> {
    find(&*shared.pipes, &name)?;
    if let Some(limit) = which.limit {
        ensure_within(limit, LETTERS_SENT_MAX)?;
    }
    let which = Letters {
        table: which.table.as_deref(),
        after: which.after,
        limit: which.limit,
    };
    let replayed = shared.pipes.replay_letters(&name, which);
    Ok(Json(replayed.await?))
}
