//! Names and texts that would end their quotes.

use super::*;

#[test]
fn names_and_texts_cannot_end_their_quotes() {
    assert_eq!(ident("a`b\\c"), "`a\\`b\\\\c`");
    assert_eq!(text("it's \\ here"), "'it\\'s \\\\ here'");
    assert_eq!(qualified("d.x", "t"), "`d.x`.`t`");
    assert_eq!(printed_text("a'\\\n\t"), "'a\\'\\\\\\n\\t'");
}
