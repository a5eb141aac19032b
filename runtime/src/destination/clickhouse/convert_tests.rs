use arrow::array::{
    Date32Array, Decimal128Array, Decimal256Array, Int8Array, Int64Array, UInt8Array,
};

use super::*;

fn target(column_type: ColumnType, conversion: Conversion) -> TargetColumn {
    TargetColumn {
        name: "c".to_owned(),
        sql_type: String::new(),
        column_type,
        nullable: true,
        source_nullable: true,
        fill: None,
        conversion,
        labels: None,
    }
}

fn bytes(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(BinaryArray::from_iter(
        values.iter().map(|value| value.map(str::as_bytes)),
    ))
}

fn texts(array: &ArrayRef) -> Vec<Option<String>> {
    array
        .as_binary::<i32>()
        .iter()
        .map(|value| value.map(|value| String::from_utf8_lossy(value).into_owned()))
        .collect()
}

fn some(values: &[&str]) -> Vec<Option<String>> {
    values
        .iter()
        .map(|value| Some((*value).to_owned()))
        .collect()
}

/// Converts, and sees that the array is of the type that is promised.
fn converted(column: &TargetColumn, array: &ArrayRef) -> Converted {
    let converted = convert(column, array).expect("converts");
    assert_eq!(*converted.array.data_type(), sent_type(column));
    assert_eq!(converted.array.len(), array.len());
    converted
}

#[test]
fn dates_outside_become_the_limit_or_null_or_the_epoch() {
    let array: ArrayRef = Arc::new(Date32Array::from(vec![
        Some(DATE32.0 - 1),
        None,
        Some(5),
        Some(DATE32.1 + 1),
    ]));
    let days = |conversion, nullable| {
        let column = TargetColumn {
            nullable,
            ..target(ColumnType::Date, conversion)
        };
        let converted = converted(&column, &array);
        assert_eq!(converted.changed, Some((Policy::DateRange, 2)));
        let days = converted.array.as_primitive::<Date32Type>().iter();
        days.collect::<Vec<_>>()
    };
    assert_eq!(
        days(Conversion::Date(Outside::Clamp), true),
        [Some(DATE32.0), None, Some(5), Some(DATE32.1)]
    );
    assert_eq!(
        days(Conversion::Date(Outside::Null), true),
        [None, None, Some(5), None]
    );
    assert_eq!(
        days(Conversion::Date(Outside::Null), false),
        [Some(0), None, Some(5), Some(0)]
    );
}

#[test]
fn what_is_inside_passes_by_reference() {
    let array: ArrayRef = Arc::new(Date32Array::from(vec![DATE32.0, DATE32.1]));
    let column = target(ColumnType::Date, Conversion::Date(Outside::Clamp));
    let converted = converted(&column, &array);
    assert!(Arc::ptr_eq(&converted.array, &array));
    assert_eq!(converted.changed, None);
}

#[test]
fn dates_of_every_year_are_moments() {
    // 0000-01-01 and 9999-12-31.
    let days: ArrayRef = Arc::new(Date32Array::from(vec![-719_528, 2_932_896]));
    let column = target(ColumnType::Date, Conversion::DateToSeconds);
    let seconds = converted(&column, &days).array;
    let values = seconds.as_primitive::<TimestampSecondType>().values();
    assert_eq!(values.to_vec(), [-62_167_219_200, 253_402_214_400]);
}

#[test]
fn every_number_but_0_is_true_and_those_but_1_are_counted() {
    let column = target(ColumnType::Int8, Conversion::TinyintToBool);
    let array: ArrayRef = Arc::new(Int8Array::from(vec![
        Some(0),
        Some(1),
        Some(-1),
        None,
        Some(127),
    ]));
    let truths = converted(&column, &array);
    let values: Vec<_> = truths.array.as_boolean().iter().collect();
    assert_eq!(
        values,
        [Some(false), Some(true), Some(true), None, Some(true)]
    );
    assert_eq!(truths.changed, Some((Policy::Tinyint1, 2)));
    let column = target(ColumnType::UInt8, Conversion::TinyintToBool);
    let array: ArrayRef = Arc::new(UInt8Array::from(vec![0, 1, 255]));
    assert_eq!(
        converted(&column, &array).changed,
        Some((Policy::Tinyint1, 1))
    );
}

#[test]
fn labels_become_their_numbers_and_strange_ones_are_refused() {
    let declared: Vec<String> = (0..300).map(|n| format!("label {n}")).collect();
    let column = |conversion| TargetColumn {
        labels: Some(Arc::new(Labels::new(&declared))),
        ..target(ColumnType::Label, conversion)
    };
    let array = bytes(&[
        Some("label 299"),
        None,
        Some(""),
        Some("label 0"),
        Some("label 0"),
    ]);
    let numbers = converted(&column(Conversion::LabelToNumber), &array).array;
    let numbers: Vec<_> = numbers.as_primitive::<UInt16Type>().iter().collect();
    assert_eq!(numbers, [Some(300), None, Some(0), Some(1), Some(1)]);
    let numbers = converted(&column(Conversion::LabelToEnum16), &array).array;
    assert_eq!(numbers.as_primitive::<Int16Type>().value(0), 300);
    let error = convert(&column(Conversion::LabelToNumber), &bytes(&[Some("x")])).expect_err("x");
    assert!(error.message().contains("`c`") && error.hint().is_some());
}

