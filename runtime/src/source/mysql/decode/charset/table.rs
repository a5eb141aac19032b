//! Charsets with a table: single bytes, and the East Asian ones with codes of two, three and four bytes.
//!
//! `tables.txt` holds what the servers say, code by code; `testbed charsets` writes it, and a test compares it with both
//! servers. Where `encoding_rs` has a charset's table in the main, only the differences are kept. Single-byte charsets
//! are written out: WHATWG's differ from the servers' in most.
//!
//! ```text
//! charset koi8r                  a single-byte charset: below 80 it is ASCII unless a line says otherwise
//! 80 2500 2502 250C ...          the characters of 80 to 8F; a full stop where there is none
//! charset big5 = big5            a table of encoding_rs, by its label, with these differences:
//! - 8140 A0FE                    codes without a character
//! + C740 C77E 30A8               codes in a row with the characters from 30A8 on
//! ~ ED40 ED7E                    second codings: of characters that the server itself codes otherwise
//! ```

use std::fmt;
use std::sync::{LazyLock, OnceLock};

use encoding_rs::Encoding;

const TABLES: &str = include_str!("tables.txt");

/// A code without a character.
const NONE: u16 = 0xffff;

/// The lead byte of the three-byte codes of EUC-JP.
const SINGLE_SHIFT_3: u8 = 0x8f;

/// Where the four-byte codes of GB 18030 pass from the first plane to the others.
const QUADS_OF_PLANE_0: u32 = 39_420;
const FIRST_QUAD_BEYOND: u32 = 189_000;

/// Every code of one charset with its character.
pub struct CodeTable {
    name: &'static str,
    /// Whether a byte below 0x80 is its ASCII character wherever it stands for itself.
    ascii: bool,
    singles: Box<[u16]>,
    /// By the low seven bits of the lead byte, and the second byte.
    pairs: Option<Box<[u16]>>,
    /// Behind [`SINGLE_SHIFT_3`], by the low seven bits of both bytes.
    triples: Option<Box<[u16]>>,
    /// In linear order.
    quads: Option<Box<[u16]>>,
    /// Codes of characters that the server codes otherwise, in ascending order.
    second_codings: Vec<u32>,
}

struct Entry {
    name: &'static str,
    label: Option<&'static str>,
    lines: &'static str,
    table: OnceLock<CodeTable>,
}

static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    TABLES
        .split("charset ")
        .filter_map(|section| section.split_once('\n'))
        .filter(|(head, _)| !head.starts_with('#'))
        .map(|(head, lines)| {
            let (name, label) = match head.split_once(" = ") {
                Some((name, label)) => (name, Some(label)),
                None => (head, None),
            };
            Entry {
                name,
                label,
                lines,
                table: OnceLock::new(),
            }
        })
        .collect()
});

