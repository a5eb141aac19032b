//! The labels of an ENUM or SET: as a table map tells them, against the recorded ones; and those that keys cannot be
//! told apart by.

use std::collections::HashSet;

use super::{Charset, DecodeError};
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

/// What a key must not hold, as it would read as another key: by number of an ENUM, by bits of a SET. Nothing, of a
/// column that is in no key.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// What has no label reads as '' (pitfall 14), and so does this, or the other way round.
    unlabelled: Option<u64>,
    /// Numbers whose label an earlier one has. A server whose SQL mode is not strict takes such a declaration.
    numbers: Vec<u64>,
    /// The same of a SET.
    bits: u64,
}

impl Refused {
    pub(super) fn of_enum(labels: &[String]) -> Self {
        Self {
            unlabelled: labels.iter().any(String::is_empty).then_some(0),
            numbers: repeated(labels).map(|index| index as u64 + 1).collect(),
            bits: 0,
        }
    }

    pub(super) fn of_set(labels: &[String]) -> Self {
        let empty = labels.iter().position(String::is_empty);
        Self {
            unlabelled: empty.map(|index| 1 << index),
            numbers: Vec::new(),
            bits: repeated(labels).fold(0, |bits, index| bits | (1 << index)),
        }
    }

    /// The number of an ENUM or the bits of a SET, unless they are refused.
    #[inline]
    pub(super) fn distinct(&self, number: u64) -> Result<u64, DecodeError> {
        if self.unlabelled == Some(number) {
            return Err(DecodeError::AmbiguousLabel);
        }
        if self.bits & number != 0 || self.numbers.contains(&number) {
            return Err(DecodeError::RepeatedLabel);
        }
        Ok(number)
    }
}

/// The indices of labels that stand before, too.
fn repeated(labels: &[String]) -> impl Iterator<Item = usize> {
    let mut seen = HashSet::new();
    let indexed = labels.iter().enumerate();
    indexed.filter_map(move |(index, label)| (!seen.insert(label)).then_some(index))
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

    /// pitfall 14
    #[test]
    fn what_would_read_as_another_key_is_refused() {
        let labels = ["a", "b", "a", ""].map(str::to_owned);
        let told = |refused: Refused, numbers: [u64; 5]| {
            numbers.map(|number| match refused.distinct(number) {
                Ok(_) => "",
                Err(DecodeError::AmbiguousLabel) => "unlabelled",
                Err(DecodeError::RepeatedLabel) => "repeated",
                Err(_) => "otherwise",
            })
        };
        let numbers = told(Refused::of_enum(&labels), [0, 1, 2, 3, 4]);
        assert_eq!(numbers, ["unlabelled", "", "", "repeated", ""]);
        let bits = told(
            Refused::of_set(&labels),
            [0, 0b0001, 0b0110, 0b1000, 0b1001],
        );
        assert_eq!(bits, ["", "", "repeated", "unlabelled", ""]);
        let none = told(Refused::default(), [0, 1, 2, 3, 4]);
        assert_eq!(none, [""; 5]);
    }
}
