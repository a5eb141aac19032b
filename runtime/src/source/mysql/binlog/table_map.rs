//! TABLE_MAP: what a table looked like when the rows behind it were written.
//!
//! A map is valid for its group only (pitfall 52). How much it tells depends on `binlog_row_metadata`: nothing at all
//! by MariaDB's default, signedness by MySQL's, names and key with FULL (pitfall 46). What it tells is a cross-check of
//! the recorded table; what it leaves out comes from there.

use super::collations;
use super::event::{Fields, truncated};
use crate::batch::TableName;
use crate::error::Result;
use crate::source::mysql::decode::ImageFormat;

/// A parsed TABLE_MAP event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMap {
    /// The id by which row events of the same group refer to it.
    pub id: u64,
    /// The table.
    pub name: TableName,
    /// How the values of each column lie in row images, in ordinal order.
    pub formats: Vec<ImageFormat>,
    /// For each column whether it is UNSIGNED, where the event says so; none for columns that are no numbers.
    pub unsigned: Option<Vec<Option<bool>>>,
    /// The number of each column's collation, where the event tells it; none for columns that are no texts, and for all
    /// where it cannot be said for certain whose the numbers are.
    pub collations: Vec<Option<u32>>,
    /// The columns' names, where the event tells them.
    pub names: Option<Vec<String>>,
    /// The primary key's columns in key order, where the event tells them.
    pub primary_key: Option<Vec<usize>>,
    /// The labels of each ENUM and SET in declared order and the column's own charset, where the event tells them; none
    /// for other columns.
    pub labels: Option<Vec<Option<Vec<Vec<u8>>>>>,
    /// The event's body, from which the map can be read again.
    pub(super) body: Vec<u8>,
}

/// The front of a TABLE_MAP event: as much as must be read of tables that are not replicated.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableMapHead<'a> {
    /// The id by which row events refer to it.
    pub(super) id: u64,
    database: &'a [u8],
    table: &'a [u8],
    columns: Fields<'a>,
    body: &'a [u8],
}

pub(super) const EVENT: &str = "TABLE_MAP";

/// Optional metadata fields that are read.
pub(super) mod field {
    pub(in super::super) const SIGNEDNESS: u8 = 1;
    pub(in super::super) const DEFAULT_CHARSET: u8 = 2;
    pub(in super::super) const COLUMN_CHARSET: u8 = 3;
    pub(in super::super) const COLUMN_NAME: u8 = 4;
    pub(in super::super) const SET_LABELS: u8 = 5;
    pub(in super::super) const ENUM_LABELS: u8 = 6;
    pub(in super::super) const SIMPLE_PRIMARY_KEY: u8 = 8;
    pub(in super::super) const PRIMARY_KEY_WITH_PREFIX: u8 = 9;
    pub(in super::super) const ENUM_AND_SET_DEFAULT_CHARSET: u8 = 10;
    pub(in super::super) const ENUM_AND_SET_COLUMN_CHARSET: u8 = 11;
}

