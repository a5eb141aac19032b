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
        let kept: Vec<bool> = (0..row_count).map(&mut keep).collect();
        Self::from_bools(&kept)
    }

    /// Of an answer for each row: what a loop over a column gives, without a branch a row.
    ///
    /// ```
    /// use pipewright_sdk::Selection;
    /// let ages = [17, 18, 64];
    /// let grown: Vec<bool> = ages.iter().map(|age| *age >= 18).collect();
    /// assert_eq!(Selection::from_bools(&grown).count(), 2);
    /// ```
    pub fn from_bools(kept: &[bool]) -> Self {
        let (eights, rest) = kept.as_chunks::<8>();
        let mut bits: Vec<u8> = eights.iter().map(|eight| packed(*eight)).collect();
        if !rest.is_empty() {
            let mut eight = [false; 8];
            eight[..rest.len()].copy_from_slice(rest);
            bits.push(packed(eight));
        }
        Self {
            row_count: kept.len(),
            bits,
        }
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

/// Eight answers as bits, the first lowest: the product moves each byte's lowest bit to its place in the highest byte.
fn packed(eight: [bool; 8]) -> u8 {
    let bytes = u64::from_le_bytes(eight.map(u8::from));
    (bytes.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
}

#[cfg(test)]
mod tests {
    use super::Selection;

    #[test]
    fn each_row_has_its_own_bit_whatever_stands_beside_it() {
        for pattern in 0..=u8::MAX {
            let kept: Vec<bool> = (0..8).map(|bit| pattern >> bit & 1 == 1).collect();
            assert_eq!(Selection::from_bools(&kept).bits, [pattern]);
        }
        let selection = Selection::from_fn(19, |row| row % 3 == 0);
        assert!((0..19).all(|row| selection.keeps(row) == (row % 3 == 0)));
        assert_eq!((selection.len(), selection.bits.len()), (19, 3));
    }
}
