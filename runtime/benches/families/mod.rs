//! One column of each family of types, and a value of it as a packet of the load and as a row image hold it: what the
//! bench measures, and what the test of allocations counts over.

mod moments;
mod numbers;
mod others;
mod strings;

use std::sync::Arc;

use pipewright::batch::{Column, TableName, TableSchema};
use pipewright::source::mysql::Flavor;
use pipewright::source::mysql::catalog::{ColumnDefault, SourceColumn, SourceTable};
use pipewright::source::mysql::decode::{ImageFormat, TableBuilder};
use pipewright::source::mysql::types::{Geometry, column_type};

/// One column, and one value of it in either form.
pub(crate) struct Family {
    /// The family, and what of it.
    pub(crate) name: &'static str,
    data_type: &'static str,
    column_type: &'static str,
    charset: Option<&'static str>,
    /// Digits and scale, or length.
    shape: (Option<u8>, Option<u8>, Option<u64>),
    labels: &'static [&'static str],
    /// How a table map describes the column.
    pub(crate) format: ImageFormat,
    /// The value in a row of the binary protocol.
    pub(crate) packet: Vec<u8>,
    /// The value in a row image.
    pub(crate) image: Vec<u8>,
}

/// Every family.
pub(crate) fn all() -> Vec<Family> {
    [
        numbers::families(),
        moments::families(),
        strings::families(),
        others::families(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn family(name: &'static str, data_type: &'static str, (wire_type, meta): (u8, u16)) -> Family {
    Family {
        name,
        data_type,
        column_type: data_type,
        charset: None,
        shape: (None, None, None),
        labels: &[],
        format: ImageFormat { wire_type, meta },
        packet: Vec::new(),
        image: Vec::new(),
    }
}

/// Bytes behind a length of one byte, as both forms have short ones.
fn short(bytes: &[u8]) -> Vec<u8> {
    let mut value = vec![u8::try_from(bytes.len()).expect("short")];
    value.extend_from_slice(bytes);
    value
}

/// Bytes behind a length of four bytes, as row images have long ones.
fn long(bytes: &[u8]) -> Vec<u8> {
    let mut value = Vec::from(u32::try_from(bytes.len()).expect("short").to_le_bytes());
    value.extend_from_slice(bytes);
    value
}

/// Bytes as a packet has them, however many.
fn counted(bytes: &[u8]) -> Vec<u8> {
    match u16::try_from(bytes.len()).expect("not so long") {
        0..=250 => short(bytes),
        length => [&[0xfc], &length.to_le_bytes()[..], bytes].concat(),
    }
}

impl Family {
    /// A row of the value alone, as a packet has it.
    pub(crate) fn packet_row(&self) -> Vec<u8> {
        [&[0, 0], self.packet.as_slice()].concat()
    }

    /// Likewise as a row image.
    pub(crate) fn image_row(&self) -> Vec<u8> {
        [&[0], self.image.as_slice()].concat()
    }

    fn column(&self, name: &str, place: usize) -> SourceColumn {
        let (precision, scale, length) = self.shape;
        SourceColumn {
            name: name.to_owned(),
            included: Some(place),
            data_type: self.data_type.into(),
            column_type: self.column_type.into(),
            unsigned: false,
            nullable: true,
            charset: self.charset.map(str::to_owned),
            collation: None,
            length,
            precision,
            scale,
            labels: self.labels.iter().map(|&label| label.to_owned()).collect(),
            default: ColumnDefault::None,
            generated: false,
            geometry: Geometry::of(Flavor::MySql, self.data_type),
            row_end: false,
        }
    }
}

/// A table with a column of each of these.
pub(crate) fn table<'a>(families: impl IntoIterator<Item = &'a Family>) -> SourceTable {
    let columns: Vec<SourceColumn> = families
        .into_iter()
        .enumerate()
        .map(|(place, family)| family.column(&format!("c{place}"), place))
        .collect();
    SourceTable {
        schema: Arc::new(TableSchema {
            name: TableName::new("bench", "t"),
            columns: columns
                .iter()
                .map(|column| Column {
                    name: column.name.clone(),
                    column_type: column_type(column).expect("a type that is known"),
                    nullable: true,
                    source_type: column.column_type.clone(),
                })
                .collect(),
            key: vec![],
        }),
        columns,
        date_rules: std::collections::BTreeMap::new(),
        keeps_null: std::collections::BTreeMap::new(),
        key_is_primary: false,
        transactional: None,
        unique_keys: Vec::new(),
    }
}

/// A builder for a table of one column, and how its images are read.
pub(crate) fn builder(family: &Family) -> (TableBuilder, Arc<[ImageFormat]>) {
    let table = table([family]);
    let formats =
        TableBuilder::fitted_formats(&table, &[family.format]).expect("a format that fits");
    let builder = TableBuilder::new(&table, false).expect("a builder");
    (builder, formats)
}
