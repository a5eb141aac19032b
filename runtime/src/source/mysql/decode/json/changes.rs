//! Documents that an update changed in parts (`binlog_row_value_options = PARTIAL_JSON`, pitfall 28).
//!
//! The event holds what was done to the old document: a value put in a place that exists, a new member or element, or
//! one taken away; each with its place as a path. Only the containers on a path are taken apart, all else stays as it
//! is stored and is printed from there; so every scalar keeps its exact form. Members of an object are kept in the
//! server's order, by length and then by bytes, and so the text is what the server prints of its own new document.
//!
//! A path that leads nowhere is an error and never passed over: the document that it was made for is another one.

use std::borrow::Cow;

use super::{
    LARGE_ARRAY, LARGE_OBJECT, LITERAL, MAX_DEPTH, Members, Printer, SMALL_ARRAY, SMALL_OBJECT,
    Width, quote,
};
use crate::source::mysql::decode::DecodeError;
use crate::source::mysql::decode::cursor::{take, take_lenenc, take_u8};

/// A value: as it is stored, or taken apart.
enum Node<'a> {
    Stored {
        value_type: u8,
        /// From its place to the end of what it is stored in.
        bytes: &'a [u8],
    },
    /// By length of key, then by its bytes.
    Object(Vec<(Cow<'a, [u8]>, Node<'a>)>),
    Array(Vec<Node<'a>>),
}

/// One step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Leg<'a> {
    Member(Cow<'a, [u8]>),
    Element(usize),
    /// Counted back from the last, which is 0.
    FromLast(usize),
}

const REPLACE: u8 = 0;
const INSERT: u8 = 1;
const REMOVE: u8 = 2;

const NOWHERE: DecodeError = DecodeError::BadJson("a change names a place that is not there");
const BAD_PATH: DecodeError = DecodeError::BadJson("the path of a change");

/// Appends the text of `document` with `changes` made to it.
pub(in super::super) fn print_changed(
    document: &[u8],
    changes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let mut root = stored(document)?;
    let mut budget = document.len() + changes.len();
    let mut cursor = changes;
    while !cursor.is_empty() {
        let operation = take_u8(&mut cursor)?;
        let path = legs(take_lenenc(&mut cursor)?)?;
        match operation {
            REPLACE => *find(&mut root, &path, &mut budget)? = stored(take_lenenc(&mut cursor)?)?,
            INSERT => {
                let value = stored(take_lenenc(&mut cursor)?)?;
                insert(&mut root, path, value, &mut budget)?;
            }
            REMOVE => remove(&mut root, &path, &mut budget)?,
            _ => return Err(DecodeError::BadJson("unknown kind of change")),
        }
    }
    let mut printer = Printer {
        budget: document.len() + changes.len(),
        out,
    };
    print(&mut printer, &root, 1)
}

/// A whole document; one of no bytes is `null` (pitfall 26).
fn stored(document: &[u8]) -> Result<Node<'_>, DecodeError> {
    let mut bytes = document;
    if bytes.is_empty() {
        return Ok(Node::Stored {
            value_type: LITERAL,
            bytes: &[0],
        });
    }
    let value_type = take_u8(&mut bytes)?;
    Ok(Node::Stored { value_type, bytes })
}

/// The steps of a path such as `$.a[2]."with space"`; the dollar may be missing.
fn legs(path: &[u8]) -> Result<Vec<Leg<'_>>, DecodeError> {
    let mut rest = path.strip_prefix(b"$").unwrap_or(path);
    let mut legs = Vec::new();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        legs.push(match first {
            b'.' => Leg::Member(member(&mut rest)?),
            b'[' => element(&mut rest)?,
            _ => return Err(BAD_PATH),
        });
        if legs.len() > MAX_DEPTH as usize {
            return Err(BAD_PATH);
        }
    }
    Ok(legs)
}