#[test]
fn a_set_becomes_the_array_of_its_labels() {
    let column = TargetColumn {
        nullable: false,
        ..target(ColumnType::Text, Conversion::SetToArray)
    };
    let sets = converted(&column, &bytes(&[Some("a,b c"), Some(""), None, Some("ü")]));
    let lists = sets.array.as_list::<i32>();
    let members: Vec<_> = (0..4).map(|row| texts(&lists.value(row))).collect();
    assert_eq!(members[0], some(&["a", "b c"]));
    assert_eq!(members[1], []);
    assert_eq!(members[2], []);
    assert_eq!(members[3], some(&["ü"]));
    assert_eq!(lists.null_count(), 0);
    assert_eq!(sets.changed, Some((Policy::Set, 1)));
    let strict = TargetColumn {
        source_nullable: false,
        ..column
    };
    let sets = converted(&strict, &bytes(&[None]));
    assert_eq!(sets.array.null_count(), 1, "left to be refused by name");
}

#[test]
fn bytes_become_hexadecimal_or_base64_text() {
    let array = bytes(&[Some("\0~"), None, Some(""), Some("any carnal pleas")]);
    let hex = converted(&target(ColumnType::Bytes, Conversion::BytesToHex), &array);
    let mut expected = some(&["007E", "", "", "616E79206361726E616C20706C656173"]);
    expected[1] = None;
    assert_eq!(texts(&hex.array), expected);
    let base64 = converted(
        &target(ColumnType::Bytes, Conversion::BytesToBase64),
        &array,
    );
    let mut expected = some(&["AH4=", "", "", "YW55IGNhcm5hbCBwbGVhcw=="]);
    expected[1] = None;
    assert_eq!(texts(&base64.array), expected);
}

#[test]
fn decimals_keep_all_digits_as_text() {
    let decimal = |precision, scale| ColumnType::Decimal { precision, scale };
    let narrow: ArrayRef = Arc::new(
        Decimal128Array::from(vec![Some(12345), Some(-5), Some(0), None])
            .with_precision_and_scale(10, 2)
            .expect("a decimal"),
    );
    let column = target(decimal(10, 2), Conversion::NumberToText);
    let mut expected = some(&["123.45", "-0.05", "0.00", ""]);
    expected[3] = None;
    assert_eq!(texts(&converted(&column, &narrow).array), expected);
    let whole: ArrayRef = Arc::new(
        Decimal128Array::from(vec![i128::from(u64::MAX), -1])
            .with_precision_and_scale(38, 0)
            .expect("a decimal"),
    );
    let column = target(decimal(38, 0), Conversion::NumberToText);
    assert_eq!(
        texts(&converted(&column, &whole).array),
        some(&["18446744073709551615", "-1"])
    );
    let nines = i256::from_string(&"9".repeat(65)).expect("65 digits");
    let hundred = i256::from_string(&format!("1{}", "0".repeat(38))).expect("39 digits");
    let wide: ArrayRef = Arc::new(
        Decimal256Array::from(vec![nines, nines.wrapping_neg(), hundred, i256::ONE])
            .with_precision_and_scale(65, 30)
            .expect("a decimal"),
    );
    let column = target(decimal(65, 30), Conversion::NumberToText);
    let largest = format!("{}.{}", "9".repeat(35), "9".repeat(30));
    assert_eq!(
        texts(&converted(&column, &wide).array),
        some(&[
            &largest,
            &format!("-{largest}"),
            &format!("100000000.{}", "0".repeat(30)),
            &format!("0.{}1", "0".repeat(29)),
        ])
    );
}

#[test]
fn integers_become_their_digits() {
    let array: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN, 0, 42]));
    let column = target(ColumnType::Int64, Conversion::NumberToText);
    assert_eq!(
        texts(&converted(&column, &array).array),
        some(&["-9223372036854775808", "0", "42"])
    );
}

#[test]
fn json_that_is_no_object_becomes_the_member_of_one() {
    let column = target(ColumnType::Json, Conversion::JsonToObject);
    let array = bytes(&[
        Some(" {\"a\": 1}"),
        Some("[1, 2]"),
        Some("null"),
        None,
        Some("\"{\""),
        Some(""),
    ]);
    let objects = converted(&column, &array);
    let mut expected = some(&[
        " {\"a\": 1}",
        "{\"value\":[1, 2]}",
        "{\"value\":null}",
        "",
        "{\"value\":\"{\"}",
        "{}",
    ]);
    expected[3] = None;
    assert_eq!(texts(&objects.array), expected);
    assert_eq!(objects.changed, Some((Policy::Json, 3)));
    let text = target(ColumnType::Text, Conversion::JsonToObject);
    let changed = converted(&text, &bytes(&[Some("{}"), Some("")])).changed;
    assert_eq!(changed, Some((Policy::Json, 1)));
    let all_objects = bytes(&[Some("{}"), None]);
    let same = converted(&column, &all_objects);
    assert!(Arc::ptr_eq(&same.array, &all_objects));
}

#[test]
fn fixed_bytes_must_have_their_length() {
    let column = target(ColumnType::Bytes, Conversion::BytesToFixed(3));
    let fixed_values = converted(&column, &bytes(&[Some("abc"), None])).array;
    let values = fixed_values.as_fixed_size_binary();
    assert_eq!(values.value(0), b"abc");
    assert!(values.is_null(1));
    let filled = TargetColumn {
        nullable: false,
        ..column.clone()
    };
    let values = converted(&filled, &bytes(&[Some("")])).array;
    assert_eq!(values.as_fixed_size_binary().value(0), b"\0\0\0");
    let error = convert(&column, &bytes(&[Some("ab")])).expect_err("too short");
    assert!(error.message().contains("`c`"));
}
