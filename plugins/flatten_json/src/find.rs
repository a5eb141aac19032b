//! Values by path, cut out of a document in one pass without a tree of it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Paths that begin alike share their beginning.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    root: Node,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Which columns want the value here.
    wanted: Vec<usize>,
    /// Whether one of them wants it as it stands in the document.
    as_json: bool,
    below: Vec<(String, Node)>,
}

impl Node {
    fn is_text(&self) -> bool {
        !self.wanted.is_empty() && !self.as_json && self.below.is_empty()
    }
}

/// A value of a document.
#[derive(Clone, Debug)]
pub(crate) enum Found<'j> {
    /// As it stands there.
    Json(&'j str),
    /// A string, where nothing but a string is looked for: read in the pass that finds it.
    Text(Cow<'j, str>),
    /// Something else than a string, where nothing but a string is looked for.
    NoText,
}

impl Paths {
    /// Adds a JSON pointer (RFC 6901) to a value of which the column takes strings only, or any; Err says what is wrong
    /// with it.
    pub(crate) fn add(
        &mut self,
        pointer: &str,
        column: usize,
        strings_only: bool,
    ) -> Result<(), String> {
        let Some(rest) = pointer.strip_prefix('/') else {
            return Err("a path is a JSON pointer such as `/address/city`".to_owned());
        };
        let mut node = &mut self.root;
        for part in rest.split('/') {
            let part = part.replace("~1", "/").replace("~0", "~");
            let place = node.below.iter().position(|(name, _)| *name == part);
            let place = place.unwrap_or_else(|| {
                node.below.push((part, Node::default()));
                node.below.len() - 1
            });
            node = &mut node.below[place].1;
        }
        node.wanted.push(column);
        node.as_json |= !strings_only;
        Ok(())
    }

    /// Finds each column's value; false when the document is no JSON.
    pub(crate) fn find<'j>(&self, document: &'j str, found: &mut [Option<Found<'j>>]) -> bool {
        self.pass(document, true, found) || {
            // A string of half a surrogate pair fits no text, and hides nothing else in its document.
            found.fill(None);
            self.pass(document, false, found)
        }
    }

    fn pass<'j>(
        &self,
        document: &'j str,
        reads_text: bool,
        found: &mut [Option<Found<'j>>],
    ) -> bool {
        let mut reader = serde_json::Deserializer::from_str(document);
        let root = Within {
            node: &self.root,
            reads_text,
            found,
        };
        root.deserialize(&mut reader).is_ok() && reader.end().is_ok()
    }
}

/// Looks into a value for what stands below `node`.
struct Within<'n, 'f, 'j> {
    node: &'n Node,
    /// Whether strings are read where they are found.
    reads_text: bool,
    found: &'f mut [Option<Found<'j>>],
}

impl<'j> Within<'_, '_, 'j> {
    /// Takes the value, or looks below it, or both.
    fn take<E>(
        &mut self,
        node: &Node,
        value: impl FnOnce() -> Result<&'j RawValue, E>,
    ) -> Result<(), E> {
        let raw = value()?.get();
        for column in &node.wanted {
            self.found[*column] = Some(Found::Json(raw));
        }
        if !node.below.is_empty() {
            let mut reader = serde_json::Deserializer::from_str(raw);
            // It has been read as JSON once.
            Within {
                node,
                reads_text: self.reads_text,
                found: self.found,
            }
            .deserialize(&mut reader)
            .ok();
        }
        Ok(())
    }
}

impl<'j> DeserializeSeed<'j> for Within<'_, '_, 'j> {
    type Value = ();

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'j> Visitor<'j> for Within<'_, '_, 'j> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'j>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            let node = self.node;
            match node.below.iter().find(|(name, _)| *name == *key) {
                Some((_, node)) if self.reads_text && node.is_text() => {
                    let text = map.next_value_seed(TextOrNot)?;
                    node.wanted
                        .iter()
                        .for_each(|column| self.found[*column] = Some(text.clone()));
                }
                // Nothing is taken here, so it is looked into as it is read.
                Some((_, node)) if node.wanted.is_empty() => {
                    map.next_value_seed(Within {
                        node,
                        reads_text: self.reads_text,
                        found: self.found,
                    })?;
                }
                Some((_, node)) => self.take(node, || map.next_value())?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'j>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let node = self.node;
        for index in 0_usize.. {
            let wanted = node
                .below
                .iter()
                .find(|(name, _)| name.parse() == Ok(index));
            match wanted {
                Some((_, node)) => match seq.next_element::<&RawValue>()? {
                    Some(value) => self.take::<A::Error>(node, || Ok(value))?,
                    None => return Ok(()),
                },
                None => {
                    if seq.next_element::<IgnoredAny>()?.is_none() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A key, which is copied only where it has escapes.
struct Key;

impl<'j> DeserializeSeed<'j> for Key {
    type Value = Cow<'j, str>;

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<Cow<'j, str>, D::Error> {
        match deserializer.deserialize_str(TextOrNot)? {
            Found::Text(text) => Ok(text),
            Found::Json(_) | Found::NoText => Err(Error::custom("a key is no string")),
        }
    }
}

/// A string, which is copied only where it has escapes; of anything else only that it is none.
struct TextOrNot;

impl<'j> DeserializeSeed<'j> for TextOrNot {
    type Value = Found<'j>;

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<Found<'j>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'j> Visitor<'j> for TextOrNot {
    type Value = Found<'j>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_borrowed_str<E>(self, text: &'j str) -> Result<Found<'j>, E> {
        Ok(Found::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Found<'j>, E> {
        Ok(Found::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Found<'j>, E> {
        Ok(Found::Json("null"))
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Found<'j>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Found::NoText)
    }

    fn visit_seq<A: SeqAccess<'j>>(self, mut seq: A) -> Result<Found<'j>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::NoText)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found<'j>, E> {
        Ok(Found::NoText)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found<'j>, E> {
        Ok(Found::NoText)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found<'j>, E> {
        Ok(Found::NoText)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found<'j>, E> {
        Ok(Found::NoText)
    }
}
