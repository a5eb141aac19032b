//! What a table map says of its columns' collations, and the cross-check against the recorded charsets.
//!
//! The numbers are counted over character columns only, and over ENUM and SET columns apart (pitfall 22). The servers
//! differ in what they count: BINARY, BLOB and types kept as strings are character columns to both, VECTOR is one to
//! MySQL, and GEOMETRY to MariaDB alone (seen on 9.7, 10.11 and 11.8). A list of all numbers shows by its length which
//! was meant; a default with exceptions does not, so that nothing is taken from it where there is a GEOMETRY column.

use super::TableMap;
use super::event::{Fields, truncated};
use super::table_map::{EVENT, field};
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::catalog::SourceColumn;
use crate::source::mysql::decode::{ImageFormat, charset_of_collation};

/// Which list a column is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Text,
    /// As text by one family of servers only.
    Doubtful,
    Labels,
    Not,
}

/// Reads one of the four fields into `collations`, one place a column.
///
/// # Errors
/// `SourceCorrupt` for a field that does not fit the columns.
pub(super) fn read(
    kind: u8,
    value: &mut Fields<'_>,
    formats: &[ImageFormat],
    collations: &mut [Option<u32>],
) -> Result<()> {
    let of_labels = matches!(
        kind,
        field::ENUM_AND_SET_DEFAULT_CHARSET | field::ENUM_AND_SET_COLUMN_CHARSET
    );
    let wanted = if of_labels {
        Counted::Labels
    } else {
        Counted::Text
    };
    let ordinals = |other: Counted| -> Vec<usize> {
        let kinds = formats.iter().copied().map(counted).enumerate();
        kinds
            .filter(|(_, kind)| *kind == wanted || *kind == other)
            .map(|(ordinal, _)| ordinal)
            .collect()
    };
    let mut columns = ordinals(wanted);
    let with_doubtful = if of_labels {
        columns.clone()
    } else {
        ordinals(Counted::Doubtful)
    };
    if matches!(
        kind,
        field::DEFAULT_CHARSET | field::ENUM_AND_SET_DEFAULT_CHARSET
    ) {
        if with_doubtful.len() == columns.len() {
            read_default(value, &columns, collations)?;
        }
        return Ok(());
    }
    let mut numbers = Vec::with_capacity(columns.len());
    while !value.rest().is_empty() {
        numbers.push(number(value)?);
    }
    if numbers.len() != columns.len() {
        columns = with_doubtful;
    }
    if numbers.len() != columns.len() {
        return Err(truncated(EVENT));
    }
    for (column, number) in columns.into_iter().zip(numbers) {
        set(collations, column, number);
    }
    Ok(())
}

/// Compares what the map says of a recorded column's charset.
///
/// # Errors
/// `SchemaConflict` for another charset than the recorded one, `Unsupported` for a collation that is not known: its
/// bytes could be anything. Both name the column.
pub(super) fn check(map: &TableMap, ordinal: usize, column: &SourceColumn) -> Result<()> {
    let textual = matches!(
        column.data_type.as_str(),
        "char" | "varchar" | "enum" | "set"
    ) || column.data_type.ends_with("text");
    let Some(number) = map.collations.get(ordinal).copied().flatten() else {
        return Ok(());
    };
    if !textual || column.included.is_none() {
        return Ok(());
    }
    let Some(charset) = charset_of_collation(number) else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "column `{}` has the collation number {number} in the binlog, whose charset this build does not know",
                column.name
            ),
        )
        .with_hint(format!(
            "name `{0}` in this table's `exclude_columns`, or give `{0}` another collation and resync the table",
            column.name
        )));
    };
    let recorded = match column.charset.as_deref() {
        None => "binary",
        Some("utf8") => "utf8mb3",
        Some(name) => name,
    };
    if charset == recorded {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::SchemaConflict,
        format!(
            "column `{}` has the charset `{charset}` in the binlog and `{recorded}` as recorded",
            column.name
        ),
    )
    .with_hint(
        "the table's definition changed between our reading it and this row: resync the table",
    ))
}