/// A key: a plain name, or a JSON string.
fn member<'a>(rest: &mut &'a [u8]) -> Result<Cow<'a, [u8]>, DecodeError> {
    if rest.first() != Some(&b'"') {
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'.' | b'['))
            .unwrap_or(rest.len());
        return take(rest, end).map(Cow::Borrowed);
    }
    let mut escaped = false;
    let end = rest
        .iter()
        .skip(1)
        .position(|byte| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            ends
        })
        .ok_or(BAD_PATH)?;
    let quoted = take(rest, end + 2)?;
    let inner = quoted.get(1..=end).ok_or(BAD_PATH)?;
    if !inner.contains(&b'\\') {
        return Ok(Cow::Borrowed(inner));
    }
    let text: String = serde_json::from_slice(quoted).map_err(|_| BAD_PATH)?;
    Ok(Cow::Owned(text.into_bytes()))
}

fn element<'a>(rest: &mut &'a [u8]) -> Result<Leg<'a>, DecodeError> {
    let end = rest.iter().position(|byte| *byte == b']').ok_or(BAD_PATH)?;
    let text = std::str::from_utf8(take(rest, end)?).map_err(|_| BAD_PATH)?;
    take_u8(rest)?;
    let number = |text: &str| text.trim().parse().map_err(|_| BAD_PATH);
    match text.trim().strip_prefix("last") {
        None => number(text).map(Leg::Element),
        Some("") => Ok(Leg::FromLast(0)),
        Some(back) => {
            let back = back.trim().strip_prefix('-').ok_or(BAD_PATH)?;
            number(back).map(Leg::FromLast)
        }
    }
}

impl Leg<'_> {
    /// Where an element stands, or would be put, among `length`: behind the last at most, before the first at least.
    fn place(&self, length: usize) -> Option<usize> {
        match self {
            Leg::Element(index) => Some(*index),
            Leg::FromLast(back) => length.checked_sub(1)?.checked_sub(*back),
            Leg::Member(_) => None,
        }
    }
}

/// The value at the end of `path`.
fn find<'n, 'a>(
    root: &'n mut Node<'a>,
    path: &[Leg<'_>],
    budget: &mut usize,
) -> Result<&'n mut Node<'a>, DecodeError> {
    let mut node = root;
    for leg in path {
        node.take_apart(budget)?;
        node = match (leg, node) {
            (Leg::Member(key), Node::Object(members)) => {
                let place = members.binary_search_by(|(known, _)| order(known, key));
                let place = place.map_err(|_| NOWHERE)?;
                members.get_mut(place).map(|(_, node)| node)
            }
            (leg @ (Leg::Element(_) | Leg::FromLast(_)), Node::Array(elements)) => leg
                .place(elements.len())
                .and_then(|place| elements.get_mut(place)),
            // What is no array counts as one of a single element.
            (Leg::Element(0) | Leg::FromLast(0), node) => Some(node),
            _ => None,
        }
        .ok_or(NOWHERE)?;
    }
    Ok(node)
}

/// Adds a member or element that is not there yet.
fn insert<'a>(
    root: &mut Node<'a>,
    mut path: Vec<Leg<'a>>,
    value: Node<'a>,
    budget: &mut usize,
) -> Result<(), DecodeError> {
    let last = path.pop().ok_or(NOWHERE)?;
    let parent = find(root, &path, budget)?;
    parent.take_apart(budget)?;
    match (last, parent) {
        (Leg::Member(key), Node::Object(members)) => {
            let place = members.binary_search_by(|(known, _)| order(known, &key));
            let Err(place) = place else {
                return Err(DecodeError::BadJson("a change adds a member that is there"));
            };
            members.insert(place, (key, value));
            Ok(())
        }
        (leg @ (Leg::Element(_) | Leg::FromLast(_)), Node::Array(elements)) => {
            let place = leg.place(elements.len()).unwrap_or(0).min(elements.len());
            elements.insert(place, value);
            Ok(())
        }
        _ => Err(NOWHERE),
    }
}

