//! What `plugin test` finds in the cases of a plugin, and `bench` takes of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::plugin;
use crate::support::{hostile_guest, once, plugins};

once! {
    test_shows_what_differs_and_update_writes_it_down: 900,
    test_finds_what_depends_on_batches: 600,
    test_finds_rows_that_become_one: 600,
}

/// A case beside a plugin that is there already.
fn case(folder: &Path, name: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
    let cases = folder.join("cases");
    fs::create_dir_all(cases.join(name))?;
    fs::write(
        cases.join("table.yaml"),
        "name: shop.t\ncolumns:\n- { name: id, type: int64, key: true }\n- { name: note, type: text }\n",
    )?;
    for (file, text) in files {
        fs::write(cases.join(name).join(file), text)?;
    }
    Ok(cases)
}

async fn test_shows_what_differs_and_update_writes_it_down() -> Result<()> {
    let built = plugins().await?;
    let folder = tempfile::tempdir()?;
    let rows = (
        "rows.jsonl",
        "{\"id\": 1, \"note\": \"a\"}\n{\"id\": 2, \"note\": null}\n",
    );
    let config = ("case.yaml", "config: { columns: [note], method: redact }\n");
    let wrong = (
        "expected.jsonl",
        "{\"id\": 1, \"note\": \"***\"}\n{\"id\": 2, \"note\": \"***\"}\n",
    );
    let cases = case(folder.path(), "redact", &[rows, config, wrong])?
        .display()
        .to_string();
    let mask = built.path("mask");
    let failing = plugin(&["test", &mask, "--cases", &cases]).await?;
    ensure!(failing.code == 1, "{failing:?}");
    for line in [
        "FAIL  redact",
        "row 2: `note`",
        "- {\"id\":2,\"note\":\"***\"}",
        "+ {\"id\":2,\"note\":null}",
    ] {
        ensure!(
            failing.stdout.contains(line),
            "no `{line}` in:\n{}",
            failing.stdout
        );
    }
    ensure!(
        plugin(&["test", &mask, "--cases", &cases, "--update"])
            .await?
            .code
            == 0
    );
    let passing = plugin(&["test", &mask, "--cases", &cases, "--json"]).await?;
    let document: Value = serde_json::from_str(&passing.stdout)?;
    ensure!(
        document["passed"] == 1 && document["failed"] == 0,
        "{document:#}"
    );
    update_keeps_what_another_kind_of_answer_would_destroy(&mask, folder.path()).await?;
    bench_says_what_a_batch_costs(&mask, &cases).await
}

/// A plugin that is broken, or a configuration that it refuses, gives an error to every case.
async fn update_keeps_what_another_kind_of_answer_would_destroy(
    mask: &str,
    folder: &Path,
) -> Result<()> {
    let cases = folder.join("cases");
    let (expected, config) = (
        cases.join("redact/expected.jsonl"),
        cases.join("redact/case.yaml"),
    );
    let before = fs::read_to_string(&expected)?;
    let cases = cases.display().to_string();
    let garbage = folder.join("garbage.wasm").display().to_string();
    fs::write(&garbage, "no component")?;
    let refused = plugin(&["test", &garbage, "--cases", &cases, "--update"]).await?;
    ensure!(
        refused.code == 1 && refused.stderr.contains("is no WebAssembly component"),
        "{refused:?}"
    );
    let good = fs::read_to_string(&config)?;
    fs::write(&config, "config: { columns: [nope], method: redact }\n")?;
    let kept = plugin(&["test", mask, "--cases", &cases, "--update"]).await?;
    ensure!(
        kept.code == 1
            && kept.stdout.contains("expected.jsonl is kept")
            && kept.stdout.contains("column `nope` does not exist"),
        "{kept:?}"
    );
    fs::write(&config, good)?;
    ensure!(fs::read_to_string(&expected)? == before);
    ensure!(!expected.with_file_name("expected-error.txt").exists());
    let absent = plugin(&["test", "absent", "--cases", &cases]).await?;
    ensure!(
        absent.code == 2 && absent.stderr.contains("`absent` does not exist"),
        "{absent:?}"
    );
    Ok(())
}

/// With the share of the boundary, which takes a second plugin that does nothing.
async fn bench_says_what_a_batch_costs(mask: &str, cases: &str) -> Result<()> {
    let benched = plugin(&["bench", mask, "--cases", cases, "--rows", "1000", "--json"]).await?;
    let document: Value = serde_json::from_str(&benched.stdout).context(benched.stderr)?;
    ensure!(
        document["figures"][0]["micros"]
            .as_f64()
            .is_some_and(|micros| micros > 0.0),
        "{document:#}"
    );
    ensure!(
        document["figures"][0]["boundary_share"].is_number(),
        "{document:#}"
    );
    Ok(())
}

async fn test_finds_what_depends_on_batches() -> Result<()> {
    let hostile = hostile_guest().await?.display().to_string();
    let folder = tempfile::tempdir()?;
    let config = "table: { columns: [{ name: id, type: int64, key: true }] }\nconfig: { crime: panic_every_second }\n\
                  grants: { lookup: { words: words.txt } }\n";
    let cases = case(
        folder.path(),
        "second",
        &[
            ("case.yaml", config),
            ("words.txt", "any"),
            ("rows.jsonl", "{\"id\": 1}\n{\"id\": 2}\n"),
        ],
    )?;
    let cases = cases.display().to_string();
    let failing = plugin(&["test", &hostile, "--cases", &cases, "--update"]).await?;
    ensure!(failing.code == 1, "{failing:?}");
    ensure!(
        failing
            .stdout
            .contains("row by row it gives another result than in one batch"),
        "{}",
        failing.stdout
    );
    Ok(())
}

async fn test_finds_rows_that_become_one() -> Result<()> {
    let hostile = hostile_guest().await?.display().to_string();
    let folder = tempfile::tempdir()?;
    let config = "table: { columns: [{ name: id, type: int64, key: true }, { name: note, type: text }] }\n\
                  config: { crime: merge }\ngrants: { lookup: { words: words.txt } }\n";
    let rows = |text: &str| -> Result<String> {
        let folder = tempfile::tempdir_in(folder.path())?.keep();
        let files = [
            ("case.yaml", config),
            ("words.txt", "any"),
            ("rows.jsonl", text),
        ];
        Ok(case(&folder, "merged", &files)?.display().to_string())
    };
    let cases = rows("{\"id\": 1}\n{\"id\": 2}\n")?;
    let failing = plugin(&["test", &hostile, "--cases", &cases, "--update"]).await?;
    ensure!(
        failing.code == 1
            && failing
                .stdout
                .contains("rows 1 and 2 of the case become one in target `lines`, where both have {\"number\":\"0\"}"),
        "{failing:?}"
    );
    // One after the other they may have it.
    let cases = rows(
        "{\"id\": 1}\n{\"_op\": \"update\", \"id\": 1, \"note\": \"a\"}\n{\"_op\": \"delete\", \"id\": 1}\n{\"id\": 2}\n",
    )?;
    let passing = plugin(&["test", &hostile, "--cases", &cases, "--update"]).await?;
    ensure!(passing.code == 0, "{passing:?}");
    Ok(())
}
