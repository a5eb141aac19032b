//! One fault of a pipe file, with where it is and how to mend it.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

/// One fault of a pipe file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// The file, as it was named on the command line.
    pub file: PathBuf,
    /// Counted from 1; 0 when the file as a whole is meant.
    pub line: u64,
    /// Characters counted from 1; 0 when the file as a whole is meant.
    pub column: u64,
    /// The place in the document, such as `tables[0].order_by`; empty for the document.
    pub path: String,
    /// What stands there. Never a value that came out of `${...}`.
    pub found: String,
    /// What should.
    pub expected: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    pub(super) fn of_file(
        file: &Path,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            path: String::new(),
            found: found.into(),
            expected: expected.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(": ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(
            f,
            "found {}, expected {}\n    {}",
            self.found, self.expected, self.remedy
        )
    }
}
