//! Text that others wrote, made fit for one line of a log, a status or a terminal.

/// At most `most` bytes of `text`, with a space for each character that would end the line, drive a terminal or change the
/// order in which the rest is read.
pub(crate) fn one_line(text: &str, most: usize) -> String {
    let end = text.floor_char_boundary(most);
    let spaced = text[..end]
        .chars()
        .map(|letter| if is_plain(letter) { letter } else { ' ' });
    spaced.collect()
}

fn is_plain(letter: char) -> bool {
    // Line and paragraph separators, and marks of direction.
    let reorders = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !letter.is_control() && !reorders
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_text_of_others_stays_one_line_of_bounded_length() {
        assert_eq!(
            one_line("a\nERROR b\x1b[2J\u{202e}c", 100),
            "a ERROR b [2J c"
        );
        assert_eq!(one_line("größer", 3), "gr");
        assert_eq!(one_line("größer", 4), "grö");
    }
}
