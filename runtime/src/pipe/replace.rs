//! Pipes beside others and in the place of others: with a changed file, with renewed secrets, or since one has ended that a
//! command is for.

use std::sync::Arc;

use super::command::Command;
use super::files::Origin;
use super::lifecycle::PipeState;
use super::{Handle, Opening, Runtime};
use crate::config::{self, PipeFile, Problem};
use crate::error::{Error, ErrorKind, Result};

impl Runtime {
    /// The same as [`Runtime::open`], where nothing stands against it beside the other pipes. Whoever calls it has the turn of
    /// the pipe's name.
    pub(super) async fn open_beside_others(
        &self,
        file: PipeFile,
        origin: Origin,
        opening: Opening,
    ) -> Result<()> {
        let _opening = self.opening.lock().await;
        self.ensure_apart(&file)?;
        self.open(file, origin, opening).await
    }

    /// Nothing stands against running `file` beside all pipes but the one of its own name.
    pub(super) fn ensure_apart(&self, file: &PipeFile) -> Result<()> {
        let problems = self.clashes(file);
        if problems.is_empty() {
            return Ok(());
        }
        Err(refusal(&problems))
    }

    /// What stands against running `file` beside all pipes but the one of its own name.
    pub(super) fn clashes(&self, file: &PipeFile) -> Vec<Problem> {
        let handles = self.handles();
        let others = handles.values().map(|handle| &*handle.file);
        let others = others.filter(|other| other.config.pipe != file.config.pipe);
        config::apart(others.chain([file]))
    }

    /// Stops a pipe at a checkpoint, and starts it anew by `file`.
    pub(super) async fn put_in_place_of(
        &self,
        handle: &Handle,
        file: PipeFile,
        (origin, opening): (Origin, Opening),
    ) -> Result<()> {
        handle.pipe.shutdown.cancel();
        handle.ended.cancelled().await;
        let opened = self.open_beside_others(file, origin, opening).await;
        opened.map_err(|error| {
            let hint = error.hint().unwrap_or("see the log").to_owned();
            error.with_hint(format!(
                "the pipe has stopped at its checkpoint; it starts as soon as this is mended: {hint}"
            ))
        })
    }

    /// A pipe that has ended is replaced by whoever stopped it, or here where that has failed.
    ///
    /// # Errors
    /// What it cannot be started for.
    pub(super) async fn ensure_replaced(&self, name: &str, ended: &Handle) -> Result<()> {
        let _turn = self.turns.of(name).await;
        let listed = self.handle(name)?;
        if self.shutdown.is_cancelled() || !Arc::ptr_eq(&listed.pipe, &ended.pipe) {
            return Ok(());
        }
        let origin = origin_of(&listed);
        let file = PipeFile::clone(&listed.file);
        self.open_beside_others(file, origin, Opening::ForCommand)
            .await
    }

    /// Gives a pipe that is about to be started or resumed what the references of its document mean by now.
    ///
    /// # Errors
    /// `Config` where they mean nothing any more.
    pub(super) async fn renew_secrets(&self, name: &str, command: &Command) -> Result<()> {
        // One that is at work, or that refuses the command, is left alone, whatever others are waited for.
        if !is_started_by(command, &self.handle(name)?) {
            return Ok(());
        }
        let _turn = self.turns.of(name).await;
        let handle = self.handle(name)?;
        if !is_started_by(command, &handle) || self.shutdown.is_cancelled() {
            return Ok(());
        }
        let origin = origin_of(&handle);
        let sent = (origin == Origin::Request).then_some(&self.options.folders);
        let again = handle.file.read_again(sent, &config::environment);
        let file = again.map_err(|problems| refusal(&problems))?;
        if file.config.has_secrets_of(&handle.file.config) && !handle.ended.is_cancelled() {
            return Ok(());
        }
        tracing::info!(
            pipe = name,
            "the references of its document mean something else now"
        );
        let place = (origin, Opening::ForCommand);
        self.put_in_place_of(&handle, file, place).await
    }
}

/// Whether the command makes a pipe go on that rests.
fn is_started_by(command: &Command, handle: &Handle) -> bool {
    let state = handle.pipe.store.records().state();
    let rests = matches!(state, PipeState::Paused { .. } | PipeState::Failed { .. });
    rests
        && command
            .event(&state)
            .is_some_and(|event| state.apply(event).is_ok())
}

/// Where the pipe's document comes from.
pub(super) fn origin_of(handle: &Handle) -> Origin {
    let records = handle.pipe.store.records();
    let applied = records.applied.as_deref();
    applied.map_or(Origin::File, |applied| applied.origin)
}

/// Problems of a file as one error.
pub(super) fn refusal(problems: &[Problem]) -> Error {
    let texts: Vec<String> = problems
        .iter()
        .map(|problem| {
            let (file, line) = (problem.file.display(), problem.line);
            format!(
                "{file}:{line}: {}: found {}, expected {}",
                problem.path, problem.found, problem.expected
            )
        })
        .collect();
    let remedies: Vec<&str> = problems
        .iter()
        .map(|problem| problem.remedy.as_str())
        .collect();
    Error::new(ErrorKind::Config, texts.join("; ")).with_hint(remedies.join("; "))
}
