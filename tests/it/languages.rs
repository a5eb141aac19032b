//! Plugins in the languages besides Rust: what `plugin new --lang` writes, outside of the repository, built by the language's
//! own tools.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Comparison, Stage, run_to_end, workspace_folder};

use crate::author::plugin;
use crate::support::{CATCH_UP, launch, once, program, start};

once! {
    a_plugin_in_javascript_is_begun_built_tested_and_run_in_a_pipe: 1200,
    a_plugin_in_python_is_begun_built_tested_and_run_in_a_pipe: 1200,
    a_plugin_in_c_is_begun_built_tested_and_run_in_a_pipe: 1200,
}

/// Building takes most of it: two cores, and other builds at the same time.
const BUILD: Duration = Duration::from_secs(900);

/// An interpreter of 18 MB is compiled within the pipe's start.
const COMPILED: Duration = Duration::from_secs(600);

async fn a_plugin_in_javascript_is_begun_built_tested_and_run_in_a_pipe() -> Result<()> {
    begun_and_in_a_pipe("javascript").await
}

async fn a_plugin_in_python_is_begun_built_tested_and_run_in_a_pipe() -> Result<()> {
    begun_and_in_a_pipe("python").await
}

async fn a_plugin_in_c_is_begun_built_tested_and_run_in_a_pipe() -> Result<()> {
    begun_and_in_a_pipe("c").await
}

async fn begun_and_in_a_pipe(language: &str) -> Result<()> {
    let began = Instant::now();
    let outside = tempfile::tempdir()?;
    let component = a_new_one_passes_its_own_cases(language, outside.path()).await?;
    let begun = began.elapsed();
    in_a_pipe(language, &component).await?;
    eprintln!(
        "{language}: new and tested {:.1} s, through a pipe {:.1} s",
        begun.as_secs_f64(),
        (began.elapsed() - begun).as_secs_f64()
    );
    Ok(())
}

/// In a folder outside of the repository, by the words that its README gives. Answers the component.
async fn a_new_one_passes_its_own_cases(language: &str, outside: &Path) -> Result<String> {
    let folder = outside.join("tidy-email");
    let folder = folder.display().to_string();
    let made = plugin(&["new", &folder, "--lang", language]).await?;
    ensure!(made.code == 0, "{}", made.stderr);
    // Builds it first, as each of the author's verbs does that is given a folder.
    let script = format!(
        "cd '{folder}' && '{}' pipewright plugin test --fetch",
        program().display()
    );
    let tested = run_to_end("/bin/sh".as_ref(), vec!["-c", &script], &[], BUILD).await?;
    ensure!(
        tested.code == 0 && tested.stdout.contains("2 cases: 0 failed"),
        "{}{}",
        tested.stdout,
        tested.stderr
    );
    let component = format!("{folder}/target/plugins/tidy-email.wasm");
    let table = format!("{folder}/cases/table.yaml");
    let config = json!({ "columns": ["email"] }).to_string();
    let inspected = plugin(&[
        "inspect", &component, "--table", &table, "--config", &config, "--json",
    ])
    .await?;
    let document: Value =
        serde_json::from_str(&inspected.stdout).with_context(|| inspected.stderr.clone())?;
    ensure_imports(language, &document["inspection"])?;
    let step = &document["bindings"][0]["transforms"][0];
    ensure!(
        step["reads"] == json!(["email"]) && step["writes"] == json!(["email"]),
        "{document:#}"
    );
    Ok(component)
}

/// CPython asks for WASI, which gives it nothing; the others ask for the contract alone.
fn ensure_imports(language: &str, inspection: &Value) -> Result<()> {
    ensure!(
        inspection["contract"] == json!(["0.1.0"]) && inspection["refusal"].is_null(),
        "{inspection:#}"
    );
    let imports = inspection["imports"].as_array().context("imports")?;
    let is_wasi = |import: &&Value| {
        let name = import.as_str();
        name.is_some_and(|name| name.starts_with("wasi:"))
    };
    let of_wasi = imports.iter().filter(is_wasi).count();
    ensure!((of_wasi > 0) == (language == "python"), "{imports:#?}");
    Ok(())
}

/// The example is the same file (`author::scaffold`), so what was built passes its cases too; a load and a stream go through
/// it.
async fn in_a_pipe(language: &str, component: &str) -> Result<()> {
    let cases = workspace_folder().join(format!("plugins/examples/{language}/cases"));
    let cases = cases.display().to_string();
    let tested = plugin(&["test", component, "--cases", &cases]).await?;
    ensure!(tested.code == 0, "{}{}", tested.stdout, tested.stderr);
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE people (id INT PRIMARY KEY, email VARCHAR(100) NULL)",
            "INSERT INTO people VALUES (1, ' Ann@Example.com '), (2, NULL), (3, ''), (4, 'ZOË')",
        ])
        .await?;
    let entry = json!({ "source": format!("{}.people", stage.database), "transforms": ["tidy"] });
    let mut file = stage.pipe_file_of(vec![entry]);
    file["transforms"]["tidy"] = json!({
        "plugin": component,
        "config": { "columns": ["email"] },
        "limits": { "memory": "256MiB", "time": "60s" },
    });
    let mut pipe = start(launch(&file))?;
    pipe.wait_state("Running", COMPILED).await?;
    stage
        .source
        .execute_all([
            "INSERT INTO people VALUES (5, 'New@Example.com ')",
            "UPDATE people SET email = CONCAT(email, 'X') WHERE id < 4",
            "UPDATE people SET id = 40 WHERE id = 4",
            "DELETE FROM people WHERE id = 3",
        ])
        .await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    let comparison = Comparison::of("people").text_is("email", "LOWER(TRIM(email))");
    stage.assert(comparison).await.map(drop)
}
