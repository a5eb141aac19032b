//! Functions by name, each with its types; their loops are in [`crate::apply`].

use regex_lite::Regex;

use crate::compile::{Code, Typed, as_kind, chosen, unify_all};
use crate::condition::{Condition, truth_of};
use crate::syntax::{Comparison, Error, error};
use crate::vector::Kind;

/// A function, with what it takes from its constant arguments.
#[derive(Clone, Debug)]
pub(crate) enum Function {
    Lower,
    Upper,
    Trim {
        start: bool,
        end: bool,
    },
    CharLength,
    OctetLength,
    Concat,
    Substring,
    Left,
    Right,
    Replace,
    StartsWith,
    EndsWith,
    Abs,
    /// To so many digits after the point.
    Round(u8),
    Floor,
    Ceil,
    Part(Part),
    UnixTimestamp,
    RegexpLike(Regex),
    RegexpReplace(Regex, String),
    RegexpExtract(Regex, usize),
}

/// A part of a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
}

const KNOWN: &str = "lower, upper, trim, ltrim, rtrim, char_length, octet_length, concat, substring, left, right, replace, starts_with, ends_with, abs, round, floor, ceil, year, month, day, hour, minute, second, date, unix_timestamp, coalesce, ifnull, nullif, if, regexp_like, regexp_replace, regexp_extract";

/// Types a call.
pub(crate) fn call(name: &str, at: usize, arguments: Vec<Typed>) -> Result<Typed, Error> {
    let integer = Kind::Number { scale: 0 };
    let text = Signature {
        name,
        at,
        arguments,
    };
    match name {
        "lower" => text.of(&[Kind::Text], Kind::Text, Function::Lower),
        "upper" => text.of(&[Kind::Text], Kind::Text, Function::Upper),
        "trim" | "ltrim" | "rtrim" => text.trim(),
        "char_length" => text.of(&[Kind::Text], integer, Function::CharLength),
        "octet_length" => text.of(&[Kind::Text], integer, Function::OctetLength),
        "concat" => text.concat(),
        "substring" | "substr" if text.arguments.len() == 2 => {
            text.of(&[Kind::Text, integer], Kind::Text, Function::Substring)
        }
        "substring" | "substr" => text.of(
            &[Kind::Text, integer, integer],
            Kind::Text,
            Function::Substring,
        ),
        "left" => text.of(&[Kind::Text, integer], Kind::Text, Function::Left),
        "right" => text.of(&[Kind::Text, integer], Kind::Text, Function::Right),
        "replace" => text.of(&[Kind::Text; 3], Kind::Text, Function::Replace),
        "starts_with" => text.of(&[Kind::Text; 2], Kind::Bool, Function::StartsWith),
        "ends_with" => text.of(&[Kind::Text; 2], Kind::Bool, Function::EndsWith),
        "regexp_like" | "regexp_replace" | "regexp_extract" => text.regexp(),
        "abs" | "round" | "floor" | "ceil" => text.number(),
        "year" => text.part(Part::Year),
        "month" => text.part(Part::Month),
        "day" => text.part(Part::Day),
        "hour" => text.part(Part::Hour),
        "minute" => text.part(Part::Minute),
        "second" => text.part(Part::Second),
        "date" => text.date(),
        "unix_timestamp" => text.of(&[Kind::Timestamp], integer, Function::UnixTimestamp),
        "coalesce" | "ifnull" => text.coalesce(),
        "nullif" => text.nullif(),
        "if" => text.choice(),
        "now" | "rand" | "uuid" | "curdate" | "current_timestamp" => error(
            at,
            format!("`{name}` is not the same on a replay; a transform is a function of its row"),
        ),
        _ => error(
            at,
            format!("`{name}` is no function here; known are {KNOWN}"),
        ),
    }
}

struct Signature<'a> {
    name: &'a str,
    at: usize,
    arguments: Vec<Typed>,
}

