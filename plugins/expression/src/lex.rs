//! From text to tokens that know where they stand.

use std::fmt;

use crate::syntax::{Comparison, Error, Spanned, error};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// Bare; may be a keyword.
    Word(String),
    /// In backticks; never a keyword.
    Quoted(String),
    Number(String),
    String(String),
    Compare(Comparison),
    Plus,
    Minus,
    Star,
    Slash,
    Percent,
    Concat,
    Open,
    Close,
    Comma,
    Dot,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(word) | Token::Quoted(word) => write!(f, "`{word}`"),
            Token::Number(number) => f.write_str(number),
            Token::String(_) => f.write_str("a string"),
            Token::Compare(_) => f.write_str("a comparison"),
            Token::Plus => f.write_str("`+`"),
            Token::Minus => f.write_str("`-`"),
            Token::Star => f.write_str("`*`"),
            Token::Slash => f.write_str("`/`"),
            Token::Percent => f.write_str("`%`"),
            Token::Concat => f.write_str("`||`"),
            Token::Open => f.write_str("`(`"),
            Token::Close => f.write_str("`)`"),
            Token::Comma => f.write_str("`,`"),
            Token::Dot => f.write_str("`.`"),
        }
    }
}

pub(crate) fn tokens(text: &str) -> Result<Vec<Spanned<Token>>, Error> {
    let characters: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = characters.get(at) {
        if first.is_whitespace() {
            at += 1;
            continue;
        }
        let (value, next) = token(&characters, at, *first)?;
        tokens.push(Spanned {
            value,
            character: at + 1,
        });
        at = next;
    }
    Ok(tokens)
}

fn token(characters: &[char], at: usize, first: char) -> Result<(Token, usize), Error> {
    let second = characters.get(at + 1).copied();
    Ok(match (first, second) {
        ('(', _) => (Token::Open, at + 1),
        (')', _) => (Token::Close, at + 1),
        (',', _) => (Token::Comma, at + 1),
        ('+', _) => (Token::Plus, at + 1),
        ('-', _) => (Token::Minus, at + 1),
        ('*', _) => (Token::Star, at + 1),
        ('/', _) => (Token::Slash, at + 1),
        ('%', _) => (Token::Percent, at + 1),
        ('|', Some('|')) => (Token::Concat, at + 2),
        ('=', _) => (Token::Compare(Comparison::Equal), at + 1),
        ('!', Some('=')) | ('<', Some('>')) => (Token::Compare(Comparison::NotEqual), at + 2),
        ('<', Some('=')) => (Token::Compare(Comparison::LessOrEqual), at + 2),
        ('>', Some('=')) => (Token::Compare(Comparison::GreaterOrEqual), at + 2),
        ('<', _) => (Token::Compare(Comparison::Less), at + 1),
        ('>', _) => (Token::Compare(Comparison::Greater), at + 1),
        ('\'', _) => {
            let (text, next) = quoted(characters, at, '\'')?;
            (Token::String(text), next)
        }
        ('`', _) => {
            let (text, next) = quoted(characters, at, '`')?;
            (Token::Quoted(text), next)
        }
        ('"', _) => {
            return error(
                at + 1,
                "write strings in 'single quotes' and columns in `backticks`",
            );
        }
        ('.', next) if next.is_none_or(|next| !next.is_ascii_digit()) => (Token::Dot, at + 1),
        _ if first.is_ascii_digit() || first == '.' => number(characters, at),
        _ if first.is_alphabetic() || first == '_' || first == '$' => {
            let is_part = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '$');
            let word: String = characters[at..]
                .iter()
                .copied()
                .take_while(is_part)
                .collect();
            let next = at + word.chars().count();
            (Token::Word(word), next)
        }
        _ => return error(at + 1, format!("`{first}` has no meaning here")),
    })
}

/// The quote doubled stands for itself.
fn quoted(characters: &[char], start: usize, quote: char) -> Result<(String, usize), Error> {
    let mut text = String::new();
    let mut at = start + 1;
    loop {
        match (characters.get(at), characters.get(at + 1)) {
            (None, _) => return error(start + 1, format!("the closing {quote} is missing")),
            (Some(c), Some(next)) if *c == quote && *next == quote => {
                text.push(quote);
                at += 2;
            }
            (Some(c), _) if *c == quote => return Ok((text, at + 1)),
            (Some(c), _) => {
                text.push(*c);
                at += 1;
            }
        }
    }
}

/// Takes all that looks like a number; `literal` says whether it is one.
fn number(characters: &[char], start: usize) -> (Token, usize) {
    let mut at = start + 1;
    while let Some(c) = characters.get(at) {
        let in_exponent = matches!(c, '+' | '-') && matches!(characters[at - 1], 'e' | 'E');
        if !(c.is_ascii_alphanumeric() || *c == '.' || in_exponent) {
            break;
        }
        at += 1;
    }
    (Token::Number(characters[start..at].iter().collect()), at)
}
