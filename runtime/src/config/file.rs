//! From files, folders and texts that were sent to pipes, each with the document as it was written.

#[cfg(unix)]
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use super::across::{self, Outline};
use super::node::Node;
use super::section::{Checks, Folders};
use super::{PipeConfig, Problem, Secrets, interpolate, node, read, transforms};

/// A pipe, and the document that says it.
#[derive(Clone, Debug)]
pub struct PipeFile {
    /// What the document means here and now.
    pub config: PipeConfig,
    /// The document as it is written: references stand in it unresolved, defaults do not.
    pub document: Value,
    outline: Outline,
    stamp: Stamp,
}

impl PipeFile {
    /// The file that holds it; `request` for one that was sent.
    pub fn file(&self) -> &Path {
        &self.outline.file
    }

    /// The version of the file that was read; none for a document that was sent.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The same document, with what its references mean by now: secrets are rotated. `sent` are the folders of a document
    /// that was sent.
    ///
    /// # Errors
    /// All problems.
    pub fn read_again(
        &self,
        sent: Option<&Folders>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<Problem>> {
        let checks = match sent {
            Some(folders) => Checks::of_sent(folders),
            None => Checks::new(self.file()),
        };
        let again = one_alone(&self.document.to_string(), checks, environment)?;
        Ok(Self {
            stamp: self.stamp,
            ..again
        })
    }
}

/// A variable of the process's own environment, for `${NAME}`.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads every pipe of `paths`: files, and folders of `*.yaml` and `*.yml`.
///
/// # Errors
/// All problems of all files, in file order.
pub fn load(
    paths: &[PathBuf],
    environment: &dyn Fn(&str) -> Option<String>,
    secrets: Secrets,
) -> Result<Vec<PipeConfig>, Vec<Problem>> {
    let files = load_files(paths, environment, secrets)?;
    Ok(files.into_iter().map(|file| file.config).collect())
}

/// The same, with the documents.
///
/// # Errors
/// As [`load`].
pub fn load_files(
    paths: &[PathBuf],
    environment: &dyn Fn(&str) -> Option<String>,
    secrets: Secrets,
) -> Result<Vec<PipeFile>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut pipes = Vec::new();
    let mut outlines = Vec::new();
    for file in files(paths, &mut problems) {
        let stamp = stamp(&file);
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) => {
                problems.push(Problem::of_file(
                    &file,
                    format!("a file that cannot be read ({error})"),
                    "a pipe file in UTF-8",
                    "check the path and the permissions",
                ));
                continue;
            }
        };
        let checks = Checks::new(&file);
        let mut documents = node::parse(&text, &checks);
        if documents.is_empty() && checks.is_clean() {
            checks.report_file(
                "no document",
                "at least one pipe",
                "start from the sample in the README, or from `pipewright schema`",
            );
        }
        for document in &mut documents {
            let (pipe, outline) = one(document, &checks, environment, secrets);
            pipes.extend(pipe.map(|pipe| PipeFile { stamp, ..pipe }));
            outlines.extend(outline);
        }
        problems.extend(checks.into_problems());
    }
    problems.extend(across::check(&outlines.iter().collect::<Vec<_>>()));
    if problems.is_empty() {
        Ok(pipes)
    } else {
        Err(problems)
    }
}

/// Reads the one pipe of a text that was sent, YAML or JSON. Its paths lead only into `folders`.
///
/// # Errors
/// All problems, `request` in the place of a file.
pub fn read_sent(
    text: &str,
    folders: &Folders,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<PipeFile, Vec<Problem>> {
    one_alone(text, Checks::of_sent(folders), environment)
}

/// The one pipe of a text.
fn one_alone(
    text: &str,
    checks: Checks,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<PipeFile, Vec<Problem>> {
    let mut documents = node::parse(text, &checks);
    let pipe = match documents.as_mut_slice() {
        [document] => one(document, &checks, environment, Secrets::Resolve).0,
        _ => {
            if checks.is_clean() {
                let found = format!("{} documents", documents.len());
                checks.report_file(&found, "one pipe", "send each pipe in a request of its own");
            }
            None
        }
    };
    let problems = checks.into_problems();
    match pipe {
        Some(pipe) if problems.is_empty() => Ok(pipe),
        _ => Err(problems),
    }
}

fn one(
    document: &mut Node,
    checks: &Checks,
    environment: &dyn Fn(&str) -> Option<String>,
    secrets: Secrets,
) -> (Option<PipeFile>, Option<Outline>) {
    let written = transforms::json(document, false);
    interpolate::interpolate(document, checks, environment, secrets);
    let (config, outline) = read::pipe(document, checks, secrets);
    let pipe = config
        .zip(outline.clone())
        .map(|(config, outline)| PipeFile {
            config,
            document: written,
            outline,
            stamp: None,
        });
    (pipe, outline)
}

/// What stands against running `files` side by side: two of one name, or two tables with one target.
pub fn apart<'a>(files: impl IntoIterator<Item = &'a PipeFile>) -> Vec<Problem> {
    let outlines: Vec<&Outline> = files.into_iter().map(|file| &file.outline).collect();
    across::check(&outlines)
}

/// The files that `paths` mean, folders in the order of their names.
fn files(paths: &[PathBuf], problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        match pipe_files(path) {
            Ok(found) if !found.is_empty() => files.extend(found),
            Ok(_) => problems.push(Problem::of_file(
                path,
                "a folder without pipe files",
                "`*.yaml` or `*.yml` in it",
                "name a pipe file, or a folder that holds some",
            )),
            Err(error) => problems.push(Problem::of_file(
                path,
                format!("a folder that cannot be read ({error})"),
                "a folder of pipe files",
                "check the path and the permissions",
            )),
        }
    }
    files
}

/// The pipe files of a folder, by name.
///
/// # Errors
/// When the folder cannot be read.
pub fn pipe_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if !yaml {
            continue;
        }
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => files.push(path),
            Ok(_) => {}
            // Gone since, or a link to nothing. Whatever else stands in the way is no proof of that.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    files.sort();
    Ok(files)
}

/// What tells one version of a file from another; none for one that is not there.
pub type Stamp = Option<Version>;

/// A version of a file. Its time alone can be the former one's: files are copied with their times, and some file systems
/// count in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    modified: SystemTime,
    bytes: u64,
    /// Device, inode and time of change, which nobody can set back. Another file may have been put in its place.
    #[cfg(unix)]
    file: (u64, u64, i64, i64),
}

/// The present version of `file`.
pub fn stamp(file: &Path) -> Stamp {
    let metadata = std::fs::metadata(file).ok()?;
    Some(Version {
        modified: metadata.modified().ok()?,
        bytes: metadata.len(),
        #[cfg(unix)]
        file: (
            metadata.dev(),
            metadata.ino(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        ),
    })
}