impl Signature<'_> {
    fn of(self, kinds: &[Kind], gives: Kind, function: Function) -> Result<Typed, Error> {
        self.count(kinds.len())?;
        let (name, at) = (self.name, self.at);
        let mut arguments = Vec::with_capacity(kinds.len());
        for (argument, kind) in self.arguments.into_iter().zip(kinds) {
            if argument.kind != *kind && argument.kind != Kind::Null {
                let message = format!(
                    "`{name}` takes {} here, not {}; CAST makes one the other",
                    kind.name(),
                    argument.kind.name()
                );
                return error(argument.character, message);
            }
            arguments.push(as_kind(argument, *kind));
        }
        Ok(Typed::new(gives, at, Code::Call(function, arguments)))
    }

    fn count(&self, wanted: usize) -> Result<(), Error> {
        let count = self.arguments.len();
        if count == wanted {
            return Ok(());
        }
        let plural = if wanted == 1 { "" } else { "s" };
        error(
            self.at,
            format!(
                "`{}` takes {wanted} argument{plural}, not {count}",
                self.name
            ),
        )
    }

    fn trim(self) -> Result<Typed, Error> {
        let trim = Function::Trim {
            start: self.name != "rtrim",
            end: self.name != "ltrim",
        };
        self.of(&[Kind::Text], Kind::Text, trim)
    }

    /// Numbers and moments are written as text, as MySQL does.
    fn concat(self) -> Result<Typed, Error> {
        let at = self.at;
        if self.arguments.is_empty() {
            return error(at, "`concat` takes one argument at least");
        }
        if let Some(bytes) = self
            .arguments
            .iter()
            .find(|argument| argument.kind == Kind::Bytes)
        {
            return error(bytes.character, "`concat` takes text, not bytes");
        }
        let arguments = self
            .arguments
            .into_iter()
            .map(|argument| as_kind(argument, Kind::Text))
            .collect();
        Ok(Typed::new(
            Kind::Text,
            at,
            Code::Call(Function::Concat, arguments),
        ))
    }

    fn regexp(mut self) -> Result<Typed, Error> {
        let (name, at) = (self.name, self.at);
        let extract_whole = name == "regexp_extract" && self.arguments.len() == 2;
        self.count(if name == "regexp_like" || extract_whole {
            2
        } else {
            3
        })?;
        let third = (self.arguments.len() == 3)
            .then(|| self.arguments.pop())
            .flatten();
        let pattern = self.arguments.pop();
        let Some(Code::Text(pattern)) = pattern.map(|pattern| pattern.code) else {
            return error(at, format!("`{name}` takes its pattern as a string"));
        };
        let pattern = String::from_utf8_lossy(&pattern);
        let regex = Regex::new(&pattern)
            .or_else(|fault| error(at, format!("the pattern of `{name}` is none: {fault}")))?;
        let third_at = third.as_ref().map_or(at, |third| third.character);
        let (gives, function) = match (name, third.map(|third| third.code)) {
            ("regexp_like", _) => (Kind::Bool, Function::RegexpLike(regex)),
            ("regexp_replace", Some(Code::Text(text))) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                if let Some(group) = unknown_group(&regex, &text) {
                    let message = format!(
                        "the pattern of `{name}` has no group `{group}`; a group's name goes on to the last letter, digit or `_`: write `${{1}}` for group 1 before one of them, and `$$` for a dollar (in a pipe file `$${{1}}` and `$$$$`)"
                    );
                    return error(third_at, message);
                }
                (Kind::Text, Function::RegexpReplace(regex, text))
            }
            ("regexp_extract", None) => (Kind::Text, Function::RegexpExtract(regex, 0)),
            ("regexp_extract", Some(Code::Number(group))) => {
                let group = usize::try_from(group)
                    .ok()
                    .filter(|group| *group < regex.captures_len());
                let Some(group) = group else {
                    return error(at, "the pattern has no such group");
                };
                (Kind::Text, Function::RegexpExtract(regex, group))
            }
            _ => {
                return error(
                    at,
                    format!("the third argument of `{name}` must be written out"),
                );
            }
        };
        self.of(&[Kind::Text], gives, function)
    }

    fn number(mut self) -> Result<Typed, Error> {
        let (name, at) = (self.name, self.at);
        let digits = match (name, self.arguments.len()) {
            ("round", 2) => match self.arguments.pop().map(|digits| digits.code) {
                Some(Code::Number(digits @ 0..=30)) => u8::try_from(digits).unwrap_or_default(),
                _ => return error(at, "`round` takes 0 to 30 digits, written out"),
            },
            _ => 0,
        };
        self.count(1)?;
        let argument = self.arguments.remove(0);
        let kind = argument.kind;
        let (gives, function) = match (name, kind) {
            ("abs", Kind::Number { .. } | Kind::Float) => (kind, Function::Abs),
            ("round", Kind::Number { scale }) => (
                Kind::Number {
                    scale: digits.min(scale),
                },
                Function::Round(digits.min(scale)),
            ),
            ("round", Kind::Float) => (Kind::Float, Function::Round(digits)),
            ("floor", Kind::Number { .. }) => (Kind::Number { scale: 0 }, Function::Floor),
            ("ceil", Kind::Number { .. }) => (Kind::Number { scale: 0 }, Function::Ceil),
            ("floor", Kind::Float) => (Kind::Float, Function::Floor),
            ("ceil", Kind::Float) => (Kind::Float, Function::Ceil),
            _ => {
                return error(
                    argument.character,
                    format!("`{name}` takes a number, not {}", kind.name()),
                );
            }
        };
        Ok(Typed::new(gives, at, Code::Call(function, vec![argument])))
    }

    fn part(self, part: Part) -> Result<Typed, Error> {
        self.count(1)?;
        let kind = self.arguments[0].kind;
        let fits = match part {
            Part::Year | Part::Month | Part::Day => {
                matches!(kind, Kind::Date | Kind::DateTime | Kind::Timestamp)
            }
            Part::Hour | Part::Minute | Part::Second => {
                matches!(kind, Kind::DateTime | Kind::Timestamp | Kind::Time)
            }
        };
        if !fits {
            return error(self.at, format!("{} has no `{}`", kind.name(), self.name));
        }
        self.of(&[kind], Kind::Number { scale: 0 }, Function::Part(part))
    }

    fn date(mut self) -> Result<Typed, Error> {
        self.count(1)?;
        let argument = self.arguments.remove(0);
        match argument.kind {
            Kind::Date | Kind::DateTime | Kind::Timestamp => Ok(as_kind(argument, Kind::Date)),
            other => error(
                self.at,
                format!("`date` takes a date or datetime, not {}", other.name()),
            ),
        }
    }

    fn coalesce(self) -> Result<Typed, Error> {
        if self.arguments.is_empty() {
            return error(
                self.at,
                format!("`{}` takes one argument at least", self.name),
            );
        }
        let (kind, parts) = unify_all(self.arguments)?;
        let typed = Typed::new(kind, self.at, Code::Null).among(&parts);
        Ok(Typed {
            code: Code::Coalesce(parts),
            ..typed
        })
    }

    fn nullif(mut self) -> Result<Typed, Error> {
        self.count(2)?;
        let right = self.arguments.remove(1);
        let left = self.arguments.remove(0);
        let (value, declared) = (left.clone(), left.declared);
        let (left, right) = crate::compile::comparable(left, right)?;
        let equal = Condition::Compare(Box::new(left), Comparison::Equal, Box::new(right));
        let null = Typed::new(value.kind, self.at, Code::Null);
        let code = Code::Case(vec![(equal, null)], Box::new(value.clone()));
        Ok(Typed {
            declared,
            ..Typed::new(value.kind, self.at, code)
        })
    }

    fn choice(mut self) -> Result<Typed, Error> {
        self.count(3)?;
        let otherwise = self.arguments.remove(2);
        let then = self.arguments.remove(1);
        let condition = self.arguments.remove(0);
        let condition = truth_of(condition)?;
        let (kind, values) = unify_all(vec![then, otherwise])?;
        Ok(chosen(kind, self.at, vec![condition], values))
    }
}

