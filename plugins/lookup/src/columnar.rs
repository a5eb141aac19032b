//! Columns of a Parquet file as text, in the forms that a CSV file would have.
//!
//! The crate's own reader of rows panics at types that it does not convert, so columns are read as they are stored, and
//! what the format calls their logical type says how a value is written.

use bytes::Bytes;
use chrono::DateTime;
use parquet::basic::{CompressionCodec, ConvertedType, LogicalType, TimeUnit};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use crate::file::Records;

type Cells = Vec<Option<String>>;

/// The columns that are wanted and there. Err says what is wrong.
pub(crate) fn read(bytes: Vec<u8>, wanted: &[&str]) -> Result<Records, String> {
    let reader = SerializedFileReader::new(Bytes::from(bytes)).map_err(broken)?;
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let mut header: Vec<String> = Vec::new();
    let mut columns = Vec::new();
    for name in wanted {
        if header.iter().any(|known| known == name) {
            continue;
        }
        if let Some(leaf) = find(&schema, name)? {
            let of_column = |message: String| format!("column `{name}` {message}");
            columns.push(column(&reader, leaf).map_err(of_column)?.into_iter());
            header.push((*name).to_owned());
        }
    }
    let row_count = columns.first().map_or(0, ExactSizeIterator::len);
    let records = (0..row_count)
        .map(|_| {
            columns
                .iter_mut()
                .map(|cells| cells.next().flatten())
                .collect()
        })
        .collect();
    Ok(Records { header, records })
}

/// The place of a column that is one value a row; none when there is no such column.
fn find(schema: &SchemaDescriptor, name: &str) -> Result<Option<usize>, String> {
    let mut leaves =
        (0..schema.num_columns()).filter(|leaf| schema.get_column_root(*leaf).name() == name);
    let Some(leaf) = leaves.next() else {
        return Ok(None);
    };
    let is_flat = schema.get_column_root(leaf).is_primitive();
    if is_flat && schema.column(leaf).max_rep_level() == 0 {
        return Ok(Some(leaf));
    }
    Err(format!(
        "column `{name}` is nested; a lookup takes one value a row, so write its parts as columns of their own"
    ))
}

fn column(reader: &SerializedFileReader<Bytes>, leaf: usize) -> Result<Cells, String> {
    let mut cells = Vec::new();
    for index in 0..reader.num_row_groups() {
        let group = reader.get_row_group(index).map_err(broken)?;
        let chunk = group.metadata().column(leaf);
        let codec = chunk.compression_codec();
        if !matches!(
            codec,
            CompressionCodec::UNCOMPRESSED | CompressionCodec::SNAPPY
        ) {
            return Err(format!(
                "is compressed with {codec}; write the file with Snappy or without compression"
            ));
        }
        let form = Form::of(chunk.column_descr()).ok_or_else(|| {
            "holds what has no form in CSV; write it as text, number, decimal, date or timestamp"
                .to_owned()
        })?;
        let row_count = usize::try_from(group.metadata().num_rows()).map_err(broken)?;
        let stored = group.get_column_reader(leaf).map_err(broken)?;
        Target {
            cells: &mut cells,
            row_count,
        }
        .take(stored, form)?;
    }
    Ok(cells)
}

fn broken(error: impl std::fmt::Display) -> String {
    format!("cannot be read: {error}")
}

/// How the values of a column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Unsigned,
    Date,
    /// So many of them make a second.
    Moment(i64),
    /// So many digits stand after the point.
    Decimal(usize),
}

impl Form {
    fn of(column: &ColumnDescriptor) -> Option<Self> {
        // Nanoseconds are younger than converted types.
        if let Some(LogicalType::Timestamp(timestamp)) = column.logical_type_ref()
            && timestamp.unit == TimeUnit::NANOS
        {
            return Some(Form::Moment(1_000_000_000));
        }
        match column.converted_type() {
            ConvertedType::NONE if column.logical_type_ref().is_some() => None,
            ConvertedType::NONE
            | ConvertedType::UTF8
            | ConvertedType::ENUM
            | ConvertedType::JSON
            | ConvertedType::INT_8
            | ConvertedType::INT_16
            | ConvertedType::INT_32
            | ConvertedType::INT_64 => Some(Form::Plain),
            ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::UINT_64 => Some(Form::Unsigned),
            ConvertedType::DATE => Some(Form::Date),
            ConvertedType::TIMESTAMP_MILLIS => Some(Form::Moment(1_000)),
            ConvertedType::TIMESTAMP_MICROS => Some(Form::Moment(1_000_000)),
            ConvertedType::DECIMAL => usize::try_from(column.type_scale()).ok().map(Form::Decimal),
            _ => None,
        }
    }

