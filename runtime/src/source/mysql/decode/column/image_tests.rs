use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Float32Type, Time64MicrosecondType, UInt32Type};

use super::*;
use crate::config::GeometryForm;
use crate::source::mysql::Flavor;
use crate::source::mysql::catalog::SourceColumn;
use crate::source::mysql::types::{Geometry, column_type};

fn column(data_type: &str) -> SourceColumn {
    SourceColumn {
        geometry: Geometry::of(Flavor::MySql, data_type),
        ..SourceColumn::sample(data_type)
    }
}

fn builder(column: &SourceColumn) -> ColumnBuilder {
    let column_type = column_type(column).expect("supported");
    ColumnBuilder::new(column, column_type, false).expect("a builder")
}

fn format(wire_type: u8, meta: u16, column: &SourceColumn) -> ImageFormat {
    let format = ImageFormat { wire_type, meta };
    assert!(
        format.fits(column),
        "type {wire_type} fits {}",
        column.data_type
    );
    format.completed(column)
}

/// One value of a packet, NULL, and the same value of an image.
fn both(column: &SourceColumn, packet: &[u8], format: ImageFormat, image: &[u8]) -> ArrayRef {
    let mut builder = builder(column);
    let (mut packet, mut image) = (packet, image);
    builder.push_packet(&mut packet).expect("a packet's value");
    builder.push_null();
    assert_eq!(format.value_length(image), Ok(image.len()));
    builder
        .push_image(format, &mut image)
        .expect("an image's value");
    assert!(packet.is_empty() && image.is_empty(), "both take it all");
    let array = builder.finish();
    assert_eq!(
        array.data_type(),
        &column_type(column).expect("supported").arrow()
    );
    assert_eq!(
        &array.slice(0, 1),
        &array.slice(2, 1),
        "{}",
        column.data_type
    );
    assert!(array.is_null(1));
    array
}

/// `value` behind its length in one byte.
fn short(value: &[u8]) -> Vec<u8> {
    [&[u8::try_from(value.len()).expect("short")], value].concat()
}

/// `value` behind its length in four bytes.
fn long(value: &[u8]) -> Vec<u8> {
    [
        &u32::try_from(value.len()).expect("short").to_le_bytes(),
        value,
    ]
    .concat()
}

#[test]
fn a_uuid_is_the_bytes_of_its_text_whatever_an_image_leaves_out() {
    let uuid = column("uuid");
    let text = short(b"f47ac10b-58cc-4372-a567-0e02b2c30000");
    let image = [
        0x0e, 0xf4, 0x7a, 0xc1, 0x0b, 0x58, 0xcc, 0x43, 0x72, 0xa5, 0x67, 0x0e, 0x02, 0xb2, 0xc3,
    ];
    let array = both(&uuid, &text, format(254, 0xfe10, &uuid), &image);
    assert_eq!(
        array.as_fixed_size_binary().value(0)[12..],
        [0xb2, 0xc3, 0, 0]
    );
    let nil = short(b"00000000-0000-0000-0000-000000000000");
    let array = both(&uuid, &nil, format(254, 0xfe10, &uuid), &[0]);
    assert_eq!(array.as_fixed_size_binary().value(0), [0; 16]);
}

#[test]
fn addresses_are_the_same_in_both_forms() {
    let inet4 = column("inet4");
    let array = both(
        &inet4,
        &short(b"192.168.1.0"),
        format(254, 0xfe04, &inet4),
        &[3, 192, 168, 1],
    );
    assert_eq!(array.as_primitive::<UInt32Type>().value(0), 0xc0a8_0100);
    let inet6 = column("inet6");
    let array = both(
        &inet6,
        &short(b"ff02::"),
        format(254, 0xfe10, &inet6),
        &[2, 0xff, 2],
    );
    assert_eq!(array.as_fixed_size_binary().value(0)[..3], [0xff, 2, 0]);
    let mismatch = ImageFormat {
        wire_type: 254,
        meta: 0xfe10,
    };
    assert!(!mismatch.fits(&inet4) && !mismatch.fits(&column("vector")));
}

