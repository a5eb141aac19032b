//! The interface over a real socket, in front of pipes that answer from fixed documents.

mod served;
mod streams;

use reqwest::{Method, StatusCode};
use serde_json::json;

use self::served::{loopback, served, served_with};
use super::*;

#[tokio::test]
async fn a_pipe_is_shown_alone_and_in_the_list() {
    let served = served().await;
    let (status, _, list) = served.get("/v1/pipes").await;
    assert_eq!(status, StatusCode::OK);
    let (_, _, pipe) = served.get("/v1/pipes/shop").await;
    assert_eq!(list["pipes"], json!([pipe]));
    assert_eq!(pipe["tables"][0]["snapshot"]["partitions_done"], 3);
    assert_eq!(pipe["checkpoint"]["position"], "0-1-14");
    assert!(
        pipe["checkpoint"]["committed_at"]
            .as_str()
            .expect("text")
            .ends_with('Z')
    );
    for key in [
        "pipe",
        "state",
        "reasons",
        "mode",
        "tables",
        "checkpoint",
        "lag_seconds",
    ] {
        assert!(pipe.get(key).is_some(), "{key}");
    }
}

#[tokio::test]
async fn an_unknown_pipe_is_404_with_a_hint() {
    let served = served().await;
    let (status, kind, problem) = served.get("/v1/pipes/none").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(kind, "application/problem+json");
    assert_eq!(problem["code"], "unknown_pipe");
    assert!(problem["hint"].is_string());
    assert_eq!(
        served.command("none", r#"{"command":"pause"}"#).await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_pipe_that_is_dropped_before_its_command_is_404() {
    let served = served().await;
    served.pipes.0.lock().expect("no panic").state = "Dropped".to_owned();
    let (status, problem) = served.command("shop", r#"{"command":"pause"}"#).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(problem["code"], "unknown_pipe");
    assert!(problem["hint"].is_string());
}

#[tokio::test]
async fn pause_and_resume_answer_with_the_new_state() {
    let served = served().await;
    for (command, state) in [
        ("pause", "Paused"),
        ("resume", "Running"),
        ("stop", "Paused"),
        ("start", "Running"),
    ] {
        let body = json!({ "command": command }).to_string();
        let (status, pipe) = served.command("shop", &body).await;
        assert_eq!(
            (status, pipe["state"].as_str()),
            (StatusCode::OK, Some(state))
        );
    }
}

#[tokio::test]
async fn an_unknown_command_is_422() {
    let served = served().await;
    for body in [
        r#"{"command":"explode"}"#,
        r#"{}"#,
        r#"{"command":"pause","table":"a.b"}"#,
        r#"{"command":"pause","snapshot":{}}"#,
        r#"{"command":"resync","table":"b"}"#,
        r#"{"command":"retry"}"#,
    ] {
        let (status, problem) = served.command("shop", body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert!(problem["hint"].as_str().expect("a hint").contains("pause"));
    }
    assert_eq!(served.command("shop", "{").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn commands_carry_their_tables_and_settings() {
    let served = served().await;
    let (_, pipe) = served.command("shop", r#"{"command":"resync"}"#).await;
    assert_eq!(pipe["state"], "Snapshot");
    let (_, pipe) = served
        .command(
            "shop",
            r#"{"command":"resync","table":"a.b.c","snapshot":{"threads_per_table":8}}"#,
        )
        .await;
    let told = pipe["state"].to_string();
    assert!(
        told.contains("b.c") && told.contains("threads_per_table"),
        "{told}"
    );
    let body = r#"{"tables":{"add":[{"source":"a.b"}],"remove":["a.c"]},"exclude":["a.d"],"sync":{"interval":"2s"}}"#;
    let (status, _, pipe) = served.ask(Method::PATCH, "/v1/pipes/shop", body).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        pipe["state"].to_string().contains("interval"),
        "the last of the three"
    );
    let body = r#"{"tables":{"remove":["`a.b`.c"]},"exclude":[],"sync":{"unknown":"2s"}}"#;
    let (status, _, problem) = served.ask(Method::PATCH, "/v1/pipes/shop", body).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(
        detail.starts_with(
            "`tables.remove`, `exclude` of the request are carried out, `sync` is not: "
        ),
        "{detail}"
    );
    let (status, _, pipe) = served.ask(Method::DELETE, "/v1/pipes/shop", "").await;
    assert_eq!(
        (status, pipe["state"].as_str()),
        (StatusCode::OK, Some("Drop"))
    );
}

#[tokio::test]
async fn an_illegal_command_is_409_without_the_inner_chain() {
    let served = served().await;
    served.pipes.0.lock().expect("no panic").state = "Failed".to_owned();
    let (status, problem) = served.command("shop", r#"{"command":"pause"}"#).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["code"], "illegal_command");
    assert_eq!(problem["hint"], "start it first");
    assert!(!problem.to_string().contains("inner detail"));
}

#[tokio::test]
async fn a_large_body_is_refused() {
    let served = served().await;
    let body = format!(r#"{{"command":"{}"}}"#, "x".repeat(1_100_000));
    assert_eq!(
        served.command("shop", &body).await.0,
        StatusCode::PAYLOAD_TOO_LARGE
    );
}

#[tokio::test]
async fn a_large_head_is_refused_and_the_next_request_is_answered() {
    let served = served().await;
    let asked = |bytes: usize| {
        let request = reqwest::Client::new().get(format!("{}/livez", served.url));
        request.header("x-large", "x".repeat(bytes)).send()
    };
    // The connection may be gone before the answer was read.
    if let Ok(answer) = asked(64 * 1024).await {
        let expected = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        assert_eq!(answer.status(), expected);
    }
    let answer = asked(16 * 1024).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn other_paths_and_methods_get_problem_documents() {
    let served = served().await;
    let (status, kind, _) = served.get("/v2").await;
    assert_eq!(
        (status, kind.as_str()),
        (StatusCode::NOT_FOUND, "application/problem+json")
    );
    let (status, kind, _) = served.ask(Method::PUT, "/v1/pipes/shop", "").await;
    assert_eq!(
        (status, kind.as_str()),
        (StatusCode::METHOD_NOT_ALLOWED, "application/problem+json")
    );
}

#[tokio::test]
async fn a_request_addressed_to_another_host_is_refused() {
    let served = served().await;
    let response = reqwest::Client::new()
        .get(format!("{}/v1/pipes", served.url))
        .header("host", "rebound.example.com")
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test]
async fn readiness_ends_with_the_drain_and_liveness_does_not() {
    let served = served().await;
    assert_eq!(served.get("/readyz").await.0, StatusCode::OK);
    served.draining.cancel();
    assert_eq!(
        served.get("/readyz").await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(served.get("/livez").await.0, StatusCode::OK);
}

#[tokio::test]
async fn metrics_tell_states_rows_and_lag() {
    let served = served().await;
    let (status, kind, text) = served.get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(kind.starts_with("application/openmetrics-text"));
    let text = text.as_str().expect("text");
    for line in [
        r#"pipewright_pipe_state{pipe="shop",state="Running"} 1"#,
        r#"pipewright_pipe_state{pipe="shop",state="Failed"} 0"#,
        r#"pipewright_rows_written_total{pipe="shop",op="load"} 350"#,
        r#"pipewright_rows_written_total{pipe="shop",op="update"} 2"#,
        r#"pipewright_snapshot_partitions{pipe="shop",state="done"} 3"#,
        r#"pipewright_snapshot_partitions{pipe="shop",state="pending"} 2"#,
        r#"pipewright_snapshot_rows_estimated{pipe="shop"} 500"#,
        r#"pipewright_values_changed_total{pipe="shop",table="shop.orders",column="born",policy="zero_dates"} 4"#,
        r#"pipewright_source_lag_seconds{pipe="shop"} 0.25"#,
        r#"pipewright_lag_part_seconds{pipe="shop",part="insert"} 0.125"#,
        r#"pipewright_bytes_written_total{pipe="shop",kind="load"} 3500"#,
        r#"pipewright_bytes_written_total{pipe="shop",kind="stream"} 120"#,
        r#"pipewright_snapshot_rows_per_second{pipe="shop"} 50.0"#,
        r#"pipewright_snapshot_seconds_left{pipe="shop"} 4.0"#,
        r#"pipewright_retention_headroom_seconds{pipe="shop"} 3600.0"#,
        r#"pipewright_replica_lag_seconds{pipe="shop"} 1.5"#,
        r#"pipewright_batch_rows{pipe="shop"} 10"#,
        r#"pipewright_batch_bytes{pipe="shop"} 120"#,
        r#"pipewright_batch_seconds{pipe="shop"} 0.5"#,
        r#"pipewright_build_info{version="#,
        r#"pipewright_checkpoint_age_seconds{pipe="shop"}"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    let open = Access {
        address: ([0, 0, 0, 0], 0).into(),
        ..loopback()
    };
    let error = listen(&open).await.expect_err("an open address");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = listen(&loopback()).await.expect("a free port");
    let address = first.address;
    let taken = Access {
        address,
        ..loopback()
    };
    let error = listen(&taken).await.expect_err("a taken port");
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.message().contains(&address.to_string()));
    assert!(error.hint().expect("a hint").contains("--listen"));
}

#[tokio::test]
async fn a_token_opens_what_its_role_allows() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens");
    std::fs::write(
        &file,
        "read reading-0123456789\nadmin commanding-0123456789\n",
    )
    .expect("a file");
    let served = served_with(&Access {
        token_file: Some(file.clone()),
        ..loopback()
    })
    .await;
    let ask = async |method: Method, path: &str, token: Option<&str>| {
        let mut request = reqwest::Client::new()
            .request(method, format!("{}{path}", served.url))
            .body(r#"{"command":"pause"}"#);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.send().await.expect("an answer")
    };
    let (reading, commanding) = ("reading-0123456789", "commanding-0123456789");
    let state = "/v1/pipes/shop/state";
    let letters = "/v1/pipes/shop/dead-letters";
    let replay = "/v1/pipes/shop/dead-letters/replay";
    for (method, path, token, expected) in [
        (Method::GET, "/v1/pipes", None, 401),
        (Method::GET, "/metrics", None, 401),
        (Method::GET, "/openapi.json", None, 401),
        (Method::GET, "/none", None, 401),
        (Method::GET, "/livez", None, 200),
        (Method::GET, "/readyz", None, 200),
        (Method::GET, "/v1/pipes", Some("guessed-0123456789"), 401),
        (Method::GET, "/v1/pipes", Some(reading), 200),
        (Method::PATCH, state, Some(reading), 403),
        (Method::GET, letters, Some(reading), 403),
        (Method::GET, letters, Some(commanding), 200),
        (Method::POST, replay, None, 401),
        (Method::POST, replay, Some(reading), 403),
        (Method::POST, replay, Some(commanding), 200),
        (Method::PATCH, state, Some(commanding), 200),
    ] {
        let answer = ask(method.clone(), path, token).await;
        assert_eq!(answer.status(), expected, "{method} {path}");
        let asks = answer.headers().contains_key("www-authenticate");
        assert_eq!(asks, expected == 401, "{method} {path}");
    }
    std::fs::write(&file, "read reading-0123456789\n").expect("a file");
    let answer = ask(Method::PATCH, state, Some(commanding)).await;
    assert_eq!(answer.status(), 401, "a token that was taken out");
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused() {
    let served = served().await;
    for (origin, expected) in [
        ("http://example.com", 403),
        ("null", 403),
        (served.url.as_str(), 200),
    ] {
        let request = reqwest::Client::new().get(format!("{}/v1/pipes", served.url));
        let answer = request
            .header("origin", origin)
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), expected, "{origin}");
    }
}

#[tokio::test]
async fn history_and_dead_letters_are_filtered_and_bounded() {
    let served = served().await;
    for (query, expected) in [
        ("", vec![1, 2, 3]),
        ("?limit=2", vec![2, 3]),
        ("?after=1&limit=1", vec![2]),
        ("?since=1970-01-01T00:00:02.500Z", vec![3]),
    ] {
        let (_, _, list) = served.get(&format!("/v1/pipes/shop/events{query}")).await;
        let events = list["events"].as_array().expect("events");
        let ids: Vec<u64> = events
            .iter()
            .filter_map(|event| event["id"].as_u64())
            .collect();
        assert_eq!(ids, expected, "{query}");
    }
    for query in [
        "events?limit=0",
        "events?limit=1001",
        "events?since=yesterday",
        "events?after=-1",
        "dead-letters?limit=0",
        "dead-letters?limit=1001",
        "dead-letters?after=what",
        "dead-letters?after=",
    ] {
        let (status, kind, _) = served.get(&format!("/v1/pipes/shop/{query}")).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
        assert_eq!(kind, "application/problem+json");
    }
}

/// The document cannot describe what is not served, nor the other way round: routes are registered with it.
#[tokio::test]
async fn every_described_operation_is_served() {
    let served = served().await;
    let (_, _, document) = served.get("/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().expect("operations") {
            assert!(operation["operationId"].is_string() && operation["summary"].is_string());
            let method: Method = method.to_uppercase().parse().expect("a method");
            let real = path.replace("{pipe}", "shop");
            let (status, _, problem) = served.ask(method.clone(), &real, "{}").await;
            let code = problem["code"].as_str().unwrap_or_default();
            assert!(
                !["unknown_path", "unknown_method"].contains(&code),
                "{method} {path}: {status}"
            );
        }
    }
    let text = document.to_string();
    for (at, _) in text.match_indices("\"$ref\":\"#") {
        let pointer = text[at + 9..].split('"').next().expect("a reference");
        let found = document.pointer(pointer.trim_start_matches('#'));
        assert!(found.is_some(), "{pointer} leads nowhere");
    }
}
