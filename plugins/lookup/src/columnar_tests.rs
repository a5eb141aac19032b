//! Files written by the crate itself; the one in `cases/` was written by ClickHouse.

use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArray,
    FixedLenByteArrayType, Int32Type, Int64Type,
};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::file::{self, Records};

type Group<'a> = SerializedRowGroupWriter<'a, Vec<u8>>;

/// A file of row groups, each written by the function that is given.
fn parquet(schema: &str, compression: Compression, groups: &[&dyn Fn(&mut Group<'_>)]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .build();
    let mut writer =
        SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).expect("a file");
    for write in groups {
        let mut group = writer.next_row_group().expect("a row group");
        write(&mut group);
        group.close().expect("a row group");
    }
    writer.into_inner().expect("a file")
}

fn put<T: DataType>(group: &mut Group<'_>, cells: &[Option<T::T>]) {
    let mut column = group.next_column().expect("a column").expect("a column");
    let levels: Vec<i16> = cells.iter().map(|cell| cell.is_some().into()).collect();
    let values: Vec<T::T> = cells.iter().flatten().cloned().collect();
    column
        .typed::<T>()
        .write_batch(&values, Some(&levels), None)
        .expect("values");
    column.close().expect("a column");
}

fn text(text: &str) -> Option<ByteArray> {
    Some(ByteArray::from(text))
}

/// The cells of the columns that are named.
fn read(bytes: Vec<u8>, wanted: &[&str]) -> Result<Vec<Vec<Option<String>>>, String> {
    let Records { header, records } = file::read(bytes, wanted)?;
    assert_eq!(header, wanted);
    Ok(records)
}

#[test]
fn values_become_text_as_csv_has_it_and_null_stays_null() {
    let schema = "message lookup {
        optional binary name (UTF8);
        optional int32 small;
        optional int64 large (INTEGER(64,false));
        optional int32 day (DATE);
        optional int64 micros (TIMESTAMP(MICROS,true));
        optional int64 nanos (TIMESTAMP(NANOS,false));
        optional int32 price (DECIMAL(9,2));
        optional fixed_len_byte_array(9) long_price (DECIMAL(20,3));
        optional boolean open;
        optional double share;
    }";
    let bytes = parquet(
        schema,
        Compression::SNAPPY,
        &[&|group| {
            put::<ByteArrayType>(group, &[text("Zürich, \"ZH\""), text(""), None]);
            put::<Int32Type>(group, &[Some(-7), Some(0), None]);
            put::<Int64Type>(group, &[Some(-1), Some(1), None]);
            put::<Int32Type>(group, &[Some(20_484), Some(-1), None]);
            put::<Int64Type>(group, &[Some(1_769_860_800_000_000), Some(-500_000), None]);
            put::<Int64Type>(group, &[Some(0), Some(1), None]);
            put::<Int32Type>(group, &[Some(-5), Some(12_345), None]);
            let minus_one = FixedLenByteArray::from(vec![0xff; 9]);
            let large =
                FixedLenByteArray::from(vec![0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
            put::<FixedLenByteArrayType>(group, &[Some(minus_one), Some(large), None]);
            put::<BoolType>(group, &[Some(true), Some(false), None]);
            put::<DoubleType>(group, &[Some(0.1), Some(2.0), None]);
        }],
    );
    let wanted = [
        "name",
        "small",
        "large",
        "day",
        "micros",
        "nanos",
        "price",
        "long_price",
        "open",
        "share",
    ];
    let records = read(bytes, &wanted).expect("a file");
    let row = |cells: [&str; 10]| cells.map(|cell| Some(cell.to_owned())).to_vec();
    let expected = vec![
        row([
            "Zürich, \"ZH\"",
            "-7",
            "18446744073709551615",
            "2026-01-31",
            "2026-01-31 12:00:00",
            "1970-01-01 00:00:00",
            "-0.05",
            "-0.001",
            "true",
            "0.1",
        ]),
        row([
            "",
            "0",
            "1",
            "1969-12-31",
            "1969-12-31 23:59:59.500",
            "1970-01-01 00:00:00.000000001",
            "123.45",
            "9223372036854775.807",
            "false",
            "2",
        ]),
        vec![None; 10],
    ];
    assert_eq!(records, expected);
}

#[test]
fn rows_go_on_from_one_row_group_to_the_next() {
    let schema = "message lookup { required binary code (UTF8); optional int32 no; }";
    let bytes = parquet(
        schema,
        Compression::UNCOMPRESSED,
        &[
            &|group| {
                put::<ByteArrayType>(group, &[text("DE"), text("FR")]);
                put::<Int32Type>(group, &[Some(1), None]);
            },
            &|group| {
                put::<ByteArrayType>(group, &[text("IT")]);
                put::<Int32Type>(group, &[Some(3)]);
            },
        ],
    );
    let some = |text: &str| Some(text.to_owned());
    let expected = vec![
        vec![some("1"), some("DE")],
        vec![None, some("FR")],
        vec![some("3"), some("IT")],
    ];
    assert_eq!(read(bytes.clone(), &["no", "code"]), Ok(expected));
    // What is not there is for the caller to tell.
    let found = file::read(bytes, &["code", "absent", "code"]).expect("a file");
    assert_eq!(found.header, ["code"]);
}

#[test]
fn what_cannot_be_a_value_is_refused_by_the_columns_name() {
    let schema = "message lookup {
        required int32 id;
        optional group address { optional binary city (UTF8); }
        repeated int32 tags;
        optional binary raw;
        optional int64 time (TIME(MICROS,true));
    }";
    let write = |group: &mut Group<'_>| {
        put::<Int32Type>(group, &[Some(1)]);
        put::<ByteArrayType>(group, &[None]);
        let mut tags = group.next_column().expect("a column").expect("a column");
        tags.typed::<Int32Type>()
            .write_batch(&[], Some(&[0]), Some(&[0]))
            .expect("values");
        tags.close().expect("a column");
        put::<ByteArrayType>(group, &[Some(ByteArray::from(vec![0xff]))]);
        put::<Int64Type>(group, &[Some(1)]);
    };
    let bytes = parquet(schema, Compression::SNAPPY, &[&write]);
    for (name, why) in [
        ("address", "column `address` is nested"),
        ("tags", "column `tags` is nested"),
        (
            "raw",
            "column `raw` has a value in row 1 that is no UTF-8 text",
        ),
        ("time", "column `time` holds what has no form in CSV"),
    ] {
        let refusal = read(bytes.clone(), &[name]).expect_err(name);
        assert!(refusal.starts_with(why), "{refusal}");
    }
    // The others are none of the plugin's business.
    assert_eq!(
        read(bytes.clone(), &["id"]),
        Ok(vec![vec![Some("1".to_owned())]])
    );
    let cut = [b"PAR1\0".as_slice(), &bytes[bytes.len() - 8..]].concat();
    let refusal = read(cut, &["id"]).expect_err("a file that was cut");
    assert!(refusal.starts_with("cannot be read: "), "{refusal}");
}
