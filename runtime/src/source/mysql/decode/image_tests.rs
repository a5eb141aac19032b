use super::*;

fn format(wire_type: u8, mut block: &[u8]) -> ImageFormat {
    let format = ImageFormat::read(wire_type, &mut block).expect("readable");
    assert!(block.is_empty(), "type {wire_type} takes all its metadata");
    format
}

fn column(data_type: &str, length: Option<u64>, labels: usize) -> SourceColumn {
    SourceColumn {
        length,
        labels: (0..labels).map(|label| label.to_string()).collect(),
        ..SourceColumn::sample(data_type)
    }
}

#[test]
fn metadata_is_read_in_its_types_own_byte_order() {
    assert_eq!(format(VARCHAR, &[0x2c, 0x01]).meta, 300);
    assert_eq!(
        format(NEWDECIMAL, &[15, 2]).layout(),
        Ok(Layout::Decimal {
            precision: 15,
            scale: 2
        })
    );
    // BIT(13): five bits and one byte.
    assert_eq!(format(BIT, &[5, 1]).layout(), Ok(Layout::Bits(2)));
    assert_eq!(format(STRING, &[ENUM, 1]).layout(), Ok(Layout::Enum(1)));
    assert_eq!(format(STRING, &[SET, 8]).layout(), Ok(Layout::Set(8)));
    assert_eq!(format(LONG, &[]).layout(), Ok(Layout::Integer(4)));
    assert_eq!(
        ImageFormat::read(200, &mut &[][..]),
        Err(DecodeError::UnknownWireType(200))
    );
}

#[test]
fn a_char_of_more_than_255_bytes_hides_two_bits_of_its_length() {
    // CHAR(255) of utf8mb4: 1020 bytes are 0x3fc; the upper two bits stand inverted in the type.
    let long = format(STRING, &[0xfe ^ 0x30, 0xfc]);
    assert_eq!(long.layout(), Ok(Layout::Bytes(2)));
    assert_eq!(long.string_length(0xfe ^ 0x30, 0xfc), 1020);
    let short = format(STRING, &[0xfe, 40]);
    assert_eq!(short.layout(), Ok(Layout::Bytes(1)));
    assert!(short.fits(&column("binary", Some(40), 0)));
    assert!(!short.fits(&column("binary", Some(41), 0)));
}

#[test]
fn a_format_fits_only_a_column_whose_values_it_can_hold() {
    assert!(format(INT24, &[]).fits(&column("mediumint", None, 0)));
    assert!(!format(LONG, &[]).fits(&column("mediumint", None, 0)));
    assert!(format(BIT, &[5, 1]).fits(&column("bit", Some(13), 0)));
    assert!(!format(BIT, &[5, 1]).fits(&column("bit", Some(12), 0)));
    assert!(format(STRING, &[ENUM, 2]).fits(&column("enum", None, 256)));
    assert!(!format(STRING, &[ENUM, 1]).fits(&column("enum", None, 256)));
    assert!(format(STRING, &[SET, 8]).fits(&column("set", None, 33)));
    assert!(!format(STRING, &[ENUM, 1]).fits(&column("char", Some(1), 0)));
    assert!(format(BLOB, &[4]).fits(&column("longtext", None, 0)));
    assert!(!format(BLOB, &[4]).fits(&column("json", None, 0)));
    let mut decimal = column("decimal", None, 0);
    (decimal.precision, decimal.scale) = (Some(15), Some(2));
    assert!(format(NEWDECIMAL, &[15, 2]).fits(&decimal));
    assert!(!format(NEWDECIMAL, &[15, 3]).fits(&decimal));
}

#[test]
fn a_value_that_passes_the_end_is_truncated() {
    let text = format(VARCHAR, &[10, 0]);
    assert_eq!(text.value_length(&[3, 1, 2, 3, 9]), Ok(4));
    assert_eq!(text.value_length(&[3, 1, 2]), Err(DecodeError::Truncated));
    let blob = format(BLOB, &[4]);
    assert_eq!(blob.value_length(&[0xff; 4]), Err(DecodeError::Truncated));
    let impossible = ImageFormat {
        wire_type: BLOB,
        meta: 9,
    };
    assert_eq!(
        impossible.value_length(&[0; 20]),
        Err(DecodeError::BadLength)
    );
}

#[test]
fn keys_are_found_between_nulls_and_absent_columns() {
    let formats = [
        format(LONG, &[]),
        format(VARCHAR, &[20, 0]),
        format(TINY, &[]),
        format(SHORT, &[]),
    ];
    // The third column is absent; of the three present the first is NULL.
    let present = [0b1011];
    let image = [0b0000_0001, 2, b'a', b'b', 7, 0, 0xee];
    let mut keys = vec![];
    let mut cursor = &image[..];
    image_key_slices(&formats, &present, &[3, 0, 1], &mut cursor, &mut keys).expect("walks");
    assert_eq!(cursor, [0xee]);
    assert_eq!(keys, [Some(4..6), None, Some(1..4)]);
    let mut cursor = &image[..];
    skip_image_row(&formats, &present, &mut cursor).expect("walks");
    assert_eq!(cursor, [0xee]);
    assert_eq!(
        image_key_slices(&formats, &present, &[2], &mut &image[..], &mut keys),
        Err(DecodeError::AbsentColumn)
    );
}

#[test]
fn the_null_bitmap_counts_present_columns_only() {
    // Nine columns, eight of them present: one byte of NULL bits, not two.
    let formats = [format(TINY, &[]); 9];
    let present = [0b1111_1110, 0xff];
    let image = [0b0111_1111, 42];
    let mut cursor = &image[..];
    skip_image_row(&formats, &present, &mut cursor).expect("walks");
    assert!(cursor.is_empty());
}
