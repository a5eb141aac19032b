//! The pipe file: from what is written to the validated [`PipeConfig`], which alone reaches the rest.
//!
//! A file is parsed into a tree whose nodes know their line and column, `${...}` is replaced inside its strings, and
//! the tree is then read key by key. Reading never stops at the first fault: whoever mends a file mends it once. Since
//! replacement comes after parsing, no value of the environment can add a key or a list entry.

mod across;
mod alone;
mod ends;
mod field;
mod interpolate;
mod matching;
mod node;
mod overlay;
mod policies;
mod problem;
mod read;
mod schema;
mod section;
mod settings;
mod tables;
#[cfg(test)]
mod tests;
mod transforms;
mod values;

use std::path::{Path, PathBuf};

pub use alone::transform_alone;
pub use matching::match_tables;
pub use overlay::lay_over;
pub use policies::{
    BinaryForm, ColumnConfig, DateRange, DecimalForm, EnumForm, GeometryForm, JsonForm, SetForm,
    Tinyint1, TypePolicies, ZeroDates,
};
pub use problem::Problem;
pub use schema::json_schema;
pub use settings::{
    DestinationConfig, Durability, Engine, LimitsConfig, Mode, OnError, OnRejected, PipeConfig,
    PluginConfig, PositionMode, RowImage, Secret, SnapshotConfig, SourceConfig, SourceType,
    SyncConfig, SystemColumns, TableConfig, TablePattern, TlsConfig, TlsMode, TransformConfig,
};
pub use values::duration as parse_duration;

use section::Checks;

/// What becomes of `${...}` that the machine at hand cannot resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// An undefined variable or an unreadable file is a problem: the pipe is about to run.
    Resolve,
    /// It stays as written, and mounted secrets are not read: the file alone is looked at, perhaps on a machine that has
    /// none of them. The result is good for looking, not for running.
    Offline,
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
    let mut problems = Vec::new();
    let mut pipes = Vec::new();
    let mut outlines = Vec::new();
    for file in files(paths, &mut problems) {
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
            interpolate::interpolate(document, &checks, environment, secrets);
        }
        for document in &documents {
            let (pipe, outline) = read::pipe(document, &checks, secrets);
            pipes.extend(pipe);
            outlines.extend(outline);
        }
        problems.extend(checks.into_problems());
    }
    problems.extend(across::check(&outlines));
    if problems.is_empty() {
        Ok(pipes)
    } else {
        Err(problems)
    }
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

fn pipe_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
