//! `pipewright dead-letters`: any number of letters, a page at a time.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::arguments::{DeadLetters, Letters, Shown};
use super::client::named;
use super::connection::Connection;
use super::exit::Exit;
use super::output::{self, Result};
use crate::pipe::{DeadLetter, LetterPlace, Replayed};

/// Letters that are asked for at once.
const SHOWN_AT_ONCE: u64 = 1000;

/// Letters that are sent again at once: a start, and the most.
const SENT_AT_ONCE: (u64, u64) = (1000, 10_000);

/// Sending again takes as long as the plugins do; who waits longer than this is told how far it is.
const SILENCE: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct LetterList {
    dead_letters: Vec<DeadLetter>,
    next: Option<LetterPlace>,
}

/// What a request asks for.
struct Query<'a> {
    table: Option<&'a str>,
    limit: u64,
    after: Option<&'a str>,
}

pub(super) async fn dead_letters(verb: DeadLetters, as_json: bool) -> Result<Exit> {
    match verb {
        DeadLetters::List(options) => list(&options, as_json).await,
        DeadLetters::Replay(options) => replay(&options, as_json).await,
    }
}

async fn list(options: &Shown, as_json: bool) -> Result<Exit> {
    let path = path(&options.which, "").await?;
    let connection = Connection::new(&options.which.ask.server)?;
    let (mut left, mut after) = (options.limit, options.after.clone());
    let mut gathered = Vec::new();
    loop {
        let query = Query {
            table: options.which.table.as_deref(),
            limit: left.min(SHOWN_AT_ONCE),
            after: after.as_deref(),
        };
        let LetterList { dead_letters, next } = connection.get(&query.behind(&path)).await?;
        left = left.saturating_sub(dead_letters.len() as u64);
        after = next.map(String::from);
        if as_json {
            gathered.extend(dead_letters);
        } else {
            output::text(&dead_letters.iter().map(shown).collect::<String>());
        }
        if left == 0 || after.is_none() {
            break;
        }
    }
    if as_json {
        let mut document = json!({ "dead_letters": gathered });
        if let Some(next) = after {
            document["next"] = next.into();
        }
        output::data(&document);
    } else if let Some(next) = after {
        output::note(&format!(
            "there are more: raise --limit, or go on with --after {next}\n"
        ));
    }
    Ok(Exit::Done)
}

async fn replay(options: &Letters, as_json: bool) -> Result<Exit> {
    let path = path(options, "/replay").await?;
    let connection = Connection::new(&options.ask.server)?;
    let mut all = Replayed::default();
    let (mut limit, mut told_at) = (SENT_AT_ONCE.0, Instant::now());
    loop {
        let after = all.next.take().map(String::from);
        let query = Query {
            table: options.table.as_deref(),
            limit,
            after: after.as_deref(),
        };
        let began = Instant::now();
        let path = query.behind(&path);
        let sent = connection.send(Method::POST, &path, None);
        let sent: Replayed = sent.await.inspect_err(|_| {
            if all != Replayed::default() {
                output::note(&format!("before that: {}", told(&all)));
            }
        })?;
        limit = next_limit(limit, began.elapsed());
        all.add(sent);
        if all.next.is_none() {
            break;
        }
        if told_at.elapsed() >= SILENCE {
            told_at = Instant::now();
            output::note(&format!("so far: {}", counts(&all)));
        }
    }
    match as_json {
        true => output::data(&json!(all)),
        false => output::text(&told(&all)),
    }
    Ok(match all.failing + all.waiting {
        0 => Exit::Done,
        _ => Exit::Failed,
    })
}

/// So many that an answer takes some seconds, whatever the plugins do: a connection does not wait for ever.
fn next_limit(limit: u64, took: Duration) -> u64 {
    if took < SILENCE / 2 {
        return (2 * limit).min(SENT_AT_ONCE.1);
    }
    if took > 2 * SILENCE {
        return (limit / 4).max(1);
    }
    limit
}

async fn path(options: &Letters, below: &str) -> Result<String> {
    let name = named(&options.ask).await?;
    Ok(format!("/v1/pipes/{name}/dead-letters{below}"))
}

impl Query<'_> {
    /// The path with this behind it.
    fn behind(&self, path: &str) -> String {
        // Only to write names as a query does.
        let limit = self.limit.to_string();
        let mut pairs = vec![("limit", limit.as_str())];
        pairs.extend(self.table.map(|table| ("table", table)));
        pairs.extend(self.after.map(|after| ("after", after)));
        let url = reqwest::Url::parse_with_params("http://localhost", pairs);
        let url = url.expect("an address that is written here");
        format!("{path}?{}", url.query().unwrap_or_default())
    }
}

/// A letter, for people.
fn shown(letter: &DeadLetter) -> String {
    format!(
        "{} {} {} version {}: plugin {}: {}: {}\n  {}\n",
        letter.table,
        letter.key,
        letter.op,
        letter.version,
        letter.plugin,
        letter.code,
        letter.reason,
        letter.row
    )
}

fn counts(replayed: &Replayed) -> String {
    let Replayed {
        passed, failing, ..
    } = replayed;
    format!("{passed} passed, {failing} fail still\n")
}

/// What became of letters, for people.
fn told(replayed: &Replayed) -> String {
    let mut text = counts(replayed);
    if replayed.waiting > 0 {
        let waiting = replayed.waiting;
        text += &format!("{waiting} are of rows beyond the checkpoint: replay them in a moment\n");
    }
    for unfit in &replayed.unfit {
        let (letters, table) = (unfit.letters, &unfit.table);
        text += &format!("{letters} of {table}: {}: {}\n", unfit.reason, unfit.remedy);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_letters_are_sent_at_once_while_answers_come_soon_and_fewer_when_they_do_not() {
        let after = |limit, seconds| next_limit(limit, Duration::from_secs(seconds));
        assert_eq!(after(1000, 0), 2000);
        assert_eq!(after(8000, 0), 10_000);
        assert_eq!(after(1000, 2), 1000);
        assert_eq!(after(1000, 30), 250);
        assert_eq!(after(1, 100), 1);
    }

    #[test]
    fn a_query_holds_what_it_asks_for_whatever_the_name() {
        let query = Query {
            table: Some("shop.a&b c"),
            limit: 7,
            after: Some("WyJh-_"),
        };
        let asked = query.behind("/v1");
        assert_eq!(asked, "/v1?limit=7&table=shop.a%26b+c&after=WyJh-_");
    }
}
