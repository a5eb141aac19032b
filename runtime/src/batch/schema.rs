//! Tables and columns as every stage sees them: neither MySQL's types nor ClickHouse's.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use serde::{Deserialize, Serialize};

/// A source table's name. Case is kept as the server gives it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableName {
    /// The schema, which MySQL calls database.
    pub database: String,
    /// The table.
    pub table: String,
}

impl TableName {
    /// `database.table`.
    pub fn new(database: impl Into<String>, table: impl Into<String>) -> Self {
        Self {
            database: database.into(),
            table: table.into(),
        }
    }

    /// A text that no other table has: as the name is displayed, but for dots in the database's name.
    pub fn key(&self) -> String {
        let database = self.database.replace('%', "%25").replace('.', "%2E");
        format!("{database}.{}", self.table)
    }

    /// Reads `database.table`. A database with a dot in its name stands between backticks, as MySQL writes it; so may any
    /// name.
    pub fn parse(text: &str) -> Option<Self> {
        let (database, rest) = take_name(text)?;
        let rest = rest.strip_prefix('.')?;
        let table = match rest.starts_with('`') {
            true => take_name(rest).filter(|(_, rest)| rest.is_empty())?.0,
            false => rest.to_owned(),
        };
        (!database.is_empty() && !table.is_empty()).then(|| Self::new(database, table))
    }
}

/// A name at the beginning, between backticks or up to the first dot, and what follows it.
fn take_name(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('`') else {
        let end = text.find('.').unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let (mut name, mut rest) = (String::new(), quoted);
    loop {
        let (part, behind) = rest.split_once('`')?;
        name.push_str(part);
        match behind.strip_prefix('`') {
            Some(behind) => {
                name.push('`');
                rest = behind;
            }
            None => return Some((name, behind)),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

/// What a column holds. The Arrow type follows from it; the ClickHouse type is the destination's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// `Int8`.
    Int8,
    /// `Int16`.
    Int16,
    /// `Int32`; MEDIUMINT too.
    Int32,
    /// `Int64`.
    Int64,
    /// `UInt8`.
    UInt8,
    /// `UInt16`; YEAR too.
    UInt16,
    /// `UInt32`.
    UInt32,
    /// `UInt64`; BIT too.
    UInt64,
    /// `Float32`.
    Float32,
    /// `Float64`.
    Float64,
    /// `Decimal128` up to 38 digits, `Decimal256` above.
    Decimal {
        /// All digits, 1 to 65.
        precision: u8,
        /// Digits after the point, 0 to 30.
        scale: u8,
    },
    /// `Date32`: days since 1970-01-01.
    Date,
    /// `Timestamp(us)` without a zone: the wall clock as stored.
    DateTime {
        /// Digits of the fraction, 0 to 6.
        digits: u8,
    },
    /// `Timestamp(us, "UTC")`: a moment.
    Timestamp {
        /// Digits of the fraction, 0 to 6.
        digits: u8,
    },
    /// `Time64(us)`: a signed span of up to 838:59:59.999999, as MySQL's TIME.
    Time {
        /// Digits of the fraction, 0 to 6.
        digits: u8,
    },
    /// `Binary` that should be UTF-8; MySQL may store bytes that are not, and they are kept.
    Text,
    /// `Binary` with few distinct values: the label of an ENUM.
    Label,
    /// `Binary`: bytes without a charset.
    Bytes,
    /// `Binary`: a JSON document as the server prints it.
    Json,
    /// `FixedSizeBinary(16)`: a UUID's bytes in the order of its text. Plugins see the text.
    Uuid,
    /// `UInt32`: an IPv4 address, the first number in the high byte. Plugins see the text.
    Inet4,
    /// `FixedSizeBinary(16)`: an IPv6 address, first byte first. Plugins see the text.
    Inet6,
    /// `List(Float32)`: a vector; never empty, so that where NULL has no place the empty list can stand for it.
    Vector,
    /// `Boolean`: made by plugins only, for MySQL's BOOL is a number.
    Bool,
    /// `List` of numbers, none of them NULL: made by plugins only. Where NULL has no place the empty list stands for it.
    List(Number),
}

/// What a [`ColumnType::List`] is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Number {
    /// `Int8`.
    Int8,
    /// `Int16`.
    Int16,
    /// `Int32`.
    Int32,
    /// `Int64`.
    Int64,
    /// `UInt8`.
    UInt8,
    /// `UInt16`.
    UInt16,
    /// `UInt32`.
    UInt32,
    /// `UInt64`.
    UInt64,
    /// `Float32`.
    Float32,
    /// `Float64`.
    Float64,
}

impl Number {
    /// All of them.
    pub const ALL: [Number; 10] = [
        Number::Int8,
        Number::Int16,
        Number::Int32,
        Number::Int64,
        Number::UInt8,
        Number::UInt16,
        Number::UInt32,
        Number::UInt64,
        Number::Float32,
        Number::Float64,
    ];

    /// The type of a column of such numbers.
    pub fn column_type(self) -> ColumnType {
        match self {
            Number::Int8 => ColumnType::Int8,
            Number::Int16 => ColumnType::Int16,
            Number::Int32 => ColumnType::Int32,
            Number::Int64 => ColumnType::Int64,
            Number::UInt8 => ColumnType::UInt8,
            Number::UInt16 => ColumnType::UInt16,
            Number::UInt32 => ColumnType::UInt32,
            Number::UInt64 => ColumnType::UInt64,
            Number::Float32 => ColumnType::Float32,
            Number::Float64 => ColumnType::Float64,
        }
    }

    /// The number that columns of this type hold, if they hold one.
    pub fn of(column_type: ColumnType) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|number| number.column_type() == column_type)
    }

    /// How Arrow describes the elements of lists of it.
    pub fn list_field(self) -> FieldRef {
        Arc::new(Field::new_list_field(self.column_type().arrow(), false))
    }
}