    /// None: the value has no such form.
    fn integer(self, value: i64) -> Option<String> {
        match self {
            Form::Plain | Form::Unsigned => Some(value.to_string()),
            Form::Date => {
                let moment = DateTime::from_timestamp(value.checked_mul(86_400)?, 0)?;
                Some(moment.date_naive().to_string())
            }
            Form::Moment(per_second) => {
                let rest = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
                let nanos = u32::try_from(rest).ok()?;
                let moment = DateTime::from_timestamp(value.div_euclid(per_second), nanos)?;
                Some(moment.naive_utc().to_string())
            }
            Form::Decimal(scale) => Some(decimal(value.into(), scale)),
        }
    }

    fn bytes(self, value: &[u8]) -> Option<String> {
        match self {
            Form::Plain => String::from_utf8(value.to_vec()).ok(),
            Form::Decimal(scale) => Some(decimal(big_endian(value)?, scale)),
            Form::Unsigned | Form::Date | Form::Moment(_) => None,
        }
    }
}

/// Of 38 digits at most.
fn big_endian(value: &[u8]) -> Option<i128> {
    let sign = if *value.first()? >= 0x80 { 0xff } else { 0 };
    let mut wide = [sign; 16];
    let start = wide.len().checked_sub(value.len())?;
    wide[start..].copy_from_slice(value);
    Some(i128::from_be_bytes(wide))
}

fn decimal(value: i128, scale: usize) -> String {
    let mut text = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    if scale > 0 {
        text.insert(text.len() - scale, '.');
    }
    if value < 0 {
        text.insert(0, '-');
    }
    text
}

/// Where the values of one row group go.
struct Target<'a> {
    cells: &'a mut Cells,
    row_count: usize,
}

impl Target<'_> {
    fn take(self, stored: ColumnReader, form: Form) -> Result<(), String> {
        match stored {
            ColumnReader::BoolColumnReader(stored) => {
                self.each(stored, |value| Some(value.to_string()))
            }
            ColumnReader::Int32ColumnReader(stored) => self.each(stored, |value| match form {
                Form::Unsigned => Some(value.cast_unsigned().to_string()),
                form => form.integer((*value).into()),
            }),
            ColumnReader::Int64ColumnReader(stored) => self.each(stored, |value| match form {
                Form::Unsigned => Some(value.cast_unsigned().to_string()),
                form => form.integer(*value),
            }),
            // How a timestamp was stored before it had a type.
            ColumnReader::Int96ColumnReader(stored) => self.each(stored, |value| {
                Form::Moment(1_000_000_000).integer(value.to_nanos())
            }),
            ColumnReader::FloatColumnReader(stored) => {
                self.each(stored, |value| Some(value.to_string()))
            }
            ColumnReader::DoubleColumnReader(stored) => {
                self.each(stored, |value| Some(value.to_string()))
            }
            ColumnReader::ByteArrayColumnReader(stored) => {
                self.each(stored, |value| form.bytes(value.data()))
            }
            ColumnReader::FixedLenByteArrayColumnReader(stored) => {
                self.each(stored, |value| form.bytes(value.data()))
            }
        }
    }

    fn each<T: DataType>(
        self,
        mut stored: ColumnReaderImpl<T>,
        text: impl Fn(&T::T) -> Option<String>,
    ) -> Result<(), String> {
        let cut = || "ends before its last row".to_owned();
        let mut left = self.row_count;
        // One for each row of a column that may be NULL, and 0 where it is; none for one that may not.
        let mut levels: Vec<i16> = Vec::new();
        let mut values = Vec::new();
        while left > 0 {
            levels.clear();
            values.clear();
            let read = stored.read_records(left, Some(&mut levels), None, &mut values);
            let (row_count, ..) = read.map_err(broken)?;
            left = left
                .checked_sub(row_count)
                .filter(|_| row_count > 0)
                .ok_or_else(cut)?;
            let mut values = values.iter();
            for row in 0..row_count {
                if levels.get(row) == Some(&0) {
                    self.cells.push(None);
                    continue;
                }
                let value = values.next().ok_or_else(cut)?;
                let text = text(value).ok_or_else(|| {
                    format!(
                        "has a value in row {} that is no UTF-8 text, no day of the calendar or longer than 38 digits",
                        self.cells.len() + 1
                    )
                })?;
                self.cells.push(Some(text));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "columnar_tests.rs"]
mod tests;