/// The first group that a replacement names and its pattern lacks: regex-lite would put nothing in its place. What names a
/// group is as regex-lite reads it: a `$` with neither a word nor braces behind it is a dollar.
fn unknown_group<'a>(regex: &Regex, replacement: &'a str) -> Option<&'a str> {
    let mut rest = replacement;
    while let Some((_, behind)) = rest.split_once('$') {
        let (name, after) = match behind.strip_prefix('$') {
            Some(after) => (None, after),
            None => group_name(behind),
        };
        if let Some(name) = name.filter(|name| !has_group(regex, name)) {
            return Some(name);
        }
        rest = after;
    }
    None
}

/// What is named right behind a dollar, and what follows it.
fn group_name(behind: &str) -> (Option<&str>, &str) {
    if let Some(braced) = behind.strip_prefix('{') {
        return match braced.split_once('}') {
            Some((name, after)) => (Some(name), after),
            None => (None, behind),
        };
    }
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let end = behind.find(|character| !is_word(character));
    let (name, after) = behind.split_at(end.unwrap_or(behind.len()));
    (Some(name).filter(|name| !name.is_empty()), after)
}

fn has_group(regex: &Regex, name: &str) -> bool {
    match name.parse::<usize>() {
        Ok(number) => number < regex.captures_len(),
        Err(_) => regex.capture_names().flatten().any(|known| known == name),
    }
}