impl CodeTable {
    /// The table of that charset; made when it is first asked for.
    pub(super) fn named(name: &str) -> Option<&'static CodeTable> {
        let entry = ENTRIES.iter().find(|entry| entry.name == name)?;
        Some(entry.table.get_or_init(|| CodeTable::load(entry)))
    }

    /// Appends the text of `bytes` to `out`; none, with anything appended, where a part of it is no character.
    #[inline]
    pub(super) fn decode(&self, bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
        if self.ascii && bytes.is_ascii() {
            out.extend_from_slice(bytes);
            return Some(());
        }
        out.reserve(bytes.len() * 2);
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            if self.ascii && first.is_ascii() {
                let run = rest.iter().position(|byte| !byte.is_ascii());
                let (plain, behind) = rest.split_at(run.unwrap_or(rest.len()));
                out.extend_from_slice(plain);
                rest = behind;
                continue;
            }
            let (character, length) = self.character(rest)?;
            push(character, out);
            rest = rest.get(length..)?;
        }
        Some(())
    }

    /// Whether a text holds a character in another coding than the server's own.
    pub(super) fn has_second_coding(&self, bytes: &[u8]) -> bool {
        let number = |code: &[u8]| {
            code.iter()
                .fold(0, |number, byte| number << 8 | u32::from(*byte))
        };
        !self.second_codings.is_empty()
            && self
                .characters(bytes)
                .any(|code| self.second_codings.binary_search(&number(code)).is_ok())
    }

    /// Codes above ASCII that have a character, about `count` of them, spread evenly.
    pub(super) fn samples(&self, count: usize) -> Vec<Vec<u8>> {
        let singles = (0x80..=0xff).map(|byte: u8| vec![byte]);
        let pairs = self.pairs.iter().flat_map(|_| 0x8000..=0xffff);
        let codes: Vec<Vec<u8>> = singles
            .chain(pairs.map(|code: u16| code.to_be_bytes().to_vec()))
            .filter(|code| {
                self.character(code)
                    .is_some_and(|(_, length)| length == code.len())
            })
            .collect();
        let step = codes.len().div_ceil(count.max(1)).max(1);
        codes.into_iter().step_by(step).collect()
    }

    /// The character at the front of `bytes`, and the length of its code.
    #[inline]
    fn character(&self, bytes: &[u8]) -> Option<(u32, usize)> {
        let first = *bytes.first()?;
        let single = *self.singles.get(usize::from(first))?;
        if single != NONE {
            return Some((single.into(), 1));
        }
        let pairs = self.pairs.as_deref()?;
        let second = *bytes.get(1)?;
        let pair = *pairs.get(pair_index(first, second))?;
        if pair != NONE {
            return Some((pair.into(), 2));
        }
        if let (SINGLE_SHIFT_3, Some(triples)) = (first, self.triples.as_deref()) {
            let triple = *triples.get(triple_index(second, *bytes.get(2)?)?)?;
            return (triple != NONE).then_some((triple.into(), 3));
        }
        let linear = quad_index(bytes.first_chunk()?)?;
        let quads = self.quads.as_deref()?;
        let character = match quads.get(usize::try_from(linear).ok()?) {
            Some(character) => u32::from(*character),
            None => linear.checked_sub(FIRST_QUAD_BEYOND)? + 0x1_0000,
        };
        (character <= 0x10_ffff).then_some((character, 4))
    }

    /// The codes of a text, up to the first that is none.
    pub(super) fn characters<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = bytes;
        std::iter::from_fn(move || {
            let (_, length) = self.character(rest)?;
            let (code, behind) = rest.split_at_checked(length)?;
            rest = behind;
            Some(code)
        })
    }

    fn load(entry: &Entry) -> Self {
        let mut table = match entry.label {
            Some(label) => Self::of_encoding(entry.name, label),
            None => Self::single_byte(entry.name),
        };
        for line in entry.lines.lines() {
            let mut words = line.split_whitespace();
            let mark = words.next();
            let mut number = || words.next().map(parse);
            match mark {
                Some("-") => {
                    let (from, to) = (number(), number());
                    table.set_all(from, to, |_| NONE);
                }
                Some("+") => {
                    let (from, to, character) = (number(), number(), number());
                    let start = character.unwrap_or_default();
                    table.set_all(from, to, |nth| u16::try_from(start + nth).unwrap_or(NONE));
                }
                Some("~") => {
                    if let (Some(from), Some(to)) = (number(), number()) {
                        table.second_codings.extend(from..=to);
                    }
                }
                Some(first) => {
                    let first = parse(first);
                    for (nth, word) in (0..).zip(words) {
                        let character = if word == "." { NONE } else { parse16(word) };
                        table.set(first + nth, character);
                    }
                }
                None => {}
            }
        }
        let low = (0..0x80).zip(&table.singles);
        table.ascii = low.into_iter().all(|(byte, character)| byte == *character);
        table
    }

    fn single_byte(name: &'static str) -> Self {
        let singles = (0..256)
            .map(|byte| if byte < 0x80 { byte } else { NONE })
            .collect();
        Self {
            name,
            ascii: true,
            singles,
            pairs: None,
            triples: None,
            quads: None,
            second_codings: Vec::new(),
        }
    }

    fn of_encoding(name: &'static str, label: &str) -> Self {
        let encoding = Encoding::for_label(label.as_bytes())
            .expect("a test asks for every charset of the committed tables");
        let mut table = Self::single_byte(name);
        let mut pairs = vec![NONE; 1 << 15];
        for lead in 0x80..=0xff {
            if let Some(character) = decoded(encoding, &[lead])
                && let Some(place) = table.singles.get_mut(usize::from(lead))
            {
                *place = character;
            }
            for trail in 0x30..=0xff {
                if let Some(character) = decoded(encoding, &[lead, trail])
                    && let Some(place) = pairs.get_mut(pair_index(lead, trail))
                {
                    *place = character;
                }
            }
        }
        table.pairs = Some(pairs.into());
        if encoding == encoding_rs::EUC_JP {
            let triple = |index: u16| {
                let [second, third] = [(index >> 7) as u8 | 0x80, index as u8 | 0x80];
                decoded(encoding, &[SINGLE_SHIFT_3, second, third]).unwrap_or(NONE)
            };
            table.triples = Some((0..1 << 14).map(triple).collect());
        }
        if encoding == encoding_rs::GB18030 {
            let quad = |linear: u32| {
                let [third, fourth] = [linear / 10 % 126 + 0x81, linear % 10 + 0x30];
                let [first, second] = [linear / 12_600 + 0x81, linear / 1260 % 10 + 0x30];
                decoded(encoding, &[first, second, third, fourth].map(|n| n as u8)).unwrap_or(NONE)
            };
            table.quads = Some((0..QUADS_OF_PLANE_0).map(quad).collect());
        }
        table
    }

    fn set_all(&mut self, from: Option<u32>, to: Option<u32>, character: impl Fn(u32) -> u16) {
        if let (Some(from), Some(to)) = (from, to) {
            for code in from..=to {
                self.set(code, character(code - from));
            }
        }
    }

    fn set(&mut self, code: u32, character: u16) {
        let [_, first, second, third] = code.to_be_bytes();
        let place = match code {
            0..=0xff => self.singles.get_mut(usize::from(third)),
            0x8000..=0xffff => self
                .pairs
                .as_deref_mut()
                .and_then(|pairs| pairs.get_mut(pair_index(second, third))),
            _ => triple_index(second, third)
                .filter(|_| first == SINGLE_SHIFT_3)
                .and_then(|index| self.triples.as_deref_mut()?.get_mut(index)),
        };
        if let Some(place) = place {
            *place = character;
        }
    }
}

