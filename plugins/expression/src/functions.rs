//! Functions by name, each with its types and its loop.

use regex_lite::Regex;

use crate::arithmetic::{in_range, power, rounded};
use crate::calendar;
use crate::compile::{Code, Typed, as_kind, unify_all};
use crate::condition::Condition;
use crate::parse::{Comparison, Error, error};
use crate::vector::{Data, Kind, NULL, OVERFLOW, Texts, VALUE, Vector, mark};

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
        "trim" => text.of(
            &[Kind::Text],
            Kind::Text,
            Function::Trim {
                start: true,
                end: true,
            },
        ),
        "ltrim" => text.of(
            &[Kind::Text],
            Kind::Text,
            Function::Trim {
                start: true,
                end: false,
            },
        ),
        "rtrim" => text.of(
            &[Kind::Text],
            Kind::Text,
            Function::Trim {
                start: false,
                end: true,
            },
        ),
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
        "count" | "sum" | "avg" | "min" | "max" | "group_concat" => error(
            at,
            format!(
                "`{name}` looks at more than one row, and a transform sees each row alone; do it in a view or a query in ClickHouse"
            ),
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
        let (gives, function) = match (name, third.map(|third| third.code)) {
            ("regexp_like", _) => (Kind::Bool, Function::RegexpLike(regex)),
            ("regexp_replace", Some(Code::Text(text))) => {
                let text = String::from_utf8_lossy(&text).into_owned();
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
        Ok(Typed::new(kind, self.at, Code::Coalesce(parts)))
    }

    fn nullif(mut self) -> Result<Typed, Error> {
        self.count(2)?;
        let right = self.arguments.remove(1);
        let left = self.arguments.remove(0);
        let (value, declared) = (left.clone(), left.declared);
        let (left, right) = crate::compile::unify(left, right)?;
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
        if !matches!(condition.kind, Kind::Bool | Kind::Null) {
            return error(
                condition.character,
                format!(
                    "a condition is needed here, and this is {}",
                    condition.kind.name()
                ),
            );
        }
        let (kind, mut values) = unify_all(vec![then, otherwise])?;
        let otherwise = Box::new(values.remove(1));
        let whens = vec![(Condition::Truth(Box::new(condition)), values.remove(0))];
        Ok(Typed::new(kind, self.at, Code::Case(whens, otherwise)))
    }
}

/// Calls a function; `kind` is the first argument's.
pub(crate) fn apply(
    function: &Function,
    kind: Kind,
    mut arguments: Vec<Vector>,
    rows: usize,
) -> Vector {
    let mut states = None;
    for argument in &mut arguments {
        states = Vector::joined(states, argument.states.take());
    }
    let first = &arguments[0];
    let data = match function {
        Function::Concat
        | Function::Lower
        | Function::Upper
        | Function::Trim { .. }
        | Function::Substring
        | Function::Left
        | Function::Right
        | Function::Replace
        | Function::RegexpReplace(..) => Data::Bytes(texts(function, &arguments, rows)),
        Function::RegexpExtract(regex, group) => extract(regex, *group, first.texts(), &mut states),
        Function::CharLength => lengths(first.texts(), |text| text.chars().count()),
        Function::OctetLength => lengths(first.texts(), str::len),
        Function::StartsWith => pairs(&arguments, |text, part| text.starts_with(part)),
        Function::EndsWith => pairs(&arguments, |text, part| text.ends_with(part)),
        Function::RegexpLike(regex) => {
            let texts = first.texts();
            Data::Bool(
                (0..rows)
                    .map(|row| regex.is_match(texts.text(row)))
                    .collect(),
            )
        }
        Function::Abs | Function::Round(_) | Function::Floor | Function::Ceil => {
            numbers(function, kind, &first.data, &mut states, rows)
        }
        Function::Part(part) => Data::Number(
            first
                .moments()
                .iter()
                .map(|moment| of_moment(*part, kind, *moment))
                .collect(),
        ),
        Function::UnixTimestamp => Data::Number(
            first
                .moments()
                .iter()
                .map(|micros| micros.div_euclid(1_000_000).into())
                .collect(),
        ),
    };
    Vector { data, states }
}

fn lengths(texts: &Texts, length: impl Fn(&str) -> usize) -> Data {
    Data::Number(
        (0..texts.len())
            .map(|row| length(texts.text(row)) as i128)
            .collect(),
    )
}

fn pairs(arguments: &[Vector], test: impl Fn(&str, &str) -> bool) -> Data {
    let (texts, parts) = (arguments[0].texts(), arguments[1].texts());
    Data::Bool(
        (0..texts.len())
            .map(|row| test(texts.text(row), parts.text(row)))
            .collect(),
    )
}

fn texts(function: &Function, arguments: &[Vector], rows: usize) -> Texts {
    let first = arguments[0].texts();
    let number = |argument: usize, row: usize| arguments[argument].numbers()[row];
    let mut out = Texts::with_capacity(rows, first.bytes.len());
    for row in 0..rows {
        let text = first.text(row);
        match function {
            Function::Concat => {
                for argument in arguments {
                    out.bytes.extend_from_slice(argument.texts().get(row));
                }
            }
            Function::Lower => extend(&mut out, text.chars().flat_map(char::to_lowercase)),
            Function::Upper => extend(&mut out, text.chars().flat_map(char::to_uppercase)),
            Function::Trim { start, end } => {
                let text = if *start { text.trim_start() } else { text };
                let text = if *end { text.trim_end() } else { text };
                out.bytes.extend_from_slice(text.as_bytes());
            }
            Function::Substring => {
                let length = if arguments.len() == 3 {
                    number(2, row)
                } else {
                    i128::MAX
                };
                out.bytes
                    .extend_from_slice(substring(text, number(1, row), length).as_bytes());
            }
            Function::Left => out
                .bytes
                .extend_from_slice(substring(text, 1, number(1, row)).as_bytes()),
            Function::Right => {
                let length = number(1, row).clamp(0, text.chars().count() as i128);
                let start = if length == 0 {
                    ""
                } else {
                    substring(text, -length, length)
                };
                out.bytes.extend_from_slice(start.as_bytes());
            }
            Function::Replace => {
                let (part, by) = (
                    arguments[1].texts().text(row),
                    arguments[2].texts().text(row),
                );
                replace(text, part, by, &mut out.bytes);
            }
            Function::RegexpReplace(regex, by) => {
                out.bytes
                    .extend_from_slice(regex.replace_all(text, by.as_str()).as_bytes());
            }
            _ => unreachable!("not a function that gives text"),
        }
        out.end_row();
    }
    out
}

fn extend(out: &mut Texts, characters: impl Iterator<Item = char>) {
    for character in characters {
        out.bytes
            .extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// Characters from `start` on, counted from 1, or from the end when it is negative, as MySQL counts.
fn substring(text: &str, start: i128, length: i128) -> &str {
    let skipped = match start {
        0 => return "",
        1.. => usize::try_from(start - 1).unwrap_or(usize::MAX),
        _ => {
            let count = text.chars().count() as i128;
            match usize::try_from(count + start) {
                Ok(skipped) => skipped,
                Err(_) => return "",
            }
        }
    };
    let at = |characters: usize, text: &str| {
        text.char_indices()
            .nth(characters)
            .map_or(text.len(), |(place, _)| place)
    };
    let rest = &text[at(skipped, text)..];
    &rest[..at(
        usize::try_from(length).unwrap_or(if length < 0 { 0 } else { usize::MAX }),
        rest,
    )]
}

fn replace(text: &str, part: &str, by: &str, out: &mut Vec<u8>) {
    if part.is_empty() {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(part) {
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(by.as_bytes());
        rest = after;
    }
    out.extend_from_slice(rest.as_bytes());
}

/// NULL where the pattern, or the group, does not match.
fn extract(regex: &Regex, group: usize, texts: &Texts, states: &mut Option<Vec<u8>>) -> Data {
    let mut out = Texts::with_capacity(texts.len(), 0);
    for row in 0..texts.len() {
        let found = match group {
            0 => regex.find(texts.text(row)),
            _ => regex
                .captures(texts.text(row))
                .and_then(|captures| captures.get(group)),
        };
        if found.is_none() {
            mark(states, texts.len(), row, NULL);
        }
        out.push(found.map_or(&b""[..], |found| found.as_str().as_bytes()));
    }
    Data::Bytes(out)
}

fn numbers(
    function: &Function,
    kind: Kind,
    data: &Data,
    states: &mut Option<Vec<u8>>,
    rows: usize,
) -> Data {
    let scale = if let Kind::Number { scale } = kind {
        scale
    } else {
        0
    };
    match data {
        Data::Float(values) => {
            let value = |value: f64| match function {
                Function::Abs => value.abs(),
                Function::Floor => value.floor(),
                Function::Ceil => value.ceil(),
                Function::Round(digits) => {
                    let unit = 10_f64.powi((*digits).into());
                    (value * unit).round() / unit
                }
                _ => value,
            };
            Data::Float(values.iter().map(|number| value(*number)).collect())
        }
        Data::Number(values) => {
            let unit = power(scale);
            let value = |value: i128| match function {
                Function::Abs => value.checked_abs().unwrap_or(i128::MAX),
                Function::Floor => value.div_euclid(unit),
                Function::Ceil => -(-value).div_euclid(unit),
                Function::Round(digits) => rounded(value, power(scale - digits)),
                _ => value,
            };
            let values: Vec<i128> = values.iter().map(|number| value(*number)).collect();
            for (row, value) in values.iter().enumerate() {
                let counts = states.as_ref().is_none_or(|states| states[row] == VALUE);
                if counts && !in_range(*value) {
                    mark(states, rows, row, OVERFLOW);
                }
            }
            Data::Number(values)
        }
        // Only NULL is left.
        _ => Data::Number(vec![0; rows]),
    }
}

fn of_moment(part: Part, kind: Kind, moment: i64) -> i128 {
    let (days, micros) = match kind {
        Kind::Date => (moment, 0),
        // A span of hours may be longer than a day, and negative.
        Kind::Time => (0, i64::try_from(moment.unsigned_abs()).unwrap_or(i64::MAX)),
        _ => calendar::split(moment),
    };
    let (year, month, day) = calendar::civil(days);
    let seconds = micros / 1_000_000;
    i128::from(match part {
        Part::Year => year,
        Part::Month => month,
        Part::Day => day,
        Part::Hour => seconds / 3600,
        Part::Minute => seconds / 60 % 60,
        Part::Second => seconds % 60,
    })
}
