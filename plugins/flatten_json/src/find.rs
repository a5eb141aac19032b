//! Values by path, cut out of a document in one pass without a tree of it.
//!
//! A document is read to its end, so that what is no JSON (RFC 8259) is told from what lacks a value. Strings that nobody
//! asked for are passed over eight bytes at a time; their escapes are looked at, what they stand for is not.

use std::borrow::Cow;

/// Paths that begin alike share their beginning.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    root: Node,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Which columns want the value here.
    wanted: Vec<usize>,
    below: Vec<(Part, Node)>,
}

/// One step of a path.
#[derive(Clone, Debug)]
struct Part {
    name: String,
    /// The place in an array that it names, if it names one: digits without leading zeros (RFC 6901).
    index: Option<usize>,
}

impl Part {
    fn new(name: String) -> Self {
        let index = name.parse().ok();
        let index = index.filter(|index: &usize| index.to_string() == name);
        Self { name, index }
    }
}

/// Room that is used again for each document.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// What closes each object and array that is open in a value that is passed over.
    open: Vec<u8>,
}

impl Paths {
    /// Adds a JSON pointer (RFC 6901) to a value; Err says what is wrong with it.
    pub(crate) fn add(&mut self, pointer: &str, column: usize) -> Result<(), String> {
        let Some(rest) = pointer.strip_prefix('/') else {
            return Err("a path is a JSON pointer such as `/address/city`".to_owned());
        };
        let mut node = &mut self.root;
        for part in rest.split('/') {
            let part = part.replace("~1", "/").replace("~0", "~");
            let place = node.below.iter().position(|(known, _)| known.name == part);
            let place = place.unwrap_or_else(|| {
                node.below.push((Part::new(part), Node::default()));
                node.below.len() - 1
            });
            node = &mut node.below[place].1;
        }
        node.wanted.push(column);
        Ok(())
    }

    /// Finds each column's value as it stands in the document; false when the document is no JSON.
    pub(crate) fn find<'j>(
        &self,
        document: &'j str,
        room: &mut Room,
        found: &mut [Option<&'j str>],
    ) -> bool {
        let mut reader = Reader {
            document,
            bytes: document.as_bytes(),
            at: 0,
            open: &mut room.open,
        };
        reader.open.clear();
        let read = reader.look(&self.root, found);
        reader.space();
        read.is_some() && reader.at == reader.bytes.len()
    }
}

struct Reader<'j, 'r> {
    document: &'j str,
    bytes: &'j [u8],
    at: usize,
    open: &'r mut Vec<u8>,
}

