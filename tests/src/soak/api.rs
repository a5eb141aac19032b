//! The REST interface under a property-based checker, which makes requests up from the interface's own description.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::SourceKind;
use crate::harness::{Launch, Pipe, Stage};
use crate::python::python_tool;

const PACKAGES: [&str; 2] = ["schemathesis==4.32.5", "openapi-spec-validator==0.9.0"];

/// What every answer is held to: no 5xx, no undescribed status, type or shape.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,unsupported_method";

/// How many requests of one operation each phase makes.
const EXAMPLES_SHORT: u64 = 10;
const EXAMPLES_LONG: u64 = 500;

/// A checker's call, with the packages that it needs.
fn tool(call: &str) -> Result<Command> {
    python_tool("api-checkers", &PACKAGES, call)
}

/// Whether the document keeps to OpenAPI 3.1, as a checker of the specification's own schema sees it.
pub fn ensure_openapi(document: &str) -> Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, document)?;
    let mut checker = tool("from openapi_spec_validator.__main__ import main; main()")?;
    told(checker.arg("--validation-errors=all").arg(file)).map(drop)
}

/// Operations that ask a source or ClickHouse: 503 is the right answer where that server is not there.
const ASKING: [&str; 5] = [
    "inspectSource",
    "changePipe",
    "commandPipe",
    "listDeadLetters",
    "replayDeadLetters",
];

/// What is no failure: 503 for those operations, and no 5xx for any other.
fn configuration() -> String {
    let asking = ASKING.map(|operation| {
        format!(
            "[[operations]]\ninclude-operation-id = \"{operation}\"\n\
             [operations.checks.not_a_server_error]\n\
             expected-statuses = [\"2xx\", \"3xx\", \"4xx\", \"503\"]\n"
        )
    });
    asking.concat()
}

/// Makes requests up for as long as `seconds`; what the checker says of them, or of the first failures.
pub fn hammer(url: &str, seed: u64, duration: Duration, long: bool) -> Result<String> {
    let folder = TempDir::new()?;
    let mut checker = tool("from schemathesis.cli import schemathesis; schemathesis()")?;
    std::fs::write(folder.path().join("schemathesis.toml"), configuration())?;
    let examples = if long { EXAMPLES_LONG } else { EXAMPLES_SHORT };
    checker
        .current_dir(folder.path())
        .args(["run", "--checks", CHECKS, "--no-color"])
        .arg(format!("--seed={seed}"))
        .arg(format!("--max-examples={examples}"))
        .arg(format!("--max-time={}", duration.as_secs()))
        // A source that is asked for need not answer.
        .arg("--request-timeout=100")
        .arg("--suppress-health-check=all")
        .arg("--phases=examples,coverage,fuzzing")
        .arg("--warnings=off")
        .arg(format!("{url}/openapi.json"));
    told(&mut checker)
}

fn told(command: &mut Command) -> Result<String> {
    let output = command.output().context("python3 cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    bail!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The long run: a process with a pipe at work.
pub async fn soak(program: &Path, seed: u64, duration: Duration) -> Result<String> {
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(20))")
        .await?;
    let mut pipe = Pipe::start(Launch::new(program, &stage.pipe_file(&["t"])))?;
    pipe.wait_state("Running", Duration::from_secs(120)).await?;
    let document = pipe.get_text("/openapi.json").await?;
    let url = pipe.url();
    let told = tokio::task::spawn_blocking(move || {
        ensure_openapi(&document)?;
        hammer(&url, seed, duration, true)
    });
    let told = told.await?;
    if let Some(code) = pipe.exited()? {
        bail!(
            "the process has ended with {code}; it printed:\n{}",
            pipe.log().tail()
        );
    }
    told
}
