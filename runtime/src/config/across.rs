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
    pub(super) replica: Option<Replica>,
    pub(super) tables: Vec<TableOutline>,
}

/// The replica that a pipe is to its source, where the document pins its number.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    pub(super) id: u32,
    /// Hosts and ports of the servers that it may follow.
    pub(super) servers: Vec<(String, u16)>,
    pub(super) place: Place,
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
    problems.extend(replicas(outlines));
    problems.extend(targets(outlines));
    problems
}

/// A server ends the connection of one replica when another of the same number comes (pitfall 63).
fn replicas(outlines: &[&Outline]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let pinned = || {
        outlines
            .iter()
            .filter_map(|outline| Some((&outline.file, outline.replica.as_ref()?)))
    };
    for (index, (file, replica)) in pinned().enumerate() {
        let rival = pinned().take(index).find(|(_, other)| {
            other.id == replica.id && other.servers.iter().any(|s| replica.servers.contains(s))
        });
        if let Some((first_file, first)) = rival {
            problems.push(problem(
                file,
                replica.place,
                "source.server_id",
                format!(
                    "the number {} of another pipe of the same server",
                    replica.id
                ),
                "a number that no other replica of the server has",
                format!(
                    "choose another, or leave it out; the first is at {}",
                    at(first_file, first.place)
                ),
            ));
        }
    }
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
