//! Passwords that somebody sends to the wrong place: they are refused, and stand nowhere afterwards.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage};

use super::with_tables;
use crate::support::{CATCH_UP, on_both_sources, running};

on_both_sources! {
    a_password_in_the_wrong_place_is_refused_and_kept_nowhere: 240,
}

/// No part of any name, and no password that a pipe is to have.
const CANARY: &str = "canary-in-the-wrong-place";

/// Everything that a reader of the process, its log and its folder can see.
async fn seen(stage: &Stage, pipe: &Pipe) -> Result<String> {
    let mut text = pipe.log().text();
    for path in ["", "/file", "/events?limit=1000"] {
        let path = format!("/v1/pipes/{}{path}", stage.database);
        text += &pipe.get_text(&path).await?;
    }
    add_files(&pipe.state_dir(), &mut text)?;
    Ok(text)
}

fn add_files(folder: &Path, text: &mut String) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            add_files(&path, text)?;
        } else {
            *text += &String::from_utf8_lossy(&std::fs::read(&path)?);
        }
    }
    Ok(())
}

async fn a_password_in_the_wrong_place_is_refused_and_kept_nowhere(kind: SourceKind) -> Result<()> {
    let stage = with_tables(kind, 1).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let name = &stage.database;
    let whole = format!("mysql://root:{CANARY}@db");
    let bodies = [
        json!({ "sync": { "password": CANARY } }),
        json!({ "sync": { "interval": { "password": CANARY } } }),
        json!({ "source": whole }),
        json!({ "tables": { "add": [whole] } }),
        json!({ "tables": { "add": [{ "source": { "password": CANARY } }] } }),
    ];
    for body in bodies {
        let (status, answer) = pipe.change(body.clone()).await?;
        let told = answer.to_string();
        ensure!(status == 422 && !told.contains(CANARY), "{status}: {told}");
    }
    let (password, resync, source) = (
        format!("password={CANARY}"),
        format!("--snapshot=password={CANARY}"),
        format!("source={whole}"),
    );
    let url = pipe.url();
    for line in [
        ["set", name, &password],
        ["resync", name, &resync],
        ["set", name, &source],
    ] {
        let refused = pipe.cli(&[&line[..], &["--server", &url]].concat()).await?;
        let told = format!("{}{}", refused.stdout, refused.stderr);
        ensure!(refused.code == 1 && !told.contains(CANARY), "{told}");
    }
    ensure!(pipe.command("pause").await?.0 == 200);
    pipe.wait_state("Paused", CATCH_UP).await?;
    for way in [
        json!({ "source": { "host": whole } }),
        json!({ "source": { "host": format!("root:{CANARY}@db") } }),
        json!({ "source": { "hosts": [whole] } }),
        json!({ "destination": { "url": format!("http://u:{CANARY}@ch:8123") } }),
        json!({ "destination": { "url": format!("http://ch:8123/?password={CANARY}") } }),
    ] {
        let (status, answer) = pipe.change(way).await?;
        let told = answer.to_string();
        ensure!(status == 422 && !told.contains(CANARY), "{status}: {told}");
    }
    let text = seen(&stage, &pipe).await?;
    ensure!(
        text.contains("set password"),
        "the history lacks the command"
    );
    ensure!(!text.contains(CANARY), "it is kept: {text}");
    Ok(())
}
