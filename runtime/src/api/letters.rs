//! Dead letters over REST: shown, and sent through the plugins again.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Pipes;
use super::body::Asked;
use super::openapi::Catalogue;
use super::problem::Problem;
use super::routes::{Shared, find};
use crate::pipe::{DeadLetter, Replayed};

/// Letters of one answer, which hold whole rows, unless more or fewer are asked for.
const LETTERS_SHOWN: u64 = 100;

/// And at most.
const LETTERS_SHOWN_MAX: u64 = 1000;

/// Which dead letters are shown.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Shown {
    /// Only those of this source table, as `database.table`.
    table: Option<String>,
    /// How many at most; 100 when absent. Rows of more than 16 MiB together are never one answer, but for a single one.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u64>,
}

/// Which dead letters are sent again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sent {
    /// Only those of this source table, as `database.table`.
    table: Option<String>,
}

/// Dead letters, in order of their versions.
#[derive(Debug, Serialize, JsonSchema)]
struct LetterList {
    dead_letters: Vec<DeadLetter>,
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
    Path(name): Path<String>,
    Asked(which): Asked<Shown>,
) -> Result<Json<LetterList>, Problem> {
    find(&*shared.pipes, &name)?;
    let limit = which.limit.unwrap_or(LETTERS_SHOWN);
    if !(1..=LETTERS_SHOWN_MAX).contains(&limit) {
        let detail = format!("`limit` is {limit}, and must be between 1 and {LETTERS_SHOWN_MAX}");
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "query",
            detail,
        ));
    }
    let read = shared.pipes.letters(&name, which.table.as_deref(), limit);
    let dead_letters = read.await?;
    Ok(Json(LetterList { dead_letters }))
}

async fn replay<P: Pipes>(
    State(shared): State<Shared<P>>,
    Path(name): Path<String>,
    Asked(which): Asked<Sent>,
) -> Result<Json<Replayed>, Problem> {
    find(&*shared.pipes, &name)?;
    let replayed = shared.pipes.replay_letters(&name, which.table.as_deref());
    Ok(Json(replayed.await?))
}
