//! How a value is hidden.

use pipewright_sdk::Problem;
use pipewright_sdk::schema::{JsonSchema, schemars};
use serde::Deserialize;

use crate::Config;
use crate::hash::Begun;
use crate::keyed::Keyed;

/// The methods by name.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum MethodName {
    /// SHA-256 of salt and value, as 64 hexadecimal digits.
    Sha256,
    /// HMAC-SHA-256 of the value under a key, as 64 hexadecimal digits.
    Hmac,
    /// Other letters and digits in the places of the value's own.
    Tokenise,
    /// A fixed text.
    Redact,
    /// The outer characters, and the domain of an e-mail address.
    Partial,
    /// NULL.
    Null,
}

/// A method with its settings.
#[derive(Clone, Debug)]
pub enum Method {
    /// The hash after the salt, ready for the value.
    Sha256(Begun),
    /// The key, ready for the value.
    Hmac(Keyed),
    /// The key.
    Tokenise(Keyed),
    /// The text.
    Redact(String),
    /// What stays.
    Partial {
        /// Characters at the beginning.
        first: usize,
        /// Characters at the end.
        last: usize,
    },
    /// NULL.
    Null,
}

/// What stands in the place of hidden characters: always the same, or it would tell how many there were.
const HIDDEN: &str = "***";

impl Method {
    pub(crate) fn new(config: &Config, problems: &mut Vec<Problem>) -> Option<Self> {
        use MethodName::{Hmac, Null, Partial, Redact, Sha256 as Sha, Tokenise};
        let method = config.method;
        if config.key.is_some() && !matches!(method, Hmac | Tokenise) {
            problems.push(Problem::at(
                "/key",
                "only methods `hmac` and `tokenise` take `key`",
            ));
        }
        let mut ensure_for = |given: bool, key: &str, owner: MethodName, name: &str| {
            if given && method != owner {
                let message = format!("only method `{name}` takes `{key}`");
                problems.push(Problem::at(format!("/{key}"), message));
            }
        };
        ensure_for(config.salt.is_some(), "salt", Sha, "sha256");
        ensure_for(config.text.is_some(), "text", Redact, "redact");
        ensure_for(config.first.is_some(), "first", Partial, "partial");
        ensure_for(config.last.is_some(), "last", Partial, "partial");
        match method {
            Sha => match config.salt.as_deref() {
                Some(salt) if !salt.is_empty() => Some(Method::Sha256(Begun::new(salt.as_bytes()))),
                _ => {
                    let message = "method `sha256` needs a salt: without one a list of known values undoes the hash";
                    problems.push(Problem::at("/salt", message));
                    None
                }
            },
            Hmac => keyed(config, problems).map(Method::Hmac),
            Tokenise => keyed(config, problems).map(Method::Tokenise),
            Redact => Some(Method::Redact(
                config.text.clone().unwrap_or_else(|| HIDDEN.to_owned()),
            )),
            Partial => Some(Method::Partial {
                first: config.first.unwrap_or(1),
                last: config.last.unwrap_or(0),
            }),
            Null => Some(Method::Null),
        }
    }
}

/// Short keys are found by trying.
const KEY_BYTES: usize = 16;

fn keyed(config: &Config, problems: &mut Vec<Problem>) -> Option<Keyed> {
    match config.key.as_deref() {
        Some(key) if key.len() >= KEY_BYTES => Some(Keyed::new(key.as_bytes())),
        _ => {
            let message = format!("this method needs a key of {KEY_BYTES} bytes at least");
            problems.push(Problem::at("/key", message));
            None
        }
    }
}

/// Appends `value` without its inner characters. A value that would stay whole is hidden whole.
pub(crate) fn write_partial(value: &str, first: usize, last: usize, out: &mut Vec<u8>) {
    let (local, domain) = match value.rfind('@') {
        Some(at) => value.split_at(at),
        None => (value, ""),
    };
    if local.chars().count() > first.saturating_add(last) {
        let start: usize = local.chars().take(first).map(char::len_utf8).sum();
        let end: usize = local.chars().rev().take(last).map(char::len_utf8).sum();
        out.extend_from_slice(&local.as_bytes()[..start]);
        out.extend_from_slice(HIDDEN.as_bytes());
        out.extend_from_slice(&local.as_bytes()[local.len() - end..]);
    } else {
        out.extend_from_slice(HIDDEN.as_bytes());
    }
    out.extend_from_slice(domain.as_bytes());
}
