//! Logs: to standard error, as text for people or JSON lines for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the process's log. `writer` is where lines go when something else draws on the terminal too.
///
/// `PIPEWRIGHT_LOG`, else `RUST_LOG`, chooses what is logged. A single level, such as `debug`, means our own events;
/// dependencies stay at warnings. Anything else is taken as written: `info,mysql_async=debug`.
pub fn init(format: LogFormat, writer: Option<BoxMakeWriter>) {
    let wanted = ["PIPEWRIGHT_LOG", "RUST_LOG"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .filter(|wanted| !wanted.trim().is_empty());
    let (filter, wrong) = filter(wanted.as_deref());
    let builder = tracing_subscriber::fmt()
        // Telling of it on standard error panics where that is a file on a disk that is full.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(writer.unwrap_or_else(|| BoxMakeWriter::new(std::io::stderr)))
        .with_ansi(colour(std::io::stderr().is_terminal()));
    // A log that is there already belongs to whoever embeds us.
    match format {
        LogFormat::Text => builder.with_target(false).try_init().ok(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_ansi(false)
            .try_init()
            .ok(),
    };
    if let Some(wrong) = wrong {
        tracing::warn!(
            "the log filter in PIPEWRIGHT_LOG or RUST_LOG is not understood ({wrong}); using `info`"
        );
    }
}

/// Whether colours are wanted where `terminal` says that a person looks.
pub fn colour(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn filter(wanted: Option<&str>) -> (EnvFilter, Option<String>) {
    let own = |level: &str| EnvFilter::new(format!("warn,pipewright={level}"));
    let Some(wanted) = wanted else {
        return (own("info"), None);
    };
    if wanted
        .trim()
        .parse::<tracing::level_filters::LevelFilter>()
        .is_ok()
    {
        return (own(wanted.trim()), None);
    }
    match EnvFilter::try_new(wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (own("info"), Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_stay_quiet_when_a_level_is_named() {
        let text = |wanted| filter(wanted).0.to_string();
        for wanted in [None, Some("info")] {
            assert!(text(wanted).contains("pipewright=info") && text(wanted).contains("warn"));
        }
        assert_eq!(text(Some("mysql_async=debug")), "mysql_async=debug");
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_named() {
        assert!(filter(Some("a=b=c")).1.is_some());
        assert!(filter(Some("debug")).1.is_none());
    }
}
