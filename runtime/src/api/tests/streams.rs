//! Events as they happen.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::Value;

use super::served::{Served, event, loopback, served, served_with};
use super::{Access, Journal, events};

#[tokio::test]
async fn a_stream_of_events_goes_on_where_it_was_left() {
    let served = served().await;
    let mut answer = events_of(&served)
        .header("last-event-id", "2")
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    served.pipes.publish(event(4));
    let text = read_until(&mut answer, "event 4").await;
    assert!(text.starts_with("id: 3\n"), "{text}");
    assert!(!text.contains("event 2"), "{text}");
    served.draining.cancel();
    assert_eq!(chunk(&mut answer).await, None, "behind the drain");
}

#[tokio::test]
async fn a_token_that_was_taken_out_ends_its_stream_before_the_next_event() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens");
    std::fs::write(&file, "read reading-0123456789\n").expect("a file");
    let served = served_with(&Access {
        token_file: Some(file.clone()),
        ..loopback()
    })
    .await;
    let request = events_of(&served).header("last-event-id", "2");
    let request = request.bearer_auth("reading-0123456789");
    let mut answer = request.send().await.expect("an answer");
    let first = chunk(&mut answer).await.expect("no end");
    assert!(first.starts_with("id: 3\n"), "{first:?}");
    std::fs::write(&file, "read another-0123456789\n").expect("a file");
    served.pipes.publish(event(4));
    assert_eq!(chunk(&mut answer).await, None);
}

#[tokio::test]
async fn a_stream_goes_on_with_a_pipe_that_is_made_anew_and_ends_behind_the_last_event_of_one_that_is_dropped()
 {
    let served = served().await;
    let mut answer = events_of(&served).send().await.expect("an answer");
    served.pipes.publish(event(4));
    // What is on its way when the pipe goes is told all the same, each time.
    let anew = Journal::new((1..=5).map(event).collect());
    drop(served.pipes.1.lock().expect("no panic").replace(anew));
    let text = read_until(&mut answer, "event 5").await;
    assert!(
        text.contains("event 4") && !text.contains("event 3"),
        "{text}"
    );
    served.pipes.publish(event(6));
    drop(served.pipes.1.lock().expect("no panic").take());
    read_until(&mut answer, "event 6").await;
    assert_eq!(chunk(&mut answer).await, None);
}

#[tokio::test]
async fn a_stream_does_not_go_on_with_another_pipe_of_the_name() {
    let served = served().await;
    let mut answer = events_of(&served).send().await.expect("an answer");
    let other = Journal::new(vec![event(1)]);
    drop(served.pipes.1.lock().expect("no panic").replace(other));
    assert_eq!(chunk(&mut answer).await, None);
}

#[tokio::test]
async fn streams_leave_connections_for_requests() {
    let served = served().await;
    let ask = async || events_of(&served).send().await.expect("an answer");
    let mut open = Vec::new();
    for _ in 0..events::STREAMS_MAX {
        open.push(ask().await);
        assert_eq!(
            open.last().map(|answer| answer.status()),
            Some(StatusCode::OK)
        );
    }
    let refused = ask().await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let problem: Value = refused.json().await.expect("a problem");
    assert_eq!(problem["code"], "too_many_streams");
    assert!(problem["hint"].is_string());
    assert_eq!(served.get("/v1/pipes/shop/events").await.0, StatusCode::OK);
    open.pop();
    // The server finds out that the reader has gone when it does.
    let until = Instant::now() + Duration::from_secs(60);
    while ask().await.status() != StatusCode::OK {
        assert!(Instant::now() < until, "the place is not free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A request for the stream of what happens.
fn events_of(served: &Served) -> reqwest::RequestBuilder {
    reqwest::Client::new()
        .get(format!("{}/v1/pipes/shop/events", served.url))
        .header("accept", "text/event-stream")
}

/// What has been sent until `told` is.
async fn read_until(answer: &mut reqwest::Response, told: &str) -> String {
    let mut text = String::new();
    while !text.contains(told) {
        text.push_str(&chunk(answer).await.expect("no end"));
    }
    text
}

/// The next part of a stream; none at its end.
async fn chunk(answer: &mut reqwest::Response) -> Option<String> {
    let chunk = tokio::time::timeout(Duration::from_secs(60), answer.chunk()).await;
    let chunk = chunk.expect("in time").expect("a stream")?;
    Some(String::from_utf8(chunk.to_vec()).expect("text"))
}