impl ColumnType {
    /// The Arrow type of this column's arrays, on every path.
    pub fn arrow(self) -> DataType {
        match self {
            ColumnType::Int8 => DataType::Int8,
            ColumnType::Int16 => DataType::Int16,
            ColumnType::Int32 => DataType::Int32,
            ColumnType::Int64 => DataType::Int64,
            ColumnType::UInt8 => DataType::UInt8,
            ColumnType::UInt16 => DataType::UInt16,
            ColumnType::UInt32 => DataType::UInt32,
            ColumnType::UInt64 => DataType::UInt64,
            ColumnType::Float32 => DataType::Float32,
            ColumnType::Float64 => DataType::Float64,
            ColumnType::Decimal { precision, scale } if precision <= 38 => {
                DataType::Decimal128(precision, scale.cast_signed())
            }
            ColumnType::Decimal { precision, scale } => {
                DataType::Decimal256(precision, scale.cast_signed())
            }
            ColumnType::Date => DataType::Date32,
            ColumnType::DateTime { .. } => DataType::Timestamp(TimeUnit::Microsecond, None),
            ColumnType::Timestamp { .. } => {
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
            }
            ColumnType::Time { .. } => DataType::Time64(TimeUnit::Microsecond),
            ColumnType::Text | ColumnType::Label | ColumnType::Bytes | ColumnType::Json => {
                DataType::Binary
            }
            ColumnType::Uuid | ColumnType::Inet6 => DataType::FixedSizeBinary(16),
            ColumnType::Inet4 => DataType::UInt32,
            ColumnType::Bool => DataType::Boolean,
            ColumnType::Vector => DataType::List(Number::Float32.list_field()),
            ColumnType::List(number) => DataType::List(number.list_field()),
        }
    }

    /// What its lists are of, if it holds lists.
    pub fn elements(self) -> Option<Number> {
        match self {
            ColumnType::Vector => Some(Number::Float32),
            ColumnType::List(number) => Some(number),
            _ => None,
        }
    }
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The source's name; a plugin may add further columns.
    pub name: String,
    /// What it holds.
    pub column_type: ColumnType,
    /// Whether the source allows NULL.
    pub nullable: bool,
    /// The server's own words for the type, such as `decimal(15,2) unsigned`, for messages and plugins.
    pub source_type: String,
}

/// The columns that a stage hands on, in order, and which of them identify a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    /// The source table.
    pub name: TableName,
    /// Excluded columns are gone already.
    pub columns: Vec<Column>,
    /// Indexes into `columns`: the source's primary key, or else its first unique key without a nullable column, in
    /// key order. Empty when the table has neither.
    pub key: Vec<usize>,
}

impl TableSchema {
    /// The index of the column of that name, compared as ClickHouse does: with case.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_mysql_writes_it() {
        for (text, database, table) in [
            ("shop.orders", "shop", "orders"),
            ("shop.a.b", "shop", "a.b"),
            ("`my.shop`.orders", "my.shop", "orders"),
            ("`my.shop`.`a.b`", "my.shop", "a.b"),
            ("`a``b`.c", "a`b", "c"),
            ("shop.a`b", "shop", "a`b"),
        ] {
            assert_eq!(
                TableName::parse(text),
                Some(TableName::new(database, table))
            );
        }
        for text in [
            "",
            "shop",
            "shop.",
            ".orders",
            "`shop.orders",
            "``.a",
            "`a`b.c",
            "a.`b`c",
        ] {
            assert_eq!(TableName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn no_two_tables_have_one_key() {
        let names = [
            ("a", "b.c"),
            ("a.b", "c"),
            ("a%2Eb", "c"),
            ("a", ".b.c"),
            ("a.", "b.c"),
        ];
        let keys = names.map(|(database, table)| TableName::new(database, table).key());
        let distinct: std::collections::BTreeSet<&String> = keys.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{keys:?}");
        assert_eq!(TableName::new("shop", "a.b").key(), "shop.a.b");
    }
}
