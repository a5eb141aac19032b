use super::*;

fn column(column_type: ColumnType, source_type: &str) -> Column {
    Column {
        name: "c".to_owned(),
        column_type,
        nullable: true,
        source_type: source_type.to_owned(),
    }
}

fn chosen(column_type: ColumnType, text: &str) -> Option<String> {
    chosen_of(&column(column_type, ""), text)
}

fn chosen_of(column: &Column, text: &str) -> Option<String> {
    chosen_type(column, text, true, Outside::Clamp)
        .ok()
        .map(|mapped| mapped.sql(false))
}

fn default_type(column_type: ColumnType, time64: bool) -> Mapped {
    super::default_type(column_type, time64, Outside::Clamp)
}

#[test]
fn nullable_stands_inside_of_low_cardinality() {
    let label = default_type(ColumnType::Label, true);
    assert_eq!(label.sql(true), "LowCardinality(Nullable(String))");
    assert_eq!(label.sql(false), "LowCardinality(String)");
    assert_eq!(
        default_type(ColumnType::Text, true).sql(true),
        "Nullable(String)"
    );
}

#[test]
fn a_server_without_time64_gets_microseconds() {
    let time = ColumnType::Time { digits: 3 };
    assert_eq!(default_type(time, true).sql(false), "Time64(6)");
    let old = default_type(time, false);
    assert_eq!(old.sql(false), "Int64");
    assert_eq!(old.conversion, Conversion::TimeToMicros);
    assert!(chosen_type(&column(time, "time"), "Time64(6)", false, Outside::Clamp).is_err());
}

#[test]
fn wider_types_are_accepted_in_the_spelling_that_clickhouse_prints() {
    let decimal = ColumnType::Decimal {
        precision: 15,
        scale: 2,
    };
    for (column_type, text, printed) in [
        (ColumnType::Int32, "Int64", "Int64"),
        (ColumnType::UInt32, "Int64", "Int64"),
        (ColumnType::UInt64, "UInt256", "UInt256"),
        (ColumnType::Float32, "Float64", "Float64"),
        (decimal, "Decimal(20,4)", "Decimal(20, 4)"),
        (ColumnType::Date, "DateTime64(0)", "DateTime64(0, 'UTC')"),
        (
            ColumnType::DateTime { digits: 3 },
            "DateTime64(3)",
            "DateTime64(3, 'UTC')",
        ),
        (
            ColumnType::Timestamp { digits: 0 },
            "DateTime64(0, 'Europe/Berlin')",
            "DateTime64(0, 'Europe/Berlin')",
        ),
        (
            ColumnType::Text,
            "LowCardinality( String )",
            "LowCardinality(String)",
        ),
        (ColumnType::Label, "String", "String"),
        (ColumnType::Int64, "String", "String"),
        (decimal, "String", "String"),
        (ColumnType::UInt32, "IPv4", "IPv4"),
    ] {
        assert_eq!(
            chosen(column_type, text).as_deref(),
            Some(printed),
            "{text}"
        );
    }
}

#[test]
fn types_that_could_lose_something_are_refused() {
    let decimal = ColumnType::Decimal {
        precision: 15,
        scale: 2,
    };
    for (column_type, text) in [
        (ColumnType::Int32, "UInt8"),
        (ColumnType::Int32, "UInt64"),
        (ColumnType::Int8, "Bool"),
        (ColumnType::UInt64, "Int64"),
        (ColumnType::Float64, "Float32"),
        (decimal, "Decimal(15, 3)"),
        (decimal, "Decimal(77, 2)"),
        (decimal, "Float64"),
        (ColumnType::Date, "Date"),
        (ColumnType::DateTime { digits: 3 }, "DateTime64(2)"),
        (
            ColumnType::DateTime { digits: 0 },
            "DateTime64(0, 'Europe/Berlin')",
        ),
        (ColumnType::DateTime { digits: 0 }, "DateTime64(9)"),
        (
            ColumnType::Timestamp { digits: 0 },
            "DateTime64(0, 'x') + 1",
        ),
        (ColumnType::Text, "UUID"),
        (ColumnType::Text, "Nullable(String)"),
        (ColumnType::Json, "JSON"),
    ] {
        assert_eq!(chosen(column_type, text), None, "{text}");
    }
}

#[test]
fn bytes_of_one_length_may_be_fixed_strings_uuids_and_addresses() {
    let sixteen = column(ColumnType::Bytes, "binary(16)");
    for text in ["FixedString(16)", "UUID", "IPv6"] {
        assert_eq!(chosen_of(&sixteen, text).as_deref(), Some(text), "{text}");
    }
    let eight = column(ColumnType::Bytes, "binary(8)");
    assert!(chosen_of(&eight, "FixedString(8)").is_some());
    for text in ["FixedString(7)", "FixedString(9)", "UUID", "IPv6"] {
        assert_eq!(chosen_of(&eight, text), None, "{text}");
    }
    let any = column(ColumnType::Bytes, "varbinary(16)");
    assert_eq!(chosen_of(&any, "FixedString(16)"), None);
    let text = column(ColumnType::Text, "char(36)");
    assert_eq!(chosen_of(&text, "UUID"), None, "a text need not be a UUID");
}

#[test]
fn a_refused_type_names_the_policy_that_does_it() {
    for (column_type, source_type, chosen, policy) in [
        (ColumnType::Int8, "tinyint(1)", "Bool", "tinyint1: bool"),
        (ColumnType::Date, "date", "String", "date_range: string"),
        (
            ColumnType::Label,
            "enum('a')",
            "Enum8('a' = 1)",
            "enum: enum16",
        ),
        (ColumnType::Label, "enum('a')", "UInt16", "enum: integer"),
        (ColumnType::Text, "set('a')", "Array(String)", "set: array"),
        (ColumnType::Json, "json", "JSON", "json: json"),
    ] {
        let column = column(column_type, source_type);
        let error = chosen_type(&column, chosen, true, Outside::Clamp).expect_err(chosen);
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains(policy), "{chosen}: {hint}");
        let shown = error.message();
        assert!(
            !shown.contains("enum('"),
            "labels may be thousands: {shown}"
        );
    }
}
