//! A lookup file: CSV, or Parquet, which begins and ends with four bytes of its own.

use crate::{columnar, csv};

/// One row of a file; none is NULL.
pub(crate) type Record = Vec<Option<String>>;

/// A file, read.
pub(crate) struct Records {
    pub(crate) header: Vec<String>,
    pub(crate) records: Vec<Record>,
}

const PARQUET: &[u8] = b"PAR1";

/// Reads a whole file; of Parquet only the columns that are wanted. Err says what is wrong.
pub(crate) fn read(bytes: Vec<u8>, wanted: &[&str]) -> Result<Records, String> {
    // A CSV file may have a column `PAR1`, but no byte 0, and no footer is so long that its length has none.
    if bytes.starts_with(PARQUET) && bytes.ends_with(PARQUET) && bytes.contains(&0) {
        return columnar::read(bytes, wanted);
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| "it is neither UTF-8 text nor a whole Parquet file".to_owned())?;
    csv::read(&text)
}
