//! Reading one value: every reader returns none after having complained, and the next value is read all the same.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Secrets;
use super::node::{Key, Node, Origin, Text, Value};
use super::section::{Checks, Section, Whose};
use super::values::{duration, nearest, show_duration, show_size, size};

/// One value, and what it takes to complain about it. Readers return none after having complained.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) checks: &'a Checks,
    pub(super) node: &'a Node,
    pub(super) path: String,
}

impl<'a> Field<'a> {
    pub(super) fn problem(
        &self,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.checks
            .report(self.node.place, &self.path, found, expected, remedy);
    }

    /// The value's kind, for messages; never the value.
    fn kind(&self) -> &'static str {
        match &self.node.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Text(Text { value, .. }) if value.is_empty() => "an empty string",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The value, for messages, but not where it came out of `${...}`.
    pub(super) fn shown(&self) -> String {
        match &self.node.value {
            Value::Bool(value) => format!("`{value}`"),
            Value::Integer(value) => format!("`{value}`"),
            Value::Float(value) => format!("`{value}`"),
            Value::Text(text) if !text.value.is_empty() => shown(text),
            _ => self.kind().to_owned(),
        }
    }

    /// [`Field::shown`] of an address: what may stand before the host, and behind it, is nobody's business.
    pub(super) fn shown_address(&self) -> String {
        match &self.node.value {
            Value::Text(text) if text.value.contains('@') => {
                "an address with user information".to_owned()
            }
            Value::Text(text) if text.value.contains('?') => "an address with a query".to_owned(),
            _ => self.shown(),
        }
    }

    /// [`Field::shown`] where a string stands in the place of something else.
    fn shown_with_kind(&self) -> String {
        match &self.node.value {
            Value::Text(text) if text.origin == Origin::Literal && !text.value.is_empty() => {
                format!("the string {}", self.shown())
            }
            _ => self.shown(),
        }
    }

    /// Whether an unresolved `${...}` stands here, of which nothing can be said.
    pub(super) fn is_unresolved(&self) -> bool {
        matches!(&self.node.value, Value::Text(text) if text.origin == Origin::Unresolved)
    }