fn remove(root: &mut Node<'_>, path: &[Leg<'_>], budget: &mut usize) -> Result<(), DecodeError> {
    let (last, path) = path.split_last().ok_or(NOWHERE)?;
    let parent = find(root, path, budget)?;
    parent.take_apart(budget)?;
    match (last, parent) {
        (Leg::Member(key), Node::Object(members)) => {
            let place = members.binary_search_by(|(known, _)| order(known, key));
            members.remove(place.map_err(|_| NOWHERE)?);
            Ok(())
        }
        (leg @ (Leg::Element(_) | Leg::FromLast(_)), Node::Array(elements)) => {
            let place = leg.place(elements.len());
            let place = place.filter(|place| *place < elements.len());
            elements.remove(place.ok_or(NOWHERE)?);
            Ok(())
        }
        _ => Err(NOWHERE),
    }
}

/// The server's order of an object's keys.
fn order(known: &[u8], key: &[u8]) -> std::cmp::Ordering {
    known.len().cmp(&key.len()).then_with(|| known.cmp(key))
}

impl Node<'_> {
    /// Makes members of a container that is still stored. `budget` is what members and keys may still come to: an honest
    /// document has fewer than it has bytes.
    fn take_apart(&mut self, budget: &mut usize) -> Result<(), DecodeError> {
        let Node::Stored { value_type, bytes } = *self else {
            return Ok(());
        };
        let (width, object) = match value_type {
            SMALL_OBJECT => (Width { bytes: 2 }, true),
            LARGE_OBJECT => (Width { bytes: 4 }, true),
            SMALL_ARRAY => (Width { bytes: 2 }, false),
            LARGE_ARRAY => (Width { bytes: 4 }, false),
            _ => return Ok(()),
        };
        let mut stored = Members::of(bytes, width, object)?;
        let (mut members, mut elements) = (Vec::new(), Vec::new());
        while let Some(member) = stored.next()? {
            *budget = budget
                .checked_sub(1 + member.key.len())
                .ok_or(DecodeError::BadJson("values overlap"))?;
            let node = Node::Stored {
                value_type: member.value_type,
                bytes: member.bytes,
            };
            if object {
                members.push((Cow::Borrowed(member.key), node));
            } else {
                elements.push(node);
            }
        }
        if !members.is_sorted_by(|(one, _), (other, _)| order(one, other).is_lt()) {
            return Err(DecodeError::BadJson("keys out of order"));
        }
        *self = if object {
            Node::Object(members)
        } else {
            Node::Array(elements)
        };
        Ok(())
    }
}

fn print(printer: &mut Printer<'_>, node: &Node<'_>, depth: u32) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH + 1 {
        return Err(DecodeError::BadJson("nested too deep"));
    }
    match node {
        Node::Stored { value_type, bytes } => printer.value(*value_type, bytes, depth),
        Node::Object(members) => {
            printer.out.push(b'{');
            for (index, (key, node)) in members.iter().enumerate() {
                separate(printer, index)?;
                printer.spend(key.len())?;
                quote(key, printer.out);
                printer.out.extend_from_slice(b": ");
                print(printer, node, depth + 1)?;
            }
            printer.out.push(b'}');
            Ok(())
        }
        Node::Array(elements) => {
            printer.out.push(b'[');
            for (index, node) in elements.iter().enumerate() {
                separate(printer, index)?;
                print(printer, node, depth + 1)?;
            }
            printer.out.push(b']');
            Ok(())
        }
    }
}

fn separate(printer: &mut Printer<'_>, index: usize) -> Result<(), DecodeError> {
    // An entry has a type and two bytes at least, a change that adds one its kind and its path.
    printer.spend(3)?;
    if index > 0 {
        printer.out.extend_from_slice(b", ");
    }
    Ok(())
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
