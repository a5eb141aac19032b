//! Functions over the rows of a batch, a column at a time.

use regex_lite::Regex;

use crate::arithmetic::{in_range, power, rounded};
use crate::calendar;
use crate::functions::{Function, Part};
use crate::vector::{Data, Kind, NULL, OVERFLOW, Texts, VALUE, Vector, mark};

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
                    let rounded = (value * unit).round() / unit;
                    // One so large has no digits there.
                    if rounded.is_finite() { rounded } else { value }
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
                Function::Ceil => value.wrapping_neg().div_euclid(unit).wrapping_neg(),
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
