//! What a server says of its charsets, code by code, and the table that Pipewright keeps of it.
//!
//! A code is asked for by declaring its bytes to be of the charset: the server says whether they are one character, and
//! which. `testbed charsets` writes the table; a test writes it again and compares.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use encoding_rs::Encoding;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::harness::workspace_folder;

/// The multi-byte charsets with a table, and the encoding that comes nearest.
const ENCODINGS: [(&str, &str); 9] = [
    ("big5", "big5"),
    ("cp932", "shift_jis"),
    ("eucjpms", "euc-jp"),
    ("euckr", "euc-kr"),
    ("gb18030", "gb18030"),
    ("gb2312", "gbk"),
    ("gbk", "gbk"),
    ("sjis", "shift_jis"),
    ("ujis", "euc-jp"),
];

/// Charsets that need no table.
const ALGORITHMIC: [&str; 8] = [
    "ascii", "binary", "ucs2", "utf16", "utf16le", "utf32", "utf8mb3", "utf8mb4",
];

const HEAD: &str = "# What MySQL and MariaDB say of their charsets, code by code. Written by `testbed charsets`; \
     table.rs says how to read it.\n";

/// What the servers' tables of big5 and tis620 name for codes that stand for nothing.
const REPLACEMENT: char = '\u{fffd}';

/// One code of a charset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Its character; none for a code that the server stores and cannot convert.
    pub character: Option<char>,
    /// The server itself writes the character with this code.
    pub own: bool,
}

/// Every code that the server takes for one character, of one to three bytes; those of four bytes follow a rule.
pub type Codes = BTreeMap<Vec<u8>, Code>;

/// The names of the server's charsets.
///
/// # Errors
/// When the server cannot be asked.
pub async fn charsets(conn: &mut Conn) -> Result<Vec<String>> {
    let mut names: Vec<String> = conn
        .query("SELECT character_set_name FROM information_schema.character_sets")
        .await?;
    names.sort();
    Ok(names)
}

/// Whether a charset is decoded by a table of codes.
pub fn has_table(charset: &str) -> bool {
    !ALGORITHMIC.contains(&charset)
}

/// The codes of a charset with a table.
///
/// # Errors
/// When the server cannot be asked.
pub async fn codes(conn: &mut Conn, charset: &str) -> Result<Codes> {
    let mut codes = Codes::new();
    let lengths: &[&str] = match charset {
        "ujis" | "eucjpms" => &[ONE, TWO, THREE],
        _ if encoding(charset).is_some() => &[ONE, TWO],
        _ => &[ONE],
    };
    for candidates in lengths {
        let sql = format!(
            "WITH RECURSIVE bytes AS (SELECT 0 AS n UNION ALL SELECT n + 1 FROM bytes WHERE n < 255), \
             candidates AS ({candidates}), \
             texts AS (SELECT code, CONVERT(code USING {charset}) AS text FROM candidates), \
             converted AS (SELECT code, text, CONVERT(text USING utf8mb4) AS utf8 FROM texts \
             WHERE CHAR_LENGTH(text) = 1 AND HEX(text) = HEX(code)) \
             SELECT HEX(code), HEX(utf8), HEX(CONVERT(utf8 USING {charset})) = HEX(code) FROM converted"
        );
        let rows: Vec<(String, String, bool)> = conn.query(sql).await?;
        for (code, utf8, own) in rows {
            let (code, utf8) = (unhexed(&code)?, String::from_utf8(unhexed(&utf8)?)?);
            // A question mark stands for what cannot be converted, unless it is one.
            let character = utf8
                .chars()
                .next()
                .filter(|character| *character != '?' || code == b"?")
                .filter(|character| *character != REPLACEMENT);
            codes.insert(code, Code { character, own });
        }
    }
    Ok(codes)
}

const ONE: &str = "SELECT UNHEX(LPAD(HEX(n), 2, '0')) AS code FROM bytes";
const TWO: &str = "SELECT UNHEX(CONCAT(HEX(a.n), LPAD(HEX(b.n), 2, '0'))) AS code \
     FROM bytes AS a JOIN bytes AS b WHERE a.n > 127";
const THREE: &str = "SELECT UNHEX(CONCAT('8F', HEX(a.n), HEX(b.n))) AS code \
     FROM bytes AS a JOIN bytes AS b WHERE a.n > 127 AND b.n > 127";

/// Where the committed table is.
pub fn committed() -> PathBuf {
    workspace_folder().join("runtime/src/source/mysql/decode/charset/tables.txt")
}