impl<'a> TableMapHead<'a> {
    /// Reads the table's id and name.
    ///
    /// # Errors
    /// `SourceCorrupt`.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self> {
        let mut fields = Fields::new(EVENT, body);
        let id = fields.uint(6)?;
        fields.u16()?;
        let length = usize::from(fields.u8()?);
        let database = fields.take(length)?;
        fields.u8()?;
        let table = fields.lenenc_bytes()?;
        fields.u8()?;
        Ok(Self {
            id,
            database,
            table,
            columns: fields,
            body,
        })
    }

    /// The table's name; names are always UTF-8 here.
    pub(super) fn name(&self) -> TableName {
        TableName::new(
            String::from_utf8_lossy(self.database),
            String::from_utf8_lossy(self.table),
        )
    }

    /// Reads the columns.
    ///
    /// # Errors
    /// `SourceCorrupt`; `Unsupported` for a column type that this build does not know. Both name the table: it alone stands.
    pub(super) fn columns(self) -> Result<TableMap> {
        let name = self.name();
        self.read_columns().map_err(|error| error.with_table(&name))
    }

    fn read_columns(self) -> Result<TableMap> {
        let mut fields = self.columns;
        let count = usize::try_from(fields.lenenc()?).map_err(|_| truncated(EVENT))?;
        let types = fields.take(count)?;
        let mut metadata = fields.lenenc_bytes()?;
        let formats = types
            .iter()
            .enumerate()
            .map(|(ordinal, wire_type)| {
                ImageFormat::read(*wire_type, &mut metadata)
                    .map_err(|error| error.of_column(&shown(fields, count, ordinal)))
            })
            .collect::<Result<Vec<_>>>()?;
        // What no type has taken belongs to a type that is read wrongly.
        if !metadata.is_empty() {
            return Err(truncated(EVENT));
        }
        // Nullability: the recorded table knows it, and a NULL says so itself.
        fields.take(count.div_ceil(8))?;
        let mut map = TableMap {
            id: self.id,
            name: self.name(),
            formats,
            unsigned: None,
            collations: Vec::new(),
            names: None,
            primary_key: None,
            labels: None,
            body: self.body.to_vec(),
        };
        map.read_optional(fields)?;
        Ok(map)
    }
}

impl TableMap {
    /// Reads the body of a TABLE_MAP event, its checksum taken off.
    ///
    /// # Errors
    /// `SourceCorrupt`; `Unsupported` for a column type that this build does not know, naming the table.
    pub fn parse(body: &[u8]) -> Result<Self> {
        TableMapHead::parse(body)?.columns()
    }

