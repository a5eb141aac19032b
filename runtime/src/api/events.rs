//! A pipe's history, as a list or as a stream that goes on.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::Pipes;
use super::access::Pass;
use super::body::{Asked, Named};
use super::problem::Problem;
use super::routes::{Shared, find};
use crate::pipe::document::Timestamp;
use crate::pipe::journal::{EVENTS_KEPT, Event, Journal, Listener};
use crate::pipe::unknown_pipe;

/// Events of one answer, unless more or fewer are asked for.
const EVENTS_SHOWN: usize = 100;

/// How often a stream without events says that it goes on, and finds out whether it may. Proxies give up on connections
/// that say nothing for a minute.
const STILL_HERE: Duration = Duration::from_secs(15);

/// Streams of the whole process. Each takes a connection for as long as its reader likes, and of these
/// ([`super::server`]) most are to be left for requests.
pub(super) const STREAMS_MAX: usize = 64;

/// Which events are meant.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Which {
    /// Only events that are no older.
    since: Option<Timestamp>,
    /// Only events after the one with this id; the oldest of them first, so that asking again goes on.
    after: Option<u64>,
    /// How many at most.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

/// Events, oldest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct EventList {
    events: Vec<Event>,
}

pub(super) async fn events<P: Pipes>(
    State(shared): State<Shared<P>>,
    Named(name): Named,
    Asked(which): Asked<Which>,
    Extension(pass): Extension<Pass>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    find(&*shared.pipes, &name)?;
    let limit = which.limit.unwrap_or(EVENTS_SHOWN);
    if !(1..=EVENTS_KEPT).contains(&limit) {
        let detail = format!("`limit` is {limit}, and must be between 1 and {EVENTS_KEPT}");
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "query",
            detail,
        ));
    }
    // Dropped in between.
    let journal = shared.pipes.journal(&name);
    let journal = journal.ok_or_else(|| unknown_pipe(&name))?;
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let streamed = text(header::ACCEPT).is_some_and(|accept| accept.contains("text/event-stream"));
    if streamed {
        shared.ensure_staying()?;
        let place = Arc::clone(&shared.streams).try_acquire_owned();
        let place = place.map_err(|_| too_many_streams())?;
        let last_seen = text(header::HeaderName::from_static("last-event-id"));
        let after = last_seen
            .and_then(|id| id.trim().parse().ok())
            .or(which.after);
        let terms = Terms {
            pass,
            draining: shared.draining,
            _place: place,
        };
        let follower = Follower::new((shared.pipes, name), &journal, (after, which.since), terms);
        let alive = KeepAlive::new().interval(STILL_HERE);
        return Ok(Sse::new(follower.stream())
            .keep_alive(alive)
            .into_response());
    }
    let mut events = match which.after {
        Some(after) => journal.after(after, EVENTS_KEPT),
        None => journal.newest(which.since, limit),
    };
    events.retain(|event| which.since.is_none_or(|since| event.time >= since));
    events.truncate(limit);
    Ok(Json(EventList { events }).into_response())
}

fn too_many_streams() -> Problem {
    let detail = format!("{STREAMS_MAX} event streams are open, and there may be no more");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail)
        .with_hint("end one of them, or ask for the list again and again, with `after`")
}

/// How long a stream may go on, and its place among the others.
struct Terms {
    pass: Pass,
    draining: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// Reads the journal as it grows. It holds no more than the journal does, however slow the reader.
struct Follower<P> {
    pipes: Arc<P>,
    pipe: String,
    listener: Listener,
    /// No more comes to the journal that is listened to.
    is_over: bool,
    seen: u64,
    ready: VecDeque<Event>,
    terms: Terms,
}

impl<P: Pipes> Follower<P> {
    /// From the event after the given id, else from the given time, else from now on.
    fn new(
        (pipes, pipe): (Arc<P>, String),
        journal: &Journal,
        (after, since): (Option<u64>, Option<Timestamp>),
        terms: Terms,
    ) -> Self {
        let listener = journal.listen();
        let last = listener.newest();
        let seen = match (after, since) {
            // An id of a former pipe of this name, or of a state that was put back, tells nothing of this one.
            (Some(after), _) if after > last => 0,
            (Some(after), _) => after,
            (None, None) => last,
            (None, Some(_)) => journal
                .newest(since, EVENTS_KEPT)
                .first()
                .map_or(last, |event| event.id - 1),
        };
        Self {
            pipes,
            pipe,
            listener,
            is_over: false,
            seen,
            ready: VecDeque::new(),
            terms,
        }
    }

    fn stream(self) -> impl Stream<Item = Result<Message, Infallible>> {
        futures_util::stream::unfold(self, async |mut follower| {
            let event = follower.next().await?;
            // The type serialises: it holds texts, numbers and names.
            let message = Message::default()
                .id(event.id.to_string())
                .json_data(&event);
            Some((Ok(message.unwrap_or_default()), follower))
        })
    }

    /// The next event; none when the pipe is dropped, the process is going, or the token is valid no longer.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.terms.pass.is_revoked() {
                return None;
            }
            if let Some(event) = self.ready.pop_front() {
                self.seen = event.id;
                return Some(event);
            }
            self.ready = self.listener.after(self.seen).into();
            if !self.ready.is_empty() {
                continue;
            }
            if self.is_over {
                self.listener = self.successor()?;
                self.is_over = false;
                continue;
            }
            tokio::select! {
                more = self.listener.changed() => self.is_over = !more,
                () = self.terms.draining.cancelled() => return None,
                () = tokio::time::sleep(STILL_HERE) => {}
            }
        }
    }

    /// What goes on with the history, of a pipe that was made anew with a changed file. One that was dropped has none, and
    /// one that only has its name begins to count again.
    fn successor(&self) -> Option<Listener> {
        let listener = self.pipes.journal(&self.pipe)?.listen();
        (listener.newest() >= self.seen).then_some(listener)
    }
}