/// Each reads from `at` on, and is None where the document is no JSON.
impl<'j> Reader<'j, '_> {
    /// Takes the value, or looks below it, or both.
    fn look(&mut self, node: &Node, found: &mut [Option<&'j str>]) -> Option<()> {
        self.space();
        let start = self.at;
        match self.bytes.get(start) {
            Some(b'{') if !node.below.is_empty() => self.object(node, found)?,
            Some(b'[') if !node.below.is_empty() => self.array(node, found)?,
            _ => self.value()?,
        }
        for column in &node.wanted {
            found[*column] = self.document.get(start..self.at);
        }
        Some(())
    }

    fn object(&mut self, node: &Node, found: &mut [Option<&'j str>]) -> Option<()> {
        self.at += 1;
        self.space();
        if self.takes(b'}') {
            return Some(());
        }
        loop {
            let key = self.key()?;
            let below = &node.below;
            match below.iter().find(|(part, _)| *part.name == *key) {
                Some((_, node)) => self.look(node, found)?,
                None => self.value()?,
            }
            self.space();
            match self.next()? {
                b',' => self.space(),
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    fn array(&mut self, node: &Node, found: &mut [Option<&'j str>]) -> Option<()> {
        self.at += 1;
        self.space();
        if self.takes(b']') {
            return Some(());
        }
        for place in 0.. {
            let below = &node.below;
            match below.iter().find(|(part, _)| part.index == Some(place)) {
                Some((_, node)) => self.look(node, found)?,
                None => self.value()?,
            }
            self.space();
            match self.next()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
        None
    }

    /// Passes over one value, however deep it is.
    fn value(&mut self) -> Option<()> {
        loop {
            self.space();
            match self.next()? {
                b'"' => drop(self.string()?),
                b'{' => {
                    self.space();
                    if !self.takes(b'}') {
                        self.open.push(b'}');
                        self.key()?;
                        continue;
                    }
                }
                b'[' => {
                    self.space();
                    if !self.takes(b']') {
                        self.open.push(b']');
                        continue;
                    }
                }
                b't' => self.word(b"rue")?,
                b'f' => self.word(b"alse")?,
                b'n' => self.word(b"ull")?,
                b'-' => {
                    let first = self.next()?;
                    self.number(first)?;
                }
                first => self.number(first)?,
            }
            if self.is_closed()? {
                return Some(());
            }
        }
    }

    /// Goes on behind a value inside the one that is passed over, to the next or to the end of all that is open.
    fn is_closed(&mut self) -> Option<bool> {
        while let Some(closing) = self.open.last().copied() {
            self.space();
            match self.next()? {
                b',' => {
                    if closing == b'}' {
                        self.space();
                        self.key()?;
                    }
                    return Some(false);
                }
                byte if byte == closing => drop(self.open.pop()),
                _ => return None,
            }
        }
        Some(true)
    }

    /// A key with its colon. One with half a surrogate pair names nothing that a path could.
    fn key(&mut self) -> Option<Cow<'j, str>> {
        if !self.takes(b'"') {
            return None;
        }
        let start = self.at;
        let has_escapes = self.string()?;
        let inner = self.document.get(start..self.at - 1)?;
        let key = if has_escapes {
            let quoted = self.document.get(start - 1..self.at)?;
            Cow::Owned(serde_json::from_str(quoted).unwrap_or_else(|_| inner.to_owned()))
        } else {
            Cow::Borrowed(inner)
        };
        self.space();
        self.takes(b':').then_some(key)
    }

    /// The rest of a string, and whether it has escapes.
    fn string(&mut self) -> Option<bool> {
        let mut has_escapes = false;
        loop {
            while let Some(chunk) = self.bytes[self.at..].first_chunk::<8>() {
                let ends = string_ends(u64::from_le_bytes(*chunk));
                if ends != 0 {
                    self.at += ends.trailing_zeros() as usize / 8;
                    break;
                }
                self.at += 8;
            }
            match self.next()? {
                b'"' => return Some(has_escapes),
                b'\\' => {
                    has_escapes = true;
                    self.escape()?;
                }
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.bytes.get(self.at..self.at + 4)?;
                self.at += 4;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    fn number(&mut self, first: u8) -> Option<()> {
        match first {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.takes(b'.') {
            self.digit()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            if !self.takes(b'-') {
                self.takes(b'+');
            }
            self.digit()?;
        }
        Some(())
    }

    /// One digit, and those behind it.
    fn digit(&mut self) -> Option<()> {
        self.next()?.is_ascii_digit().then(|| self.digits())
    }

    fn digits(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        let is_it = self.bytes[self.at..].starts_with(rest);
        self.at += rest.len();
        is_it.then_some(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is_it = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(is_it);
        is_it
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }
}

/// The highest bit of each byte that ends a run of plain characters: a quote, a backslash, a control character. The lowest
/// one set is right; those above it may be the carry of a subtraction.
fn string_ends(chunk: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let zero_in = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes;
    let quotes = zero_in(chunk ^ (ONES * u64::from(b'"')));
    let escapes = zero_in(chunk ^ (ONES * u64::from(b'\\')));
    let controls = chunk.wrapping_sub(ONES * 0x20) & !chunk;
    (quotes | escapes | controls) & (ONES * 0x80)
}
