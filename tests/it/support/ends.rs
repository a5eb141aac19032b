//! Processes that end at a named point.

use anyhow::{Context, Result, ensure};
use pipewright::fault::VARIABLE;
use serde_json::Value;
use testbed::harness::Pipe;

use super::START;

/// How a process ends that ended itself at a point.
const ABORTED: i32 = 128 + 6;

/// Waits until the process has ended at the point that it was given.
pub(crate) async fn wait_aborted(pipe: &mut Pipe) -> Result<()> {
    let code = pipe
        .wait_exit(START)
        .await
        .context("the point was not come to")?;
    ensure!(code == ABORTED, "ended with {code}");
    Ok(())
}

/// Starts the process once more, which ends at `point`; the next start ends nowhere.
pub(crate) async fn ends_at(pipe: &mut Pipe, point: &str) -> Result<()> {
    pipe.change_env(VARIABLE, Some(point));
    pipe.restart()?;
    wait_aborted(pipe).await.with_context(|| point.to_owned())?;
    pipe.change_env(VARIABLE, None);
    Ok(())
}

/// Lets the process come to `point` on the way of what `order` begins, and starts it again without the fault.
pub(crate) async fn killed_at(
    pipe: &mut Pipe,
    point: &str,
    order: impl AsyncFnOnce(&Pipe) -> Result<(u16, Value)>,
) -> Result<()> {
    pipe.change_env(VARIABLE, Some(point));
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    // The answer is lost with the process, or had come before.
    if let Ok((status, document)) = order(pipe).await {
        ensure!(status == 200, "{point}: {status} {document:#}");
    }
    wait_aborted(pipe).await.with_context(|| point.to_owned())?;
    pipe.change_env(VARIABLE, None);
    pipe.restart()?;
    pipe.wait_state("Running", START)
        .await
        .with_context(|| format!("after {point}"))
        .map(drop)
}
