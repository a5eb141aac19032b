//! The one table from the source's types to column types.
//!
//! Everything that a decoder cannot give exactly is refused here, by name and at Setup, never met in mid-stream.

use serde::{Deserialize, Serialize};

use super::catalog::{SourceColumn, SourceTable};
use super::decode::Charset;
use super::{Flavor, ServerVersion};
use crate::batch::ColumnType;
use crate::config::GeometryForm;
use crate::error::{Error, ErrorKind, Result};

/// What `column` holds once it has left the source.
///
/// # Errors
/// `Unsupported` for a type or charset that this build cannot replicate exactly; the hint names the column.
pub fn column_type(column: &SourceColumn) -> Result<ColumnType> {
    let of_sign = |signed, unsigned| if column.unsigned { unsigned } else { signed };
    Ok(match column.data_type.as_str() {
        // TINYINT(1) holds -128 to 127 like every other, so it is no boolean (pitfall 10).
        "tinyint" => of_sign(ColumnType::Int8, ColumnType::UInt8),
        "smallint" => of_sign(ColumnType::Int16, ColumnType::UInt16),
        "mediumint" | "int" | "integer" => of_sign(ColumnType::Int32, ColumnType::UInt32),
        "bigint" => of_sign(ColumnType::Int64, ColumnType::UInt64),
        "year" => ColumnType::UInt16,
        "bit" => ColumnType::UInt64,
        "float" => ColumnType::Float32,
        "double" => ColumnType::Float64,
        "decimal" | "numeric" => decimal(column)?,
        "date" => ColumnType::Date,
        "datetime" => ColumnType::DateTime {
            digits: digits(column)?,
        },
        "timestamp" => ColumnType::Timestamp {
            digits: digits(column)?,
        },
        "time" => ColumnType::Time {
            digits: digits(column)?,
        },
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => text(column)?,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
            ColumnType::Bytes
        }
        "enum" => {
            check_labels(column)?;
            ColumnType::Label
        }
        "set" => {
            check_labels(column)?;
            ColumnType::Text
        }
        "json" => ColumnType::Json,
        "uuid" => ColumnType::Uuid,
        "inet4" => ColumnType::Inet4,
        "inet6" => ColumnType::Inet6,
        "vector" => ColumnType::Vector,
        _ if let Some(geometry) = column.geometry => match geometry.form {
            GeometryForm::Wkt | GeometryForm::Ewkt => ColumnType::Text,
            GeometryForm::Wkb => ColumnType::Bytes,
        },
        _ => {
            return Err(unsupported(
                column,
                "is of a type that this build does not know",
            ));
        }
    })
}

/// MariaDB 11 leaves generated columns out of the images of updates and deletes, stored ones too, whatever
/// `binlog_row_image` says (seen on 11.8; 10.11 does not), and nobody but the server can compute them (pitfall 40): such
/// rows have to be read from the source, which only happens where the pipe file asks for it.
///
/// # Errors
/// `Unsupported` for an included generated column on such a server; the hint names the column.
pub fn ensure_images_whole(
    table: &SourceTable,
    flavor: Flavor,
    version: ServerVersion,
) -> Result<()> {
    if flavor == Flavor::MySql || version < ServerVersion(11, 0, 0) {
        return Ok(());
    }
    let mut left_out = table
        .columns
        .iter()
        .filter(|column| column.generated && column.included.is_some());
    match left_out.next() {
        None => Ok(()),
        Some(column) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "column `{}` is generated, and MariaDB {version} leaves it out of the row images of updates",
                column.name
            ),
        )
        .with_table(table.name())
        .with_hint(format!(
            "name `{}` in this table's `exclude_columns`, and compute it at the destination; or set `row_image: complete`, \
             with places in GTIDs, so that changed rows are read from the source",
            column.name
        ))),
    }
}

/// How the geometries of a column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// What they become.
    pub form: GeometryForm,
    /// Whose way of writing their text has.
    pub flavor: Flavor,
}

impl Geometry {
    /// How geometries of that `DATA_TYPE` are written by default; none for what is no geometry. The names are those of
    /// both servers.
    pub fn of(flavor: Flavor, data_type: &str) -> Option<Self> {
        let known = matches!(
            data_type,
            "geometry"
                | "point"
                | "linestring"
                | "polygon"
                | "multipoint"
                | "multilinestring"
                | "multipolygon"
                | "geometrycollection"
                | "geomcollection"
        );
        known.then_some(Self {
            form: GeometryForm::default(),
            flavor,
        })
    }
}

/// Whether the column's times lie in MariaDB's own layout of before 10.1, which the catalog marks (pitfall 35).
pub fn is_hires(column: &SourceColumn) -> bool {
    storage_clause(column).contains("/* mariadb-5.3 */")
}

fn decimal(column: &SourceColumn) -> Result<ColumnType> {
    match (column.precision, column.scale) {
        (Some(precision @ 1..=65), Some(scale @ 0..=30)) if scale <= precision => {
            Ok(ColumnType::Decimal { precision, scale })
        }
        _ => Err(unsupported(column, "has digits that no DECIMAL can have")),
    }
}

fn digits(column: &SourceColumn) -> Result<u8> {
    match column.scale {
        None => Ok(0),
        Some(digits @ 0..=6) => Ok(digits),
        Some(_) => Err(unsupported(
            column,
            "has more than six digits in its fraction",
        )),
    }
}