    fn read_optional(&mut self, mut fields: Fields<'_>) -> Result<()> {
        while !fields.rest().is_empty() {
            let kind = fields.u8()?;
            let mut value = Fields::new(EVENT, fields.lenenc_bytes()?);
            match kind {
                field::SIGNEDNESS => self.unsigned = Some(self.signedness(value.rest())),
                field::DEFAULT_CHARSET
                | field::COLUMN_CHARSET
                | field::ENUM_AND_SET_DEFAULT_CHARSET
                | field::ENUM_AND_SET_COLUMN_CHARSET => {
                    self.collations.resize(self.formats.len(), None);
                    collations::read(kind, &mut value, &self.formats, &mut self.collations)?;
                }
                field::COLUMN_NAME => {
                    let mut names = Vec::with_capacity(self.formats.len());
                    while !value.rest().is_empty() {
                        names.push(String::from_utf8_lossy(value.lenenc_bytes()?).into_owned());
                    }
                    if names.len() != self.formats.len() {
                        return Err(truncated(EVENT));
                    }
                    self.names = Some(names);
                }
                field::SIMPLE_PRIMARY_KEY | field::PRIMARY_KEY_WITH_PREFIX => {
                    let mut key = Vec::new();
                    while !value.rest().is_empty() {
                        key.push(usize::try_from(value.lenenc()?).map_err(|_| truncated(EVENT))?);
                        if kind == field::PRIMARY_KEY_WITH_PREFIX {
                            value.lenenc()?;
                        }
                    }
                    self.primary_key = Some(key);
                }
                field::SET_LABELS => self.read_labels(value, ImageFormat::is_set)?,
                field::ENUM_LABELS => self.read_labels(value, ImageFormat::is_enum)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The labels of all columns that `of` holds for, in ordinal order: a count and the labels, column by column.
    fn read_labels(&mut self, mut fields: Fields<'_>, of: fn(ImageFormat) -> bool) -> Result<()> {
        let count = self.formats.len();
        let told = self.labels.get_or_insert_with(|| vec![None; count]);
        for (format, told) in self.formats.iter().zip(told) {
            if !of(*format) {
                continue;
            }
            let mut labels = Vec::new();
            for _ in 0..fields.lenenc()? {
                labels.push(fields.lenenc_bytes()?.to_vec());
            }
            *told = Some(labels);
        }
        match fields.rest() {
            [] => Ok(()),
            _ => Err(truncated(EVENT)),
        }
    }

    /// The bitmap counts number columns only, the high bit first (pitfall 8).
    fn signedness(&self, bitmap: &[u8]) -> Vec<Option<bool>> {
        let mut ordinal = 0;
        self.formats
            .iter()
            .map(|format| {
                if !is_number(format.wire_type) {
                    return None;
                }
                let bit = bitmap
                    .get(ordinal / 8)
                    .map(|byte| byte >> (7 - ordinal % 8) & 1 == 1);
                ordinal += 1;
                bit
            })
            .collect()
    }
}

/// How a column is told of whose values cannot be read: by its name where the metadata, which stands behind the column's
/// own, has names; else by its place.
fn shown(behind: Fields<'_>, count: usize, ordinal: usize) -> String {
    match name_of(behind, count, ordinal) {
        Ok(Some(name)) => format!("`{name}`"),
        Ok(None) | Err(_) => format!("number {}", ordinal + 1),
    }
}

fn name_of(mut fields: Fields<'_>, count: usize, ordinal: usize) -> Result<Option<String>> {
    fields.take(count.div_ceil(8))?;
    while !fields.rest().is_empty() {
        let kind = fields.u8()?;
        let mut value = Fields::new(EVENT, fields.lenenc_bytes()?);
        if kind == field::COLUMN_NAME {
            for _ in 0..ordinal {
                value.lenenc_bytes()?;
            }
            let name = value.lenenc_bytes()?;
            return Ok(Some(String::from_utf8_lossy(name).into_owned()));
        }
    }
    Ok(None)
}

/// TINY, SHORT, LONG, FLOAT, DOUBLE, LONGLONG, INT24, YEAR and the two DECIMALs.
fn is_number(wire_type: u8) -> bool {
    matches!(wire_type, 0..=5 | 8 | 9 | 13 | 246)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A TABLE_MAP body: id, `db`.`table`, (wire type, metadata) a column, optional fields.
    pub(in super::super) fn body(
        id: u8,
        database: &str,
        table: &str,
        columns: &[(u8, &[u8])],
        optional: &[u8],
    ) -> Vec<u8> {
        let mut body = vec![id, 0, 0, 0, 0, 0, 1, 0];
        for name in [database, table] {
            body.push(u8::try_from(name.len()).unwrap());
            body.extend(name.as_bytes());
            body.push(0);
        }
        body.push(u8::try_from(columns.len()).unwrap());
        body.extend(columns.iter().map(|(wire_type, _)| wire_type));
        let metadata: Vec<u8> = columns.iter().flat_map(|(_, meta)| meta.to_vec()).collect();
        body.push(u8::try_from(metadata.len()).unwrap());
        body.extend(metadata);
        body.extend(vec![0; columns.len().div_ceil(8)]);
        body.extend(optional);
        body
    }

    #[test]
    fn signs_are_counted_over_number_columns_only() {
        let optional = [
            1,
            1,
            0b0110_0000,
            4,
            8,
            1,
            b'a',
            1,
            b'b',
            1,
            b'c',
            1,
            b'd',
            8,
            1,
            3,
        ];
        let columns: [(u8, &[u8]); 4] = [(3, &[]), (15, &[40, 0]), (13, &[]), (8, &[])];
        let body = body(7, "shop", "orders", &columns, &optional);
        let map = TableMapHead::parse(&body).unwrap().columns().unwrap();
        assert_eq!(map.name, TableName::new("shop", "orders"));
        assert_eq!(
            map.unsigned.unwrap(),
            [Some(false), None, Some(true), Some(true)]
        );
        assert_eq!(map.names.unwrap(), ["a", "b", "c", "d"]);
        assert_eq!(map.primary_key.unwrap(), [3]);
        assert_eq!(map.formats[1].meta, 40);
    }

    #[test]
    fn labels_belong_to_the_enums_and_sets_in_their_order() {
        // ENUM('x','yz'), INT, SET('s'), ENUM(''): enum and set fields stand apart.
        let columns: [(u8, &[u8]); 4] = [
            (254, &[247, 1]),
            (3, &[]),
            (254, &[248, 1]),
            (254, &[247, 1]),
        ];
        let optional = [
            6, 8, 2, 1, b'x', 2, b'y', b'z', 1, 0, //
            5, 3, 1, 1, b's',
        ];
        let whole = body(7, "s", "t", &columns, &optional);
        let map = TableMapHead::parse(&whole).unwrap().columns().unwrap();
        let labels = |labels: &[&[u8]]| Some(labels.iter().map(|label| label.to_vec()).collect());
        assert_eq!(
            map.labels.unwrap(),
            [
                labels(&[b"x", b"yz"]),
                None,
                labels(&[b"s"]),
                labels(&[b""])
            ]
        );
        for lying in [
            &[5, 1, 2][..],
            &[5, 2, 1, 9],
            &[6, 1, 1],
            &[5, 4, 1, 1, b's', 0],
        ] {
            let body = body(7, "s", "t", &columns, lying);
            let read = TableMapHead::parse(&body).and_then(TableMapHead::columns);
            assert!(read.is_err(), "{lying:?}");
        }
    }

    #[test]
    fn a_map_cut_anywhere_is_refused_and_behind_its_name_it_is_that_tables_trouble() {
        let body = body(7, "s", "t", &[(3, &[]), (15, &[40, 0])], &[1, 1, 0]);
        for length in 0..body.len() {
            // Cut behind the columns it is a map without optional fields.
            if length == body.len() - 3 {
                continue;
            }
            let read = TableMapHead::parse(&body[..length]).and_then(TableMapHead::columns);
            let error = read.expect_err(&format!("cut at {length}"));
            assert!(error.hint().is_some(), "cut at {length}");
            let named = (length >= body_of_name()).then(|| TableName::new("s", "t"));
            assert_eq!(error.table(), named.as_ref(), "cut at {length}");
        }
    }

    #[test]
    fn metadata_that_lies_about_its_length_is_that_tables_trouble() {
        for optional in [
            // Longer than what follows.
            &[1, 9, 0][..],
            // Names: one of two columns.
            &[4, 2, 1, b'a'],
            // A key whose number is cut.
            &[8, 1, 252],
            // A label that is longer than its field.
            &[6, 3, 1, 9, b'x'],
        ] {
            let columns: [(u8, &[u8]); 2] = [(3, &[]), (247, &[247, 1])];
            let error = TableMap::parse(&body(7, "s", "t", &columns, optional)).unwrap_err();
            assert_eq!(
                error.table(),
                Some(&TableName::new("s", "t")),
                "{optional:?}"
            );
            assert!(error.hint().is_some(), "{optional:?}");
        }
    }

    #[test]
    fn a_type_that_is_not_known_names_its_column_or_its_place() {
        let columns: [(u8, &[u8]); 2] = [(3, &[]), (200, &[])];
        for (optional, told) in [
            (&[4, 4, 1, b'a', 1, b'b'][..], "column `b`"),
            (&[], "column number 2"),
            // Of one column only.
            (&[4, 2, 1, b'a'], "column number 2"),
        ] {
            let error = TableMap::parse(&body(7, "s", "t", &columns, optional)).unwrap_err();
            assert_eq!(error.table(), Some(&TableName::new("s", "t")));
            assert!(error.message().contains(told), "{error}");
            assert!(error.message().contains("200"), "{error}");
        }
    }

    #[test]
    fn metadata_that_no_column_takes_is_refused() {
        let columns: [(u8, &[u8]); 2] = [(3, &[9, 9]), (15, &[40, 0])];
        assert!(TableMap::parse(&body(7, "s", "t", &columns, &[])).is_err());
    }

    /// Bytes of a map up to its columns, of names of one letter.
    fn body_of_name() -> usize {
        body(7, "s", "t", &[], &[]).len() - 2
    }
}
