//! Which rows of a batch stay.

/// Which rows stay.
///
/// ```
/// use pipewright_sdk::Selection;
/// let even = Selection::from_fn(10, |row| row % 2 == 0);
/// assert_eq!((even.len(), even.count()), (10, 5));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    pub(crate) row_count: usize,
    pub(crate) bits: Vec<u8>,
}

impl Selection {
    /// Asks for each row whether it stays.
    ///
    /// ```
    /// # use pipewright_sdk::Selection;
    /// assert!(Selection::from_fn(3, |_| true).keeps(2));
    /// ```
    pub fn from_fn(row_count: usize, mut keep: impl FnMut(usize) -> bool) -> Self {
        let bits = (0..row_count.div_ceil(8))
            .map(|byte| {
                let rows = byte * 8..row_count.min(byte * 8 + 8);
                rows.enumerate()
                    .fold(0, |bits, (bit, row)| bits | u8::from(keep(row)) << bit)
            })
            .collect();
        Self { row_count, bits }
    }

    /// How many rows it speaks of.
    ///
    /// ```
    /// # use pipewright_sdk::Selection;
    /// assert_eq!(Selection::from_fn(3, |_| false).len(), 3);
    /// ```
    pub fn len(&self) -> usize {
        self.row_count
    }

    /// Whether it speaks of no row.
    ///
    /// ```
    /// # use pipewright_sdk::Selection;
    /// assert!(Selection::from_fn(0, |_| true).is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.row_count == 0
    }

    /// How many rows stay.
    ///
    /// ```
    /// # use pipewright_sdk::Selection;
    /// assert_eq!(Selection::from_fn(3, |_| false).count(), 0);
    /// ```
    pub fn count(&self) -> usize {
        self.bits
            .iter()
            .map(|bits| bits.count_ones() as usize)
            .sum()
    }

    /// Whether a row stays.
    ///
    /// ```
    /// # use pipewright_sdk::Selection;
    /// assert!(!Selection::from_fn(3, |row| row > 0).keeps(0));
    /// ```
    pub fn keeps(&self, row: usize) -> bool {
        self.bits[row / 8] >> (row % 8) & 1 == 1
    }
}