/// The table of all charsets, as these servers have them.
///
/// # Errors
/// When the servers disagree about a character, or cannot be asked.
pub async fn tables(servers: &mut [Conn]) -> Result<String> {
    let mut found: BTreeMap<String, Codes> = BTreeMap::new();
    for conn in servers {
        for charset in charsets(conn).await? {
            if !has_table(&charset) {
                continue;
            }
            // What has no character needs no place: the servers differ in what of it they store.
            let mut of_server = codes(conn, &charset)
                .await
                .with_context(|| format!("the charset `{charset}`"))?;
            of_server.retain(|_, code| code.character.is_some());
            if let Some(known) = found.get(&charset) {
                ensure!(
                    *known == of_server,
                    "the servers disagree about the charset `{charset}`"
                );
            }
            found.insert(charset, of_server);
        }
    }
    let mut text = HEAD.to_owned();
    for (charset, codes) in &found {
        match encoding(charset) {
            Some((label, encoding)) => {
                text.push_str(&format!("charset {charset} = {label}\n"));
                differences(codes, encoding, &mut text);
            }
            None => {
                text.push_str(&format!("charset {charset}\n"));
                single_bytes(codes, &mut text);
            }
        }
        second_codings(codes, &mut text);
    }
    Ok(text)
}

fn encoding(charset: &str) -> Option<(&'static str, &'static Encoding)> {
    let (_, label) = ENCODINGS.iter().find(|(name, _)| *name == charset)?;
    Some((label, Encoding::for_label(label.as_bytes())?))
}

/// Rows of sixteen, but for those which are ASCII, or nothing above it.
fn single_bytes(codes: &Codes, text: &mut String) {
    let character = |byte: u8| codes.get(&vec![byte]).and_then(|code| code.character);
    for row in (0..=0xf0u8).step_by(16) {
        let bytes = || (0..16).map(move |n| row + n);
        let plain = |byte: u8| Some(char::from(byte)).filter(char::is_ascii);
        if bytes().all(|byte| character(byte) == plain(byte)) {
            continue;
        }
        text.push_str(&format!("{row:02X}"));
        for byte in bytes() {
            match character(byte) {
                Some(character) => text.push_str(&format!(" {:X}", u32::from(character))),
                None => text.push_str(" ."),
            }
        }
        text.push('\n');
    }
}

fn differences(codes: &Codes, encoding: &'static Encoding, text: &mut String) {
    let mut holes: Vec<(u32, u32)> = Vec::new();
    let mut runs: Vec<(u32, u32, u32)> = Vec::new();
    let mut in_hole = false;
    let mut candidates: Vec<Vec<u8>> = (0..=0xff).map(|byte| vec![byte]).collect();
    candidates.extend((0x8000u16..=0xffff).map(|code| code.to_be_bytes().to_vec()));
    let triples = (0x8000u16..=0xffff).map(|code| [&[0x8f], &code.to_be_bytes()[..]].concat());
    candidates.extend(triples);
    for code in candidates {
        let wanted = codes.get(&code).and_then(|code| code.character);
        let number = number(&code);
        match (wanted, one_character(encoding, &code)) {
            (None, Some(_)) => {
                match holes.last_mut().filter(|_| in_hole) {
                    Some((_, end)) => *end = number,
                    None => holes.push((number, number)),
                }
                in_hole = true;
            }
            (Some(wanted), found) => {
                in_hole = false;
                if found == Some(wanted) {
                    continue;
                }
                let wanted = u32::from(wanted);
                match runs.last_mut() {
                    Some((start, end, first))
                        if *end + 1 == number && *first + (number - *start) == wanted =>
                    {
                        *end = number;
                    }
                    _ => runs.push((number, number, wanted)),
                }
            }
            (None, None) => {}
        }
    }
    for (from, to) in holes {
        text.push_str(&format!("- {from:X} {to:X}\n"));
    }
    for (from, to, first) in runs {
        text.push_str(&format!("+ {from:X} {to:X} {first:X}\n"));
    }
}

/// Codes that the server does not write itself, of characters that it writes with another one.
fn second_codings(codes: &Codes, text: &mut String) {
    let mut counts: BTreeMap<char, u32> = BTreeMap::new();
    for character in codes.values().filter_map(|code| code.character) {
        *counts.entry(character).or_default() += 1;
    }
    let second = codes.iter().filter(|(_, code)| {
        let twice = |character| counts.get(&character).is_some_and(|count| *count > 1);
        !code.own && code.character.is_some_and(twice)
    });
    let mut numbers: Vec<u32> = second.map(|(code, _)| number(code)).collect();
    numbers.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == number => *end = number,
            _ => ranges.push((number, number)),
        }
    }
    for (from, to) in ranges {
        text.push_str(&format!("~ {from:X} {to:X}\n"));
    }
}

fn one_character(encoding: &'static Encoding, code: &[u8]) -> Option<char> {
    let text = encoding.decode_without_bom_handling_and_without_replacement(code)?;
    let mut characters = text.chars();
    let first = characters.next()?;
    characters.next().is_none().then_some(first)
}

fn number(code: &[u8]) -> u32 {
    code.iter()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn unhexed(digits: &str) -> Result<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}
