//! Reading a map key by key, so that every fault is noted and none ends the reading.
//!
//! A [`Section`] learns the keys it knows from the reads themselves: [`Section::finish`] reports whatever was written
//! and never asked for, so a key cannot be accepted and ignored.

use std::cell::RefCell;
use std::path::{Component, Path, PathBuf};

use super::Problem;
use super::field::{Field, one_of};
use super::node::{Key, Node, Place, Value};
use super::values::nearest;

/// The problems of one document, and where its paths lead.
pub(super) struct Checks {
    file: PathBuf,
    /// For a document that was sent: the folders that its paths may not leave.
    folders: Option<Folders>,
    problems: RefCell<Vec<Problem>>,
}

/// Where the paths of documents that were sent, rather than read from a file, may lead. Without a folder such paths are
/// refused: who may command pipes need not be one who may read this machine's files.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// Holds what `${file:...}` and certificates mean.
    pub secrets: Option<PathBuf>,
    /// Holds what `transforms.*.plugin` means.
    pub plugins: Option<PathBuf>,
}

impl Checks {
    pub(super) fn new(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            folders: None,
            problems: RefCell::default(),
        }
    }

    /// For a document that was sent.
    pub(super) fn of_sent(folders: &Folders) -> Self {
        Self {
            folders: Some(folders.clone()),
            ..Self::new(Path::new("request"))
        }
    }

    /// `path` as the document means it; for one that was sent, why it may not be used.
    pub(super) fn relative(&self, path: &Path, whose: Whose) -> Result<PathBuf, String> {
        let Some(folders) = &self.folders else {
            return Ok(self.file.parent().unwrap_or(Path::new("")).join(path));
        };
        let (folder, option) = match whose {
            Whose::Secret => (&folders.secrets, "--secrets-dir"),
            Whose::Plugin => (&folders.plugins, "--plugins-dir"),
        };
        let Some(folder) = folder else {
            return Err(format!(
                "which a document that was sent cannot name, as the process runs without {option}"
            ));
        };
        let full = folder.join(path);
        let plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        // Links are followed first: one that leads outside is outside.
        let inside = match (full.canonicalize(), folder.canonicalize()) {
            (Ok(full), Ok(folder)) => full.starts_with(folder),
            _ => true,
        };
        if plain && inside {
            Ok(full)
        } else {
            Err(format!("which leads out of the folder of {option}"))
        }
    }

    pub(super) fn report(
        &self,
        place: Place,
        path: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let mut problem = Problem::of_file(&self.file, found, expected, remedy);
        problem.line = place.line;
        problem.column = place.column;
        problem.path = path.to_owned();
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn report_file(&self, found: &str, expected: &str, remedy: &str) {
        let problem = Problem::of_file(&self.file, found, expected, remedy);
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// The problems in the order of their places.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems
    }
}

/// What a path is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// A secret, or a certificate.
    Secret,
    /// A plugin, or a file that one reads.
    Plugin,
}

/// A map with fixed keys.
pub(super) struct Section<'a> {
    pub(super) field: Field<'a>,
    entries: &'a [(Key, Node)],
    known: Vec<&'static str>,
    unbuilt: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn new(field: Field<'a>, entries: &'a [(Key, Node)]) -> Self {
        Self {
            field,
            entries,
            known: Vec::new(),
            unbuilt: Vec::new(),
        }
    }

    /// The value of `name`; none when it is absent or null.
    pub(super) fn get(&mut self, name: &'static str) -> Option<Field<'a>> {
        self.get_or_null(name)
            .filter(|field| !matches!(field.node.value, Value::Null))
    }

    /// The value of `name`, for a key of which `null` is a value and not absence.
    pub(super) fn get_or_null(&mut self, name: &'static str) -> Option<Field<'a>> {
        self.known.push(name);
        self.find(name)
            .map(|(_, node)| self.field.child(name, node))
    }

    /// The value of `name`, whose absence is a problem.
    pub(super) fn required(
        &mut self,
        name: &'static str,
        expected: &str,
        remedy: &str,
    ) -> Option<Field<'a>> {
        let found = self.get(name);
        if found.is_none() {
            match self.find(name) {
                Some((_, node)) => {
                    self.field
                        .child(name, node)
                        .problem("nothing", expected, remedy);
                }
                None => self.field.problem(format!("no `{name}`"), expected, remedy),
            }
        }
        found
    }

    /// `read` of the value of `name`, or `default` when it is absent. None after a complaint.
    pub(super) fn or<T>(
        &mut self,
        name: &'static str,
        default: T,
        read: impl FnOnce(Field<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.get(name) {
            Some(field) => read(field),
            None => Some(default),
        }
    }

    /// `read` of the value of `name`, if it is there. The outer none after a complaint.
    pub(super) fn maybe<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Field<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.get(name) {
            Some(field) => read(field).map(Some),
            None => Some(None),
        }
    }

    /// Refuses a key of the design whose function does not exist yet; `null` says the same as its absence.
    pub(super) fn unbuilt(&mut self, name: &'static str, instead: &str) {
        self.refuse(name, "is not built yet", instead);
    }

    /// Refuses a key that a pipe keeps for its life, in a change of a pipe that is there.
    pub(super) fn fixed(&mut self, name: &'static str) {
        let instead = "drop the pipe and make another, or change its file and resync it";
        self.refuse(name, "a pipe keeps for its life", instead);
    }

    fn refuse(&mut self, name: &'static str, why: &str, instead: &str) {
        self.unbuilt.push(name);
        if let Some((key, node)) = self.find(name)
            && !matches!(node.value, Value::Null)
        {
            let path = self.field.child(name, node).path;
            self.field.checks.report(
                key.place,
                &path,
                format!("`{name}`, which {why}"),
                "the key to be absent",
                instead,
            );
        }
    }

    /// Reports what was written and not asked for.
    pub(super) fn finish(self) {
        for (key, node) in self.entries {
            let name = key.name.as_str();
            if self.known.contains(&name) || self.unbuilt.contains(&name) {
                continue;
            }
            let remedy = match nearest(name, self.known.iter().copied()) {
                Some(known) => format!("did you mean `{known}`?"),
                None => "remove it, or check where it belongs".to_owned(),
            };
            self.field.checks.report(
                key.place,
                &self.field.child(name, node).path,
                format!("the unknown key `{name}`"),
                one_of(self.known.iter().copied()),
                remedy,
            );
        }
    }

    fn find(&self, name: &str) -> Option<&'a (Key, Node)> {
        self.entries.iter().find(|(key, _)| key.name == name)
    }
}
