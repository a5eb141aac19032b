//! Why a session cannot be made, all of it at once.

use std::sync::Arc;

use super::setup;
use crate::config::PipeConfig;
use crate::destination::clickhouse::ClickHouse;
use crate::error::{Error, ErrorKind, Finding, Result, Retry, Severity};
use crate::source::mysql::Source;

/// Everything that stands in the way of a session.
#[derive(Debug)]
pub(super) struct Obstacles {
    /// What an end or a plugin refuses with, or is away with.
    first: Error,
    /// That as findings, and what the ends that can be asked have against the pipe; warnings too.
    pub(super) findings: Vec<Finding>,
}

impl Obstacles {
    /// Asks each end that is there for all that it has against the pipe. `plugins` are those that refuse.
    pub(super) async fn find(
        config: &PipeConfig,
        (source, destination): (Result<Arc<Source>>, Result<ClickHouse>),
        plugins: Vec<(&'static str, Error)>,
    ) -> Self {
        let (mut refused, mut asked) = (Vec::new(), Vec::new());
        match at_source(source, config).await {
            Ok(findings) => asked.extend(findings),
            Err(error) => refused.push(("source", error)),
        }
        match at_destination(destination, config).await {
            Ok(findings) => asked.extend(findings),
            Err(error) => refused.push(("destination", error)),
        }
        refused.extend(plugins);
        let mut findings: Vec<Finding> = refused
            .iter()
            .map(|(check, error)| obstacle(check, error))
            .collect();
        findings.extend(asked);
        let error = refused.into_iter().next().map(|(_, error)| error);
        Self {
            first: error.expect("a session that cannot be made is refused by somebody"),
            findings,
        }
    }

    /// All of it as one error; an end that is away, and nothing else, in its own words.
    pub(super) fn into_error(self) -> Error {
        let refusing = |finding: &&Finding| finding.severity == Severity::Error;
        let is_alone = self.findings.iter().filter(refusing).count() == 1;
        match setup::refuse(&self.findings) {
            Err(all) if !is_alone || self.first.kind().retry() != Retry::Backoff => all,
            Ok(()) | Err(_) => self.first,
        }
    }
}

async fn at_source(source: Result<Arc<Source>>, config: &PipeConfig) -> Result<Vec<Finding>> {
    let source = source?;
    let looked = setup::look_at_source(&source, config).await?;
    Ok(looked.findings)
}

/// Targets are known by their sources alone, so they are looked at when both ends are there.
async fn at_destination(
    destination: Result<ClickHouse>,
    config: &PipeConfig,
) -> Result<Vec<Finding>> {
    destination?.preflight_server(config).await
}

/// What stands in the way at an end is told by the kind of its error: that it is away is another thing than a password.
fn obstacle(check: &str, error: &Error) -> Finding {
    let needed = match error.kind() {
        ErrorKind::SourceUnavailable | ErrorKind::DestinationUnavailable => "a server that answers",
        ErrorKind::SourceDenied | ErrorKind::DestinationDenied => "an account that is let in",
        ErrorKind::SourceSetting => "a server that is as `source` in the pipe file says",
        ErrorKind::DestinationRejected => "a ClickHouse that can do what a pipe asks of it",
        _ => {
            return Finding {
                check: check.to_owned(),
                needed: format!("a {check} that takes part"),
                ..setup::finding(error)
            };
        }
    };
    Finding {
        needed: needed.to_owned(),
        ..setup::finding(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_way_at_an_end_is_told_apart() {
        let told = |check: &str, kind| {
            let told = obstacle(check, &Error::new(kind, "refused"));
            (told.check, told.needed)
        };
        let pair = |check: &str, needed: &str| (check.to_owned(), needed.to_owned());
        for (end, kind, expected) in [
            (
                "source",
                ErrorKind::SourceUnavailable,
                pair("source_unavailable", "a server that answers"),
            ),
            (
                "destination",
                ErrorKind::DestinationDenied,
                pair("destination_denied", "an account that is let in"),
            ),
            (
                "source",
                ErrorKind::Unsupported,
                pair("source", "a source that takes part"),
            ),
            (
                "plugin",
                ErrorKind::PluginRefused,
                pair("plugin", "a plugin that takes part"),
            ),
        ] {
            assert_eq!(told(end, kind), expected);
        }
    }
}
