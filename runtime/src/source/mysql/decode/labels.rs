//! The labels of an ENUM or SET as a table map tells them, against the recorded ones.

use super::Charset;
use crate::source::mysql::catalog::SourceColumn;

/// Whether every number that an event may hold stands for the label that is recorded for it. `told` are the event's
/// labels in declared order, in the column's own charset.
///
/// Labels that were appended since the event was written make no difference to it; any other redefinition renumbers
/// (pitfall 15), and so would print other labels than the ones that were meant.
pub fn labels_agree(column: &SourceColumn, told: &[Vec<u8>]) -> bool {
    let name = column.charset.as_deref().unwrap_or("binary");
    let Some(charset) = Charset::named(name) else {
        // Refused at Setup, or excluded.
        return true;
    };
    if told.len() > column.labels.len() {
        return false;
    }
    let mut text = Vec::new();
    told.iter().zip(&column.labels).all(|(told, recorded)| {
        text.clear();
        charset.decode(told, &mut text) && text == recorded.as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(charset: &str, labels: &[&str]) -> SourceColumn {
        SourceColumn {
            column_type: "enum(...)".into(),
            charset: Some(charset.into()),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            ..SourceColumn::sample("enum")
        }
    }

    fn told(labels: &[&[u8]]) -> Vec<Vec<u8>> {
        labels.iter().map(|label| label.to_vec()).collect()
    }

    #[test]
    fn labels_are_compared_in_the_columns_charset() {
        let latin1 = column("latin1", &["a", "é"]);
        assert!(labels_agree(&latin1, &told(&[b"a", b"\xe9"])));
        assert!(!labels_agree(&latin1, &told(&[b"a", "é".as_bytes()])));
    }

    #[test]
    fn labels_appended_since_are_no_conflict_and_all_else_is() {
        let recorded = column("utf8mb4", &["a", "b", "c"]);
        assert!(labels_agree(&recorded, &told(&[b"a", b"b"])));
        assert!(!labels_agree(&recorded, &told(&[b"a", b"c"])));
        assert!(!labels_agree(&recorded, &told(&[b"b", b"a", b"c"])));
        assert!(!labels_agree(&recorded, &told(&[b"a", b"b", b"c", b"d"])));
    }
}