fn text(column: &SourceColumn) -> Result<ColumnType> {
    match column.charset.as_deref() {
        None | Some("binary") => Ok(ColumnType::Bytes),
        Some(charset) if Charset::named(charset).is_some() => Ok(ColumnType::Text),
        Some(charset) => Err(unsupported(column, &format!("has the charset `{charset}`"))),
    }
}

/// The catalog leaves out labels that it could not have exactly.
fn check_labels(column: &SourceColumn) -> Result<()> {
    if column.labels.is_empty() {
        return Err(unsupported(column, "has labels that cannot be read"));
    }
    Ok(())
}

/// What COLUMN_TYPE says behind the type's parentheses, where labels cannot be mistaken for it.
fn storage_clause(column: &SourceColumn) -> &str {
    let text = column.column_type.as_str();
    text.rfind(')')
        .and_then(|end| text.get(end..))
        .unwrap_or(text)
}

fn unsupported(column: &SourceColumn, why: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "column `{}` ({}) {why}",
            column.name,
            type_without_labels(column)
        ),
    )
    .with_hint(format!(
        "name `{}` in this table's `exclude_columns`",
        column.name
    ))
}

/// An ENUM of a thousand labels would drown the message.
fn type_without_labels(column: &SourceColumn) -> &str {
    if column.labels.is_empty() {
        &column.column_type
    } else {
        &column.data_type
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(data_type: &str, column_type: &str) -> SourceColumn {
        SourceColumn {
            column_type: column_type.into(),
            unsigned: column_type.contains("unsigned"),
            geometry: Geometry::of(Flavor::MySql, data_type),
            ..SourceColumn::sample(data_type)
        }
    }

    #[test]
    fn tinyint_1_is_a_number() {
        let tiny = column("tinyint", "tinyint(1)");
        assert_eq!(column_type(&tiny).expect("known"), ColumnType::Int8);
        let tiny = column("tinyint", "tinyint(1) unsigned");
        assert_eq!(column_type(&tiny).expect("known"), ColumnType::UInt8);
    }

    #[test]
    fn what_cannot_be_exact_is_refused_with_its_remedy() {
        for (data_type, text) in [("xmltype", "xmltype"), ("something", "something(3)")] {
            let error = column_type(&column(data_type, text)).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}");
            assert!(
                error
                    .hint()
                    .is_some_and(|hint| hint.contains("`c`") && hint.contains("exclude_columns")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_generated_column_is_refused_where_row_images_leave_it_out() {
        let table = |included, generated| SourceTable {
            schema: std::sync::Arc::new(crate::batch::TableSchema {
                name: crate::batch::TableName::new("d", "t"),
                columns: vec![],
                key: vec![],
            }),
            columns: vec![SourceColumn {
                included,
                generated,
                ..column("int", "int(11)")
            }],
            date_rules: std::collections::BTreeMap::new(),
            keeps_null: std::collections::BTreeMap::new(),
            key_is_primary: false,
            transactional: None,
            unique_keys: Vec::new(),
        };
        let new = ServerVersion(11, 8, 9);
        let error =
            ensure_images_whole(&table(Some(0), true), Flavor::MariaDb, new).expect_err("left out");
        assert!(
            error.message().contains("`c`") && error.message().contains("11.8.9"),
            "{error}"
        );
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("exclude_columns") && hint.contains("row_image"))
        );
        for (table, flavor, version) in [
            (table(None, true), Flavor::MariaDb, new),
            (table(Some(0), false), Flavor::MariaDb, new),
            (
                table(Some(0), true),
                Flavor::MariaDb,
                ServerVersion(10, 11, 18),
            ),
            (table(Some(0), true), Flavor::MySql, ServerVersion(11, 0, 0)),
        ] {
            ensure_images_whole(&table, flavor, version).expect("whole");
        }
    }

    #[test]
    fn a_charset_is_refused_unless_its_decoding_is_certain() {
        let mut text = column("varchar", "varchar(10)");
        for charset in [
            "utf8mb4", "utf8mb3", "utf8", "latin1", "ascii", "ucs2", "utf16le", "swe7", "gb18030",
        ] {
            text.charset = Some(charset.into());
            assert_eq!(
                column_type(&text).expect(charset),
                ColumnType::Text,
                "{charset}"
            );
        }
        text.charset = Some("binary".into());
        assert_eq!(column_type(&text).expect("binary"), ColumnType::Bytes);
        text.charset = Some("ebcdic".into());
        let error = column_type(&text).expect_err("unknown");
        assert!(error.message().contains("ebcdic"), "{error}");
    }

    #[test]
    fn labels_that_the_catalog_could_not_have_are_refused() {
        let mut labels = column("enum", "enum('a?')");
        labels.charset = Some("utf8mb4".into());
        let error = column_type(&labels).expect_err("no labels");
        assert!(error.message().contains("labels"), "{error}");
        labels.labels = vec!["a?".into()];
        assert_eq!(column_type(&labels).expect("certain"), ColumnType::Label);
    }

    #[test]
    fn a_label_that_looks_like_a_storage_clause_is_a_label() {
        let mut labels = column("enum", "enum('x) COMPRESSED','b')");
        labels.labels = vec!["x) COMPRESSED".into(), "b".into()];
        labels.charset = Some("latin1".into());
        assert_eq!(column_type(&labels).expect("a label"), ColumnType::Label);
    }
}