#[test]
fn a_vector_is_a_list_of_its_floats_under_either_servers_type_number() {
    let vector = column("vector");
    let floats = [1.0f32.to_le_bytes(), (-2.5f32).to_le_bytes()].concat();
    for (wire_type, meta, image) in [(242, 4, long(&floats)), (15, 12, short(&floats))] {
        let array = both(
            &vector,
            &short(&floats),
            format(wire_type, meta, &vector),
            &image,
        );
        let list = array.as_list::<i32>().value(0);
        assert_eq!(
            list.as_primitive::<Float32Type>().values().to_vec(),
            [1.0, -2.5]
        );
        assert_eq!(
            array.as_list::<i32>().value_length(1),
            0,
            "NULL takes no place"
        );
    }
    let mut odd = &[3, 0, 0, 0][..];
    let mut builder = builder(&vector);
    assert_eq!(builder.push_packet(&mut odd), Err(DecodeError::BadLength));
    assert!(builder.is_empty());
}

#[test]
fn a_geometry_is_written_in_the_form_that_its_column_asks_for() {
    let mut place = column("point");
    let mut stored = vec![0xe6, 0x10, 0, 0, 1, 1, 0, 0, 0];
    stored.extend((-2.0f64).to_le_bytes());
    stored.extend(1.5f64.to_le_bytes());
    for (form, text) in [
        (GeometryForm::Wkt, &b"POINT(-2 1.5)"[..]),
        (GeometryForm::Ewkt, b"SRID=4326;POINT(-2 1.5)"),
        (GeometryForm::Wkb, &stored[4..]),
    ] {
        let flavor = Flavor::MySql;
        place.geometry = Some(Geometry { form, flavor });
        let array = both(
            &place,
            &short(&stored),
            format(255, 4, &place),
            &long(&stored),
        );
        assert_eq!(array.as_binary::<i32>().value(0), text);
    }
    place.geometry = Geometry::of(Flavor::MySql, "point");
    let mut builder = builder(&place);
    let broken = short(&stored[..20]);
    let error = builder.push_packet(&mut broken.as_slice());
    assert!(matches!(error, Err(DecodeError::BadGeometry(_))));
    assert_eq!(
        builder.byte_count(),
        size_of::<i32>(),
        "nothing of it is left"
    );
}

#[test]
fn a_compressed_value_is_plain_in_the_columns_own_charset() {
    let mut text = column("varchar");
    text.charset = Some("latin1".into());
    // Latin1's é, left as it is; in packets, too, texts are in the column's charset.
    let array = both(
        &text,
        &short(&[0xe9]),
        format(141, 101, &text),
        &[2, 0, 0xe9],
    );
    assert_eq!(array.as_binary::<i32>().value(0), "é".as_bytes());
    let blob = column("longblob");
    let hundred = vec![b'a'; 100];
    let image = long(&[0x89, 0x64, 0x4b, 0x4c, 0xa4, 0x3d, 0, 0]);
    let array = both(&blob, &short(&hundred), format(140, 4, &blob), &image);
    assert_eq!(array.as_binary::<i32>().value(0), hundred);
    let mut builder = builder(&blob);
    let lying = long(&[0x89, 0x65, 0x4b, 0x4c, 0xa4, 0x3d, 0, 0]);
    let format = format(140, 4, &blob);
    assert!(builder.push_image(format, &mut lying.as_slice()).is_err());
    assert!(builder.is_empty());
}

#[test]
fn the_digits_of_an_old_time_come_from_the_recorded_column() {
    let mut time = column("time");
    time.column_type = "time(3) /* mariadb-5.3 */".into();
    time.scale = Some(3);
    // 12:34:56.789.
    let packet = [12, 0, 0, 0, 0, 0, 12, 34, 56, 0x08, 0x0a, 0x0c, 0x00];
    let image = [0x00, 0xb6, 0xba, 0xd2, 0x15];
    let array = both(&time, &packet, format(11, 0, &time), &image);
    let micros = array.as_primitive::<Time64MicrosecondType>().value(0);
    assert_eq!(micros, 45_296_789_000);
    // Without a fraction it is the number 123456 (pitfall 36).
    (time.column_type, time.scale) = ("time /* mariadb-5.3 */".into(), Some(0));
    let packet = [8, 0, 0, 0, 0, 0, 12, 34, 56];
    let array = both(&time, &packet, format(11, 0, &time), &[0x40, 0xe2, 0x01]);
    let micros = array.as_primitive::<Time64MicrosecondType>().value(0);
    assert_eq!(micros, 45_296_000_000);
    // A fraction without the catalog's mark is somebody else's column.
    (time.column_type, time.scale) = ("time(3)".into(), Some(3));
    let plain = ImageFormat {
        wire_type: 11,
        meta: 0,
    };
    assert!(!plain.fits(&time));
}
