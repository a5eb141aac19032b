//! What the verbs print: data to standard output; errors as text to standard error, or as the one JSON document.

use std::io::{IsTerminal, Write};

use serde::Deserialize;
use serde_json::{Value, json};

use super::exit::Exit;
use crate::config::Problem;
use crate::error::{Error, Finding, Severity};
use crate::telemetry::colour;

/// Why a verb did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// Pipe files with faults.
    Problems(Vec<Problem>),
    /// Servers that are not ready, by pipe.
    Findings(Vec<(String, Finding)>),
    /// A running process has refused what it was asked.
    Refused(Refusal),
    /// Anything else.
    Error {
        /// How the process ends.
        exit: Exit,
        /// What went wrong.
        error: Error,
    },
}

/// What a running process says of what it refuses, in its own words.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    /// What went wrong, for programs.
    pub(super) code: String,
    /// What went wrong, for people.
    pub(super) detail: String,
    /// What to do about it.
    pub(super) hint: Option<String>,
    /// The faults of a pipe document.
    #[serde(default)]
    pub(super) problems: Vec<Value>,
}

impl Refusal {
    /// As over the error itself, but for a document and a process that is going away: what was asked is not done.
    fn exit(&self) -> Exit {
        let kind = serde_json::from_value(Value::from(self.code.as_str()));
        match kind.map(Exit::over) {
            Ok(Exit::Unavailable) => Exit::Unavailable,
            _ => Exit::Failed,
        }
    }
}

/// The result of a verb.
pub(super) type Result<T, E = Failure> = std::result::Result<T, E>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error {
            exit: Exit::over(error.kind()),
            error,
        }
    }
}

impl Failure {
    /// How the process ends.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Failure::Problems(_) => Exit::Config,
            Failure::Findings(findings) => {
                Finding::deciding(findings.iter().map(|(_, finding)| finding))
                    .map_or(Exit::Done, |finding| Exit::over(finding.kind))
            }
            Failure::Refused(refusal) => refusal.exit(),
            Failure::Error { exit, .. } => *exit,
        }
    }

    /// Prints it where it belongs.
    pub(super) fn print(&self, as_json: bool) {
        if as_json {
            data(&self.to_json());
        } else {
            note(&self.to_text(colour(std::io::stderr().is_terminal())));
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Failure::Problems(problems) => json!({ "error": {
                "code": "config",
                "message": format!("{} in the pipe files", count(problems.len(), "problem")),
                "problems": problems,
            }}),
            Failure::Findings(findings) => json!({ "error": {
                "code": "findings",
                "message": format!("{} at the servers", count(findings.len(), "finding")),
                "findings": findings_json(findings),
            }}),
            Failure::Refused(refusal) => {
                let mut error = json!({
                    "code": refusal.code,
                    "message": refusal.detail,
                    "hint": refusal.hint,
                });
                if !refusal.problems.is_empty() {
                    error["problems"] = refusal.problems.as_slice().into();
                }
                json!({ "error": error })
            }
            Failure::Error { exit, error } => json!({ "error": {
                "code": match exit {
                    Exit::Usage => "usage".to_owned(),
                    Exit::Unavailable => "unavailable".to_owned(),
                    Exit::Done
                    | Exit::Failed
                    | Exit::Changes
                    | Exit::Config
                    | Exit::Interrupted => error.kind().code(),
                },
                "message": error.chain(),
                "table": error.table().map(ToString::to_string),
                "hint": error.hint(),
            }}),
        }
    }

    fn to_text(&self, colour: bool) -> String {
        let error = if colour {
            "\u{1b}[1;31merror\u{1b}[0m"
        } else {
            "error"
        };
        match self {
            Failure::Problems(problems) => {
                let mut text: String = problems
                    .iter()
                    .map(|problem| format!("{problem}\n"))
                    .collect();
                text += &format!(
                    "\n{error}: {} in the pipe files; nothing was touched\n",
                    count(problems.len(), "problem")
                );
                text
            }
            Failure::Findings(findings) => {
                let mut text = findings_text(findings);
                text += &format!("\n{error}: the servers are not ready for the pipe\n");
                text
            }
            Failure::Refused(refusal) => with_hint(error, &refusal.detail, refusal.hint.as_deref()),
            Failure::Error { error: cause, .. } => with_hint(error, &cause.chain(), cause.hint()),
        }
    }
}

fn with_hint(error: &str, message: &str, hint: Option<&str>) -> String {
    let hint = hint.map(|hint| format!("  hint: {hint}\n"));
    format!("{error}: {message}\n{}", hint.unwrap_or_default())
}

/// Findings with their pipes, for JSON.
pub(super) fn findings_json(findings: &[(String, Finding)]) -> Vec<Value> {
    findings
        .iter()
        .map(|(pipe, finding)| {
            let mut value = serde_json::to_value(finding).unwrap_or_default();
            if let Some(fields) = value.as_object_mut() {
                fields.insert("pipe".to_owned(), pipe.as_str().into());
            }
            value
        })
        .collect()
}

/// Findings for people.
pub(super) fn findings_text(findings: &[(String, Finding)]) -> String {
    let line = |(pipe, finding): &(String, Finding)| {
        let severity = match finding.severity {
            Severity::Error => "refused",
            Severity::Warning => "warning",
        };
        format!(
            "{pipe}: {severity}: {}: found {}, needed {}\n    {}\n",
            finding.check, finding.found, finding.needed, finding.remedy
        )
    };
    findings.iter().map(line).collect()
}

/// One JSON document to standard output.
pub(super) fn data(value: &Value) {
    text(&format!("{value:#}\n"));
}

/// Text to standard output. Nobody listens any more when this fails, and there is nobody to tell.
pub(super) fn text(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .ok();
}

/// The same of what goes on until nobody listens any more, which ends the process.
pub(super) fn flow(text: &str) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if written.is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
        std::process::exit(0);
    }
}

/// Text to standard error.
pub(super) fn note(text: &str) {
    std::io::stderr().lock().write_all(text.as_bytes()).ok();
}

/// `1 problem`, `2 problems`.
pub(super) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_refused_for_a_server_that_is_away_ends_as_such() {
        for (code, exit) in [
            ("source_unavailable", Exit::Unavailable),
            ("destination_unavailable", Exit::Unavailable),
            ("source_denied", Exit::Failed),
            ("config", Exit::Failed),
            ("stopped", Exit::Failed),
            ("unknown_command", Exit::Failed),
        ] {
            let refusal = serde_json::from_value(json!({ "code": code, "detail": "no" }));
            let failure = Failure::Refused(refusal.expect("a refusal"));
            assert_eq!(failure.exit(), exit, "{code}");
        }
    }
}