    /// A string, possibly empty.
    pub(super) fn text_or_empty(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(&text.value),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                self.problem(self.kind(), "a string", "put it in quotes");
                None
            }
            _ => {
                self.problem(self.kind(), "a string", "write one string here");
                None
            }
        }
    }

    /// A string with something in it.
    pub(super) fn text(&self) -> Option<&'a str> {
        let text = self.text_or_empty()?;
        if text.is_empty() && !self.is_unresolved() {
            self.problem("an empty string", "a string", "fill it in");
            return None;
        }
        Some(text)
    }

    /// A string that `valid` accepts.
    pub(super) fn text_where(
        &self,
        valid: fn(&str) -> bool,
        expected: &str,
        remedy: &str,
    ) -> Option<&'a str> {
        let text = self.text()?;
        if self.is_unresolved() || valid(text) {
            return Some(text);
        }
        self.problem(self.shown(), expected, remedy);
        None
    }

    /// `text` as a path relative to the pipe file. Only a pipe about to run needs the file to be there.
    pub(super) fn file(&self, text: &str, secrets: Secrets, expected: &str) -> Option<PathBuf> {
        let path = self.path_of(text, expected)?;
        if secrets == Secrets::Resolve && !path.is_file() {
            self.problem(
                format!("{}, which is no file", self.shown()),
                expected,
                "paths are relative to the pipe file; make the file, or correct the path",
            );
            return None;
        }
        Some(path)
    }

    /// `text` as a folder relative to the pipe file. Only a pipe about to run needs it to be there.
    pub(super) fn folder(&self, text: &str, secrets: Secrets) -> Option<PathBuf> {
        let path = self.path_of(text, "a folder")?;
        if secrets == Secrets::Resolve && !path.is_dir() {
            self.problem(
                format!("{}, which is no folder", self.shown()),
                "a folder",
                "paths are relative to the pipe file; make the folder, or correct the path",
            );
            return None;
        }
        Some(path)
    }

    fn path_of(&self, text: &str, expected: &str) -> Option<PathBuf> {
        let whose = match self.path.starts_with("transforms.") {
            true => Whose::Plugin,
            false => Whose::Secret,
        };
        match self.checks.relative(Path::new(text), whose) {
            Ok(path) => Some(path),
            Err(why) => {
                let found = format!("{}, {why}", self.shown());
                self.problem(found, expected, "give a plain path relative to that folder");
                None
            }
        }
    }

    /// A whole number in `range`; a string is taken where it came out of `${...}`.
    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        if self.is_unresolved() {
            return Some(*range.start());
        }
        let number = match &self.node.value {
            Value::Integer(number) => Some(*number),
            Value::Text(text) if text.origin == Origin::Resolved => text.value.trim().parse().ok(),
            _ => None,
        };
        let within = number
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| range.contains(number));
        if within.is_none() {
            self.problem(
                self.shown_with_kind(),
                format!("a whole number from {} to {}", range.start(), range.end()),
                "write the number without quotes or unit",
            );
        }
        within
    }

    /// [`Field::integer`] from 1 on, as the type that cannot be zero.
    pub(super) fn positive(&self) -> Option<std::num::NonZeroU32> {
        let number = self.integer(1..=u64::from(u32::MAX))?;
        u32::try_from(number)
            .ok()
            .and_then(std::num::NonZeroU32::new)
    }

    /// The number `only`, and no other.
    pub(super) fn ensure_integer(&self, only: i128, expected: &str) {
        if !matches!(self.node.value, Value::Integer(number) if number == only) {
            self.problem(
                self.shown_with_kind(),
                expected,
                format!("write `{only}`, without quotes"),
            );
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        match &self.node.value {
            Value::Bool(value) => Some(*value),
            Value::Text(text) if text.origin == Origin::Resolved && text.value == "true" => {
                Some(true)
            }
            Value::Text(text) if text.origin == Origin::Resolved && text.value == "false" => {
                Some(false)
            }
            _ if self.is_unresolved() => Some(true),
            _ => {
                self.problem(
                    self.shown_with_kind(),
                    "`true` or `false`",
                    "write one of the two, without quotes",
                );
                None
            }
        }
    }

    /// A duration in `range`.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        if self.is_unresolved() {
            return Some(*range.start());
        }
        let found = match &self.node.value {
            Value::Text(text) => duration(text.value.trim()),
            _ => None,
        };
        let within = found.filter(|found| range.contains(found));
        if within.is_none() {
            self.problem(
                self.shown(),
                format!(
                    "a duration from {} to {}",
                    show_duration(*range.start()),
                    show_duration(*range.end())
                ),
                "write a whole number with its unit: `200ms`, `1s`, `5m`, `1h`",
            );
        }
        within
    }

    /// A size in bytes in `range`.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        if self.is_unresolved() {
            return Some(*range.start());
        }
        let found = match &self.node.value {
            Value::Text(text) => size(text.value.trim()),
            _ => None,
        };
        let within = found.filter(|found| range.contains(found));
        if within.is_none() {
            self.problem(
                self.shown(),
                format!(
                    "a size from {} to {}",
                    show_size(*range.start()),
                    show_size(*range.end())
                ),
                "write a whole number with its unit: `512KiB`, `64MiB`, `1GiB`",
            );
        }
        within
    }

    /// One of `choices`; one of `unbuilt` is refused with what to use instead.
    pub(super) fn choice<T: Copy>(
        &self,
        choices: &[(&'static str, T)],
        unbuilt: &[(&'static str, &'static str)],
    ) -> Option<T> {
        let (_, first) = choices.first()?;
        if self.is_unresolved() {
            return Some(*first);
        }
        let names = choices.iter().map(|(name, _)| *name);
        let Value::Text(text) = &self.node.value else {
            self.problem(self.kind(), one_of(names), "write one of these words");
            return None;
        };
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text.value) {
            return Some(*choice);
        }
        if let Some((name, instead)) = unbuilt.iter().find(|(name, _)| *name == text.value) {
            self.problem(
                format!("`{name}`, which is not built yet"),
                one_of(names),
                *instead,
            );
            return None;
        }
        let remedy = match nearest(&text.value, names.clone()) {
            Some(name) if text.origin == Origin::Literal => format!("did you mean `{name}`?"),
            _ => "write one of these words".to_owned(),
        };
        self.problem(shown(text), one_of(names), remedy);
        None
    }

    /// A list's items.
    pub(super) fn list(&self) -> Option<Vec<Field<'a>>> {
        if !matches!(self.node.value, Value::List(_)) {
            self.problem(
                self.kind(),
                "a list",
                "write `[a, b]`, or one `- ` line an item",
            );
            return None;
        }
        Some(self.items())
    }

    /// A list's items, for a second look without a second complaint.
    pub(super) fn items(&self) -> Vec<Field<'a>> {
        let nodes = match &self.node.value {
            Value::List(nodes) => nodes.as_slice(),
            _ => &[],
        };
        let field = |(index, node)| Field {
            checks: self.checks,
            node,
            path: format!("{}[{index}]", self.path),
        };
        nodes.iter().enumerate().map(field).collect()
    }

    /// A string of which something can be said, for a second look without a second complaint.
    pub(super) fn as_known_text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) if text.origin != Origin::Unresolved => Some(&text.value),
            _ => None,
        }
    }

    /// A list of strings, none twice.
    pub(super) fn names(&self) -> Option<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        let mut good = true;
        for item in self.list()? {
            match item.text() {
                Some(name) if names.iter().any(|known| known == name) => {
                    item.problem(
                        format!("{} a second time", item.shown()),
                        "each name once",
                        "remove one of the two",
                    );
                    good = false;
                }
                Some(name) => names.push(name.to_owned()),
                None => good = false,
            }
        }
        good.then_some(names)
    }

    /// The value as a map with fixed keys.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        let entries = self.entries()?;
        Some(Section::new(self.clone(), entries))
    }

    /// The value as a map with keys of the user's choice, none twice.
    pub(super) fn entries_by_name(&self) -> Option<Vec<(&'a Key, Field<'a>)>> {
        let entries = self.entries()?;
        Some(
            entries
                .iter()
                .map(|(key, node)| (key, self.child(&key.name, node)))
                .collect(),
        )
    }

    /// The entries, or a complaint that this is no map.
    pub(super) fn ensure_map(&self) -> Option<&'a [(Key, Node)]> {
        match &self.node.value {
            Value::Map(entries) => Some(entries),
            _ => {
                self.problem(self.kind(), "a map", "write `key: value` lines here");
                None
            }
        }
    }

    /// Reports keys written twice at any depth of a map whose keys are somebody else's business.
    pub(super) fn ensure_unique_keys(&self) {
        match &self.node.value {
            Value::Map(entries) => {
                self.entries();
                for (key, node) in entries {
                    self.child(&key.name, node).ensure_unique_keys();
                }
            }
            Value::List(_) => {
                for item in self.list().unwrap_or_default() {
                    item.ensure_unique_keys();
                }
            }
            _ => {}
        }
    }

    fn entries(&self) -> Option<&'a [(Key, Node)]> {
        let entries = self.ensure_map()?;
        for (index, (key, node)) in entries.iter().enumerate() {
            if let Some((first, _)) = entries
                .iter()
                .take(index)
                .find(|(earlier, _)| earlier.name == key.name)
            {
                self.checks.report(
                    key.place,
                    &self.child(&key.name, node).path,
                    format!("the key `{}` a second time", key.name),
                    "each key once",
                    format!("remove one; the first is on line {}", first.place.line),
                );
            }
        }
        Some(entries)
    }

    pub(super) fn child(&self, name: &str, node: &'a Node) -> Field<'a> {
        let path = if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        };
        Field {
            checks: self.checks,
            node,
            path,
        }
    }
}

/// A literal in backticks, cut to a length that a terminal line takes.
fn shown(text: &Text) -> String {
    const CHARACTERS_MAX: usize = 80;
    if text.origin != Origin::Literal {
        return "the value of a `${...}`".to_owned();
    }
    // Whatever key it stands at: only the value's form tells that it is an address.
    if text.value.contains("://") && text.value.contains('@') {
        return "an address with user information".to_owned();
    }
    let escaped: String = text.value.chars().flat_map(char::escape_debug).collect();
    match escaped.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("`{}...`", escaped.split_at(end).0),
        None => format!("`{escaped}`"),
    }
}

pub(super) fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [only] => only.clone(),
        _ => format!("one of {}", names.join(", ")),
    }
}
