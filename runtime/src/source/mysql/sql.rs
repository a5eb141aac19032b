//! Names and values as SQL text.

use crate::batch::TableName;

/// A name as every statement of ours writes it: in backticks, so that no sql_mode and no reserved word changes it.
pub fn quote_identifier(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('`');
    for character in name.chars() {
        if character == '`' {
            quoted.push('`');
        }
        quoted.push(character);
    }
    quoted.push('`');
    quoted
}

/// `` `database`.`table` ``.
pub fn quote_table(name: &TableName) -> String {
    format!(
        "{}.{}",
        quote_identifier(&name.database),
        quote_identifier(&name.table)
    )
}

/// A string literal that means the same under every sql_mode and connection charset: plain printable ASCII in quotes,
/// everything else as hexadecimal digits of its UTF-8. So neither NO_BACKSLASH_ESCAPES nor ANSI_QUOTES matters
/// (pitfall 122).
pub fn quote_string(text: &str) -> String {
    let plain = text
        .bytes()
        .all(|byte| (0x20..0x7f).contains(&byte) && byte != b'\'' && byte != b'\\');
    if plain {
        format!("'{text}'")
    } else {
        format!("_utf8mb4 {}", quote_bytes(text.as_bytes()))
    }
}

/// A binary string literal (pitfall 124).
pub fn quote_bytes(bytes: &[u8]) -> String {
    use std::fmt::Write;

    let mut literal = String::with_capacity(bytes.len() * 2 + 3);
    literal.push_str("x'");
    for byte in bytes {
        write!(literal, "{byte:02X}").expect("a String takes whatever is written");
    }
    literal.push('\'');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backtick_in_a_name_is_doubled() {
        assert_eq!(quote_identifier("a`b"), "`a``b`");
    }

    #[test]
    fn a_string_that_a_sql_mode_could_change_is_written_in_hexadecimal() {
        assert_eq!(quote_string("plain text"), "'plain text'");
        assert_eq!(quote_string("it's"), "_utf8mb4 x'69742773'");
        assert_eq!(quote_string("a\\b"), "_utf8mb4 x'615C62'");
        assert_eq!(quote_string("é"), "_utf8mb4 x'C3A9'");
    }

    #[test]
    fn bytes_keep_their_leading_zeros() {
        assert_eq!(quote_bytes(&[0, 1, 0xff]), "x'0001FF'");
    }
}