impl fmt::Debug for CodeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for CodeTable {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for CodeTable {}

/// The single character that `encoding_rs` sees in `code`.
fn decoded(encoding: &'static Encoding, code: &[u8]) -> Option<u16> {
    let text = encoding.decode_without_bom_handling_and_without_replacement(code)?;
    let mut characters = text.chars();
    let character = u16::try_from(u32::from(characters.next()?)).ok()?;
    characters.next().is_none().then_some(character)
}

#[inline]
fn pair_index(lead: u8, trail: u8) -> usize {
    usize::from(lead & 0x7f) << 8 | usize::from(trail)
}

#[inline]
fn triple_index(second: u8, third: u8) -> Option<usize> {
    (second & third & 0x80 != 0)
        .then(|| usize::from(second & 0x7f) << 7 | usize::from(third & 0x7f))
}

/// The place of a four-byte code of GB 18030 among them all.
#[inline]
fn quad_index(code: &[u8; 4]) -> Option<u32> {
    let digit = |byte: u8, first: u8, count: u8| {
        byte.checked_sub(first)
            .filter(|digit| *digit < count)
            .map(u32::from)
    };
    let [first, second, third, fourth] = *code;
    let high = digit(first, 0x81, 126)? * 10 + digit(second, 0x30, 10)?;
    Some((high * 126 + digit(third, 0x81, 126)?) * 10 + digit(fourth, 0x30, 10)?)
}

/// Appends a character that is no surrogate as UTF-8.
#[inline]
fn push(character: u32, out: &mut Vec<u8>) {
    let continued = |shift: u32| (character >> shift & 0x3f) as u8 | 0x80;
    match character {
        0..0x80 => out.push(character as u8),
        0x80..0x800 => out.extend_from_slice(&[(character >> 6) as u8 | 0xc0, continued(0)]),
        0x800..0x1_0000 => {
            out.extend_from_slice(&[(character >> 12) as u8 | 0xe0, continued(6), continued(0)])
        }
        _ => out.extend_from_slice(&[
            (character >> 18) as u8 | 0xf0,
            continued(12),
            continued(6),
            continued(0),
        ]),
    }
}

fn parse(word: &str) -> u32 {
    u32::from_str_radix(word, 16).expect("a test reads every line of the committed tables")
}

fn parse16(word: &str) -> u16 {
    u16::from_str_radix(word, 16).expect("a test reads every line of the committed tables")
}