/// A default, and the places in the list with the numbers of those that differ.
fn read_default(
    value: &mut Fields<'_>,
    columns: &[usize],
    collations: &mut [Option<u32>],
) -> Result<()> {
    let default = number(value)?;
    for column in columns {
        set(collations, *column, default);
    }
    while !value.rest().is_empty() {
        let place = usize::try_from(value.lenenc()?).ok();
        let column = place.and_then(|place| columns.get(place));
        set(
            collations,
            *column.ok_or_else(|| truncated(EVENT))?,
            number(value)?,
        );
    }
    Ok(())
}

fn number(value: &mut Fields<'_>) -> Result<u32> {
    u32::try_from(value.lenenc()?).map_err(|_| truncated(EVENT))
}

fn set(collations: &mut [Option<u32>], column: usize, number: u32) {
    if let Some(place) = collations.get_mut(column) {
        *place = Some(number);
    }
}

/// ENUM and SET hide behind STRING, with their own number in the metadata's high byte.
fn counted(format: ImageFormat) -> Counted {
    let [real, _] = format.meta.to_be_bytes();
    match (format.wire_type, real) {
        (247 | 248, _) | (254, 247 | 248) => Counted::Labels,
        // VARCHAR, MariaDB's two COMPRESSED types, VECTOR, the BLOBs, VAR_STRING, STRING.
        (15 | 140 | 141 | 242 | 249..=254, _) => Counted::Text,
        (255, _) => Counted::Doubtful,
        _ => Counted::Not,
    }
}

#[cfg(test)]
mod tests {
    use super::super::table_map::TableMapHead;
    use super::super::table_map::tests::body;
    use super::*;

    const INT: (u8, &[u8]) = (3, &[]);
    const VARCHAR: (u8, &[u8]) = (15, &[40, 0]);
    const BLOB: (u8, &[u8]) = (252, &[2]);
    const ENUM: (u8, &[u8]) = (254, &[247, 1]);
    const GEOMETRY: (u8, &[u8]) = (255, &[4]);
    const JSON: (u8, &[u8]) = (245, &[4]);

    fn collations(columns: &[(u8, &[u8])], fields: &[u8]) -> Result<Vec<Option<u32>>> {
        let body = body(7, "s", "t", columns, fields);
        Ok(TableMapHead::parse(&body)?.columns()?.collations)
    }

    #[test]
    fn numbers_are_counted_over_texts_and_over_labels_apart() {
        // As MySQL 9.7 wrote them, shortened: two texts with a number between, an ENUM, a JSON document.
        let columns = [INT, VARCHAR, JSON, ENUM, BLOB];
        let read = collations(&columns, &[3, 2, 8, 13, 11, 1, 28]).unwrap();
        assert_eq!(read, [None, Some(8), None, Some(28), Some(13)]);
    }

    #[test]
    fn a_default_holds_but_for_the_exceptions() {
        let columns = [VARCHAR, INT, VARCHAR, VARCHAR, ENUM];
        let read = collations(&columns, &[2, 5, 45, 1, 252, 0, 9, 10, 1, 8]).unwrap();
        assert_eq!(read, [Some(45), None, Some(2304), Some(45), Some(8)]);
    }

    #[test]
    fn a_geometry_is_counted_where_the_length_says_so() {
        let columns = [VARCHAR, GEOMETRY, VARCHAR];
        let without = collations(&columns, &[3, 2, 8, 13]).unwrap();
        assert_eq!(without, [Some(8), None, Some(13)]);
        let with = collations(&columns, &[3, 3, 8, 63, 13]).unwrap();
        assert_eq!(with, [Some(8), Some(63), Some(13)]);
        let unsure = collations(&columns, &[2, 3, 45, 1, 13]).unwrap();
        assert_eq!(unsure, [None; 3]);
    }

    #[test]
    fn a_field_that_does_not_fit_the_columns_is_refused() {
        for fields in [
            &[3, 1, 8][..],
            &[3, 3, 8, 8, 8],
            &[2, 3, 8, 2, 8],
            &[2, 0],
            &[3, 2, 8, 252],
        ] {
            assert!(
                collations(&[VARCHAR, VARCHAR], fields).is_err(),
                "{fields:?}"
            );
        }
    }
}
