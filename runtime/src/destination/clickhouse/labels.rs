//! The declared labels of an ENUM, for the forms that need their numbers.

use std::collections::HashMap;

use super::ddl;

/// Labels by their number and numbers by their label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Labels {
    declared: Vec<String>,
    numbers: HashMap<Vec<u8>, u16>,
}

/// The largest number of an Enum16.
pub(super) const ENUM16_MAX: usize = i16::MAX as usize;

impl Labels {
    /// Labels count from 1, as at the source. Number 0, which the source stores for what is no label and prints as the
    /// empty string, is there too, unless an empty label is declared: the source prints both alike.
    pub(super) fn new(declared: &[String]) -> Self {
        let mut numbers: HashMap<Vec<u8>, u16> = HashMap::with_capacity(declared.len() + 1);
        numbers.insert(Vec::new(), 0);
        // The source takes 65,535 labels at most.
        for (label, number) in declared.iter().zip(1..=u16::MAX) {
            numbers.insert(label.as_bytes().to_vec(), number);
        }
        Self {
            declared: declared.to_vec(),
            numbers,
        }
    }

    /// The number of a label; none for one that was not declared.
    pub(super) fn number(&self, label: &[u8]) -> Option<u16> {
        self.numbers.get(label).copied()
    }

    /// The type with these labels, as ClickHouse prints it.
    pub(super) fn enum16(&self) -> String {
        let unlabelled = (!self.declared.iter().any(String::is_empty)).then_some(("", 0));
        let declared = self.declared.iter().map(String::as_str).zip(1..);
        let labels: Vec<String> = unlabelled
            .into_iter()
            .chain(declared)
            .map(|(label, number)| format!("{} = {number}", ddl::printed_text(label)))
            .collect();
        format!("Enum16({})", labels.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(declared: &[&str]) -> Labels {
        let declared: Vec<String> = declared.iter().map(|label| (*label).to_owned()).collect();
        Labels::new(&declared)
    }

    #[test]
    fn labels_count_from_1_and_the_empty_string_is_0() {
        let labels = labels(&["a", "it's"]);
        assert_eq!(labels.number(b""), Some(0));
        assert_eq!(labels.number(b"it's"), Some(2));
        assert_eq!(labels.number(b"b"), None);
        assert_eq!(labels.enum16(), "Enum16('' = 0, 'a' = 1, 'it\\'s' = 2)");
    }

    #[test]
    fn a_declared_empty_label_keeps_its_number() {
        let labels = labels(&["x", ""]);
        assert_eq!(labels.number(b""), Some(2));
        assert_eq!(labels.enum16(), "Enum16('x' = 1, '' = 2)");
    }
}
