//! Rules across the tables of a pipe and across pipes: what only the whole call can break.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Problem;
use super::node::Place;

/// What could be made out of a document, even of one with problems.
#[derive(Clone, Debug)]
pub(super) struct Outline {
    pub(super) file: PathBuf,
    pub(super) pipe: Option<(String, Place)>,
    /// URL and database.
    pub(super) destination: Option<(String, String)>,
    pub(super) tables: Vec<TableOutline>,
}

/// One entry of `tables` that names one source table.
#[derive(Clone, Debug)]
pub(super) struct TableOutline {
    pub(super) target: String,
    pub(super) place: Place,
    pub(super) path: String,
}

/// The problems between `outlines`, in their order.
pub(super) fn check(outlines: &[&Outline]) -> Vec<Problem> {
    let mut problems = pipe_names(outlines);
    problems.extend(targets(outlines));
    problems
}

fn pipe_names(outlines: &[&Outline]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen: HashMap<&str, (&Path, Place)> = HashMap::new();
    for outline in outlines {
        let Some((name, place)) = &outline.pipe else {
            continue;
        };
        match seen.get(name.as_str()) {
            Some((file, first)) => problems.push(problem(
                &outline.file,
                *place,
                "pipe",
                format!("a second pipe named `{name}`"),
                "a name of its own for each pipe",
                format!(
                    "rename one of the two; the first is at {}",
                    at(file, *first)
                ),
            )),
            None => {
                seen.insert(name, (&outline.file, *place));
            }
        }
    }
    problems
}

/// What a target's name is unique within.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Whose<'a> {
    /// URL and database.
    Destination(&'a (String, String)),
    /// The one pipe whose destination could not be made out.
    Pipe(usize),
}

fn targets(outlines: &[&Outline]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen: HashMap<(Whose<'_>, String), (&Path, Place)> = HashMap::new();
    for (index, outline) in outlines.iter().enumerate() {
        let whose = match &outline.destination {
            Some(destination) => Whose::Destination(destination),
            None => Whose::Pipe(index),
        };
        for table in &outline.tables {
            let key = |name: String| (whose, name);
            // A table's view stands beside the tables, so its name is taken too.
            let names = [table.target.clone(), format!("{}_current", table.target)];
            let taken = names.iter().find_map(|name| {
                seen.get(&key(name.clone()))
                    .map(|first| (name.clone(), first))
            });
            if let Some((name, (file, first))) = taken {
                problems.push(problem(
                    &outline.file,
                    table.place,
                    &table.path,
                    format!("the target `{name}` a second time"),
                    "one source table for each target, whose view `<target>_current` counts too",
                    format!(
                        "give one of the two another `target`; the first is at {}",
                        at(file, *first)
                    ),
                ));
                continue;
            }
            for name in names {
                seen.insert(key(name), (&outline.file, table.place));
            }
        }
    }
    problems
}

fn at(file: &Path, place: Place) -> String {
    format!("{}:{}", file.display(), place.line)
}

fn problem(
    file: &Path,
    place: Place,
    path: &str,
    found: String,
    expected: &str,
    remedy: String,
) -> Problem {
    Problem {
        line: place.line,
        column: place.column,
        path: path.to_owned(),
        ..Problem::of_file(file, found, expected, remedy)
    }
}
