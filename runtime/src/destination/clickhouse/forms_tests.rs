use super::*;

fn column(column_type: ColumnType, source_type: &str) -> Column {
    Column {
        name: "c".to_owned(),
        column_type,
        nullable: true,
        source_type: source_type.to_owned(),
    }
}

fn labels() -> Vec<String> {
    ["a", "b"].map(str::to_owned).to_vec()
}

/// One column of each kind that a policy concerns.
fn kinds() -> [(Column, bool); 8] {
    let decimal = ColumnType::Decimal {
        precision: 10,
        scale: 2,
    };
    [
        (column(ColumnType::Date, "date"), false),
        (
            column(ColumnType::DateTime { digits: 0 }, "datetime"),
            false,
        ),
        (column(ColumnType::Int8, "tinyint(1)"), false),
        (column(ColumnType::Label, "enum('a','b')"), true),
        (column(ColumnType::Text, "set('a','b')"), true),
        (column(ColumnType::Bytes, "blob"), false),
        (column(ColumnType::Json, "json"), false),
        (column(decimal, "decimal(10,2)"), false),
    ]
}

fn planned(
    column: &Column,
    with_labels: bool,
    own: Option<ColumnConfig>,
    pipe: TypePolicies,
    in_key: bool,
) -> Result<Mapped> {
    let labels = labels();
    mapped(&Wish {
        column,
        own: own.as_ref(),
        pipe,
        labels: with_labels.then_some(labels.as_slice()),
        in_key,
        time64: true,
    })
}

fn own(policies: TypePolicies) -> Option<ColumnConfig> {
    Some(ColumnConfig {
        policies,
        ..ColumnConfig::default()
    })
}

/// Every choice that is not the default, by itself.
fn choices() -> Vec<TypePolicies> {
    let none = TypePolicies::default();
    vec![
        TypePolicies {
            date_range: Some(DateRange::Null),
            ..none
        },
        TypePolicies {
            tinyint1: Some(Tinyint1::Bool),
            ..none
        },
        TypePolicies {
            enum_form: Some(EnumForm::Enum16),
            ..none
        },
        TypePolicies {
            enum_form: Some(EnumForm::Integer),
            ..none
        },
        TypePolicies {
            set_form: Some(SetForm::Array),
            ..none
        },
        TypePolicies {
            binary_form: Some(BinaryForm::Hex),
            ..none
        },
        TypePolicies {
            binary_form: Some(BinaryForm::Base64),
            ..none
        },
        TypePolicies {
            json_form: Some(JsonForm::Json),
            ..none
        },
        TypePolicies {
            decimal_form: Some(DecimalForm::String),
            ..none
        },
    ]
}

#[test]
fn each_choice_changes_the_columns_that_it_concerns_and_is_refused_on_others() {
    for policies in choices() {
        let mut concerned = 0;
        for (column, with_labels) in kinds() {
            let none = TypePolicies::default();
            let plain = planned(&column, with_labels, None, none, false).expect("a default");
            let by_pipe = planned(&column, with_labels, None, policies, false).expect("a type");
            let by_column = planned(&column, with_labels, own(policies), none, false);
            if by_pipe == plain {
                let error = by_column.expect_err("an own choice without effect");
                assert!(
                    error.message().contains("`c`") && error.hint().is_some(),
                    "{error}"
                );
            } else {
                concerned += 1;
                assert_eq!(by_column.expect("an own choice"), by_pipe, "{policies:?}");
            }
        }
        assert_eq!(concerned, 1, "{policies:?}");
    }
}

/// Pitfalls 14 and 16.
#[test]
fn an_empty_label_is_refused_by_forms_that_cannot_tell_it_from_none() {
    let declared = vec![String::new(), "a".to_owned()];
    let none = TypePolicies::default();
    for (column, policies, remedy) in [
        (
            column(ColumnType::Text, "set('','a')"),
            TypePolicies {
                set_form: Some(SetForm::Array),
                ..none
            },
            "set: string",
        ),
        (
            column(ColumnType::Label, "enum('','a')"),
            TypePolicies {
                enum_form: Some(EnumForm::Integer),
                ..none
            },
            "enum: label",
        ),
    ] {
        let mut wish = Wish {
            column: &column,
            own: None,
            pipe: policies,
            labels: Some(&declared),
            in_key: false,
            time64: true,
        };
        let error = mapped(&wish).expect_err("an empty label");
        assert!(error.message().contains("`c`"), "{error}");
        assert!(
            error.hint().is_some_and(|hint| hint.contains(remedy)),
            "{error}"
        );
        wish.labels = Some(&declared[1..]);
        mapped(&wish).expect("labels that are told apart");
    }
}

