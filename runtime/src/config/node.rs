//! A parsed document as a tree whose nodes know their place.
//!
//! Duplicate keys are kept, so that each is reported where it stands, with all the rest.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, MessageFormatter, Spanned, UserMessageFormatter};

use super::section::Checks;

/// Where a node stands; both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// One value with its place.
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// One key of a map with its place.
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) name: String,
}

/// What YAML can say.
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(Text),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A string, and what `${...}` did to it.
pub(super) struct Text {
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// Where a string's characters come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The file alone: it may be shown.
    Literal,
    /// Partly the environment or a mounted secret: it is never shown.
    Resolved,
    /// An unresolved `${...}` stands in it, as written.
    Unresolved,
}

/// The documents of a file. A document that breaks YAML's rules is reported, and reading goes on with the next.
pub(super) fn parse(text: &str, checks: &Checks) -> Vec<Node> {
    let hidden = hide_references(text);
    let text = hidden.as_str();
    let mut documents = Vec::new();
    let mut lines_before = 0;
    while let Some(broken) = parse_from(text, lines_before, checks, &mut documents) {
        // The parser gives up on what follows broken syntax; a line of its own with `---` begins a document whatever
        // stands before it.
        let next = text
            .lines()
            .enumerate()
            .skip(usize::try_from(broken).unwrap_or(usize::MAX))
            .find(|(_, line)| *line == "---" || line.starts_with("--- "));
        match next {
            Some((line, _)) => lines_before = line,
            None => break,
        }
    }
    documents
}

/// Stand for the braces of `${...}` while YAML is parsed: from the private use area, one character for one.
const HIDDEN_BRACES: [char; 2] = ['\u{e000}', '\u{e001}'];

/// Hides the braces of references, so that `{ salt: ${SALT} }` is a map with a string in it: inside `{ }` and `[ ]`
/// YAML would take the brace for another map. Places do not change.
fn hide_references(text: &str) -> String {
    if text.contains(HIDDEN_BRACES) {
        return text.to_owned();
    }
    let [open, close] = HIDDEN_BRACES;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        match after.split_once('}') {
            Some((reference, after)) if !reference.contains('\n') => {
                out.push('$');
                out.push(open);
                out.push_str(reference);
                out.push(close);
                rest = after;
            }
            _ => {
                out.push_str("${");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Undoes [`hide_references`] in what was parsed.
fn show_references(text: String) -> String {
    let [open, close] = HIDDEN_BRACES;
    if text.contains(open) {
        text.replace(open, "{").replace(close, "}")
    } else {
        text
    }
}

/// Parses what follows the first `lines_before` lines. The line of a fault that ended it, if one did.
fn parse_from(
    text: &str,
    lines_before: usize,
    checks: &Checks,
    documents: &mut Vec<Node>,
) -> Option<u64> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // `no` and `off` are strings, as YAML 1.2 has it: a database may have such a name.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        // Snippets quote the file, and with it passwords.
        with_snippet: false,
    };
    let start: usize = text
        .split_inclusive('\n')
        .take(lines_before)
        .map(str::len)
        .sum();
    let lines_before = lines_before as u64;
    let mut bytes = text.as_bytes().get(start..)?;
    let mut broken = None;
    for document in serde_saphyr::read_with_options::<_, Spanned<Tree>>(&mut bytes, options) {
        let error = match document {
            Ok(document) => {
                documents.push(node(document, lines_before));
                broken = None;
                continue;
            }
            Err(error) => error,
        };
        let location = error.location();
        let place = Place {
            line: location.map_or(1, |location| location.line()) + lines_before,
            column: location.map_or(1, |location| location.column()),
        };
        let message = UserMessageFormatter.format_message(error.without_snippet());
        checks.report(
            place,
            "",
            format!("broken YAML ({message})"),
            "a YAML document",
            "check indentation, quotes and brackets at this place and the line before",
        );
        broken = Some(place.line);
    }
    broken
}

fn node(tree: Spanned<Tree>, lines_before: u64) -> Node {
    Node {
        place: Place {
            line: tree.referenced.line() + lines_before,
            column: tree.referenced.column(),
        },
        value: match tree.value {
            Tree::Null => Value::Null,
            Tree::Bool(value) => Value::Bool(value),
            Tree::Integer(value) => Value::Integer(value),
            Tree::Float(value) => Value::Float(value),
            Tree::Text(value) => Value::Text(Text {
                value: show_references(value),
                origin: Origin::Literal,
            }),
            Tree::List(items) => Value::List(
                items
                    .into_iter()
                    .map(|item| node(item, lines_before))
                    .collect(),
            ),
            Tree::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        let place = Place {
                            line: key.referenced.line() + lines_before,
                            column: key.referenced.column(),
                        };
                        let name = show_references(key.value);
                        (Key { place, name }, node(value, lines_before))
                    })
                    .collect(),
            ),
        },
    }
}

/// What serde hands over, before places are pulled out of `Spanned`.
enum Tree {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<String>, Spanned<Tree>)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Tree, E> {
        Ok(Tree::Integer(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Tree::Map(map))
    }
}
