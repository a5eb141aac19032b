//! Words, names and marks of a statement, read as bytes (pitfall 112).
//!
//! Comments vanish; what stands in executable comments (`/*! */`, `/*M! */`) is read as if it stood there plainly. Those
//! that a server does not execute for their version number it logs as plain ones.
//! Strings keep as much of their content as an engine's name may have: nothing else depends on what a string says.

/// Bytes of a string that are kept.
const TEXT_KEPT: usize = 32;

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A word or number without quotes, as written.
    Word(Vec<u8>),
    /// A quoted name, its quotes removed.
    Name(Vec<u8>),
    /// A string, and what it begins with.
    Text(Vec<u8>),
    /// Any other byte.
    Mark(u8),
}

impl Token {
    /// Whether this is the bare word `keyword`, which is given in upper case.
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword.as_bytes()))
    }

    /// The bytes of a name, quoted or not.
    pub(super) fn name(&self) -> Option<&[u8]> {
        match self {
            Token::Word(bytes) | Token::Name(bytes) => Some(bytes),
            Token::Text(_) | Token::Mark(_) => None,
        }
    }
}

/// How quotes are read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quoting {
    /// `"` quotes names.
    pub(super) ansi_quotes: bool,
    /// `\` is a byte like any other.
    pub(super) no_backslash_escapes: bool,
    /// `/*M! */` is a comment like any other, as it is to MySQL.
    pub(super) mysql: bool,
}

/// The tokens of `text`. The error is those before a quote or comment that does not end, behind which nothing can be told.
pub(super) fn tokens(text: &[u8], quoting: Quoting) -> Result<Vec<Token>, Vec<Token>> {
    let mut scanner = Scanner {
        rest: text,
        quoting,
        found: Vec::new(),
    };
    while let Some(&byte) = scanner.rest.first() {
        if scanner.step(byte).is_none() {
            return Err(scanner.found);
        }
    }
    Ok(scanner.found)
}

struct Scanner<'a> {
    rest: &'a [u8],
    quoting: Quoting,
    found: Vec<Token>,
}

impl Scanner<'_> {
    fn step(&mut self, byte: u8) -> Option<()> {
        match byte {
            0 | b' ' | b'\t'..=b'\r' => self.skip(1),
            b'#' => self.skip_line(),
            b'-' if self.begins_dash_comment() => self.skip_line(),
            b'/' if self.rest.get(1) == Some(&b'*') => self.comment()?,
            // The end of an executable comment, whose content has been read.
            b'*' if self.rest.get(1) == Some(&b'/') => self.skip(2),
            b'`' => self.quoted(byte, true)?,
            b'"' => self.quoted(byte, self.quoting.ansi_quotes)?,
            b'\'' => self.quoted(byte, false)?,
            _ if is_word_byte(byte) => {
                let length = self
                    .rest
                    .iter()
                    .position(|byte| !is_word_byte(*byte))
                    .unwrap_or(self.rest.len());
                self.found
                    .push(Token::Word(self.rest.get(..length)?.to_vec()));
                self.skip(length);
            }
            _ => {
                self.found.push(Token::Mark(byte));
                self.skip(1);
            }
        }
        Some(())
    }

    fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    fn skip_line(&mut self) {
        let length = self
            .rest
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(self.rest.len());
        self.skip(length);
    }

    fn begins_dash_comment(&self) -> bool {
        self.rest.get(1) == Some(&b'-')
            && self
                .rest
                .get(2)
                .is_none_or(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control())
    }

    fn comment(&mut self) -> Option<()> {
        let inner = self.rest.get(2..)?;
        let opening = if inner.starts_with(b"!") {
            Some(3)
        } else if inner.starts_with(b"M!") && !self.quoting.mysql {
            Some(4)
        } else {
            None
        };
        let Some(opening) = opening else {
            let end = inner.windows(2).position(|pair| pair == b"*/")?;
            self.skip(2 + end + 2);
            return Some(());
        };
        self.skip(opening);
        let digits = self
            .rest
            .iter()
            .position(|byte| !byte.is_ascii_digit())
            .unwrap_or(self.rest.len());
        self.skip(digits);
        Some(())
    }

    fn quoted(&mut self, quote: u8, is_name: bool) -> Option<()> {
        self.skip(1);
        let mut bytes = Vec::new();
        loop {
            let byte = *self.rest.first()?;
            if byte == quote {
                self.skip(1);
                if self.rest.first() != Some(&quote) {
                    break;
                }
            } else if byte == b'\\' && !is_name && !self.quoting.no_backslash_escapes {
                self.skip(1);
                self.rest.first()?;
            }
            bytes.push(*self.rest.first()?);
            self.skip(1);
        }
        self.found.push(if is_name {
            Token::Name(bytes)
        } else {
            bytes.truncate(TEXT_KEPT);
            Token::Text(bytes)
        });
        Some(())
    }
}

/// Letters, digits, `_`, `$`, and every byte above ASCII, as the server's own lexer has it.
fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}