#[test]
fn a_columns_own_choice_wins_over_the_pipes() {
    let column = column(ColumnType::Bytes, "blob");
    let pipe = TypePolicies {
        binary_form: Some(BinaryForm::Hex),
        ..TypePolicies::default()
    };
    let raw = TypePolicies {
        binary_form: Some(BinaryForm::Raw),
        ..TypePolicies::default()
    };
    let mapped = planned(&column, false, own(raw), pipe, false).expect("a type");
    assert_eq!(mapped.conversion, Conversion::None);
    let chosen = Some(ColumnConfig::of_type("LowCardinality(String)"));
    let mapped = planned(&column, false, chosen, pipe, false).expect("a type");
    assert_eq!(mapped.conversion, Conversion::None);
}

#[test]
fn a_longtext_is_json_where_the_column_itself_says_so() {
    // MariaDB's JSON is a LONGTEXT with a check.
    let column = column(ColumnType::Text, "longtext");
    let json = TypePolicies {
        json_form: Some(JsonForm::Json),
        ..TypePolicies::default()
    };
    let none = TypePolicies::default();
    let by_pipe = planned(&column, false, None, json, false).expect("a text");
    assert_eq!(by_pipe.sql(false), "String");
    let by_column = planned(&column, false, own(json), none, false).expect("JSON");
    assert_eq!(by_column.sql(false), "JSON");
}

#[test]
fn the_forms_have_the_types_that_clickhouse_prints() {
    let all = TypePolicies {
        zero_dates: None,
        date_range: None,
        tinyint1: Some(Tinyint1::Bool),
        enum_form: Some(EnumForm::Enum16),
        set_form: Some(SetForm::Array),
        binary_form: Some(BinaryForm::Base64),
        json_form: Some(JsonForm::Json),
        decimal_form: Some(DecimalForm::String),
        geometry_form: None,
    };
    let types: Vec<String> = kinds()
        .iter()
        .map(|(column, with_labels)| {
            let mapped = planned(column, *with_labels, None, all, false).expect("a type");
            mapped.sql(mapped.takes_null)
        })
        .collect();
    assert_eq!(
        types,
        [
            "Nullable(Date32)",
            "Nullable(DateTime64(6, 'UTC'))",
            "Nullable(Bool)",
            "Nullable(Enum16('' = 0, 'a' = 1, 'b' = 2))",
            "Array(String)",
            "Nullable(String)",
            "Nullable(JSON)",
            "Nullable(String)",
        ]
    );
}

#[test]
fn what_could_make_two_keys_one_is_refused_with_its_remedy() {
    let none = TypePolicies::default();
    let date = column(ColumnType::Date, "date");
    let timestamp = column(ColumnType::Timestamp { digits: 0 }, "timestamp");
    let tiny = column(ColumnType::Int8, "tinyint(1)");
    let epoch = TypePolicies {
        zero_dates: Some(ZeroDates::Epoch),
        ..none
    };
    let as_null = TypePolicies {
        date_range: Some(DateRange::Null),
        ..none
    };
    let bools = TypePolicies {
        tinyint1: Some(Tinyint1::Bool),
        ..none
    };
    for (column, pipe, remedy) in [
        (&date, epoch, "date_range: string"),
        (&timestamp, epoch, "zero_dates: null"),
        (&date, as_null, "date_range: string"),
        (&tiny, bools, "tinyint1: int8"),
    ] {
        let error = planned(column, false, None, pipe, true).expect_err(remedy);
        assert!(error.message().contains("`c`"), "{error}");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains(remedy), "{hint}");
        assert!(planned(column, false, None, pipe, false).is_ok(), "no key");
    }
    let clamp = TypePolicies {
        date_range: Some(DateRange::Clamp),
        ..none
    };
    assert!(planned(&date, false, own(clamp), none, true).is_err());
    assert!(
        planned(&date, false, None, none, true).is_ok(),
        "the default"
    );
}

#[test]
fn an_enum_with_more_labels_than_an_enum16_has_numbers_is_refused() {
    let labels: Vec<String> = (0..=ENUM16_MAX).map(|n| n.to_string()).collect();
    let column = column(ColumnType::Label, "enum('0')");
    let wish = |enum_form| Wish {
        column: &column,
        own: None,
        pipe: TypePolicies {
            enum_form: Some(enum_form),
            ..TypePolicies::default()
        },
        labels: Some(&labels),
        in_key: false,
        time64: true,
    };
    let error = mapped(&wish(EnumForm::Enum16)).expect_err("one too many");
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("enum: integer"))
    );
    assert!(mapped(&wish(EnumForm::Integer)).is_ok());
}
