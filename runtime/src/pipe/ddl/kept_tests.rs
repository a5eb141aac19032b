//! Which new definitions leave values alone.

use super::*;

fn column(
    data_type: &str,
    length: Option<u64>,
    edit: impl FnOnce(&mut SourceColumn),
) -> SourceColumn {
    let text = data_type.ends_with("text") || data_type.ends_with("char");
    let mut column = SourceColumn {
        charset: text.then(|| "utf8mb4".to_owned()),
        length,
        ..SourceColumn::sample(data_type)
    };
    edit(&mut column);
    column
}

const STRICT: Mode = Mode {
    strict: true,
    pads: false,
};

const LOOSE: Mode = Mode {
    strict: false,
    pads: false,
};

/// pitfall 106: the server rewrites rows without a row event.
#[test]
fn wider_definitions_keep_values_and_others_may_not() {
    let latin = |column: &mut SourceColumn| column.charset = Some("latin1".to_owned());
    let labels = |labels: &[&str]| {
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        column("enum", None, |column| column.labels = labels)
    };
    let decimal = |precision, scale| {
        column("decimal", None, |column| {
            (column.precision, column.scale) = (Some(precision), Some(scale));
        })
    };
    let unsigned = |kind: &str| column(kind, None, |column| column.unsigned = true);
    let plain = |kind: &str| column(kind, None, |_| {});
    let sized = |kind: &str, length| column(kind, Some(length), |_| {});
    for (before, after, expected) in [
        (plain("int"), plain("bigint"), true),
        (plain("bigint"), plain("int"), false),
        (unsigned("int"), plain("bigint"), true),
        (unsigned("bigint"), plain("bigint"), false),
        (plain("int"), unsigned("bigint"), false),
        (decimal(10, 2), decimal(12, 4), true),
        (decimal(10, 2), decimal(11, 4), false),
        (sized("varchar", 10), sized("varchar", 20), true),
        (sized("varchar", 20), sized("varchar", 10), false),
        (sized("varchar", 10), sized("char", 20), false),
        (sized("char", 10), sized("varchar", 10), true),
        (sized("varchar", 300), sized("text", 65_535), true),
        (sized("varchar", 300), sized("tinytext", 255), false),
        (
            column("varchar", Some(10), latin),
            sized("varchar", 10),
            true,
        ),
        (
            sized("varchar", 10),
            column("varchar", Some(10), latin),
            false,
        ),
        (sized("text", 65_535), plain("blob"), false),
        (plain("blob"), plain("longblob"), true),
        (sized("binary", 4), sized("binary", 8), false),
        (sized("varbinary", 4), sized("varbinary", 8), true),
        (labels(&["a", "b"]), labels(&["a", "b", "c"]), true),
        (labels(&["a", "b"]), labels(&["b", "a"]), false),
        (plain("int"), sized("varchar", 20), false),
        (plain("date"), plain("datetime"), false),
        (plain("float"), plain("double"), true),
        (
            plain("float"),
            column("double", None, |column| column.scale = Some(2)),
            false,
        ),
    ] {
        let (from, to) = (&before.data_type, &after.data_type);
        assert_eq!(
            keeps_values(&before, &after, STRICT),
            expected,
            "{from} {to}"
        );
    }
    let not_null = column("int", None, |column| column.nullable = false);
    assert!(keeps_values(&plain("int"), &not_null, STRICT));
    assert!(!keeps_values(&plain("int"), &not_null, LOOSE));
    for (charset, loose) in [("cp1250", false), ("latin1", true), ("utf8mb3", true)] {
        let before = column("text", Some(65_535), |column| {
            column.charset = Some(charset.to_owned());
        });
        let after = column("longtext", None, |_| {});
        assert!(keeps_values(&before, &after, STRICT), "{charset}");
        assert_eq!(keeps_values(&before, &after, LOOSE), loose, "{charset}");
    }
    let moment = column("timestamp", None, |column| column.nullable = false);
    assert!(!keeps_values(&plain("timestamp"), &moment, STRICT));
    let padded = Mode {
        pads: true,
        ..STRICT
    };
    let (from, to) = (sized("char", 10), sized("varchar", 10));
    assert!(!keeps_values(&from, &to, padded) && keeps_values(&from, &from, padded));
    let counts = column("int", None, |column| {
        column.default = ColumnDefault::Counted
    });
    assert!(!keeps_values(&plain("int"), &counts, STRICT));
    assert!(keeps_values(&counts, &counts, STRICT) && keeps_values(&counts, &plain("int"), STRICT));
    let generated = column("int", None, |column| column.generated = true);
    assert!(!keeps_values(&generated, &generated, STRICT));
}

/// pitfall 42, pitfall 43: what earlier rows have without a row event.
#[test]
fn only_what_the_destination_shows_by_itself_is_a_fill() {
    let with = |kind: &str, nullable, default| {
        column(kind, None, |column| {
            (column.nullable, column.default) = (nullable, default)
        })
    };
    let literal = |text: &str| ColumnDefault::Literal(text.to_owned());
    for (column, expected) in [
        (with("json", true, ColumnDefault::None), Some(None)),
        (with("json", false, ColumnDefault::None), None),
        (with("date", false, ColumnDefault::None), None),
        (with("binary", false, ColumnDefault::None), None),
        (with("int", false, ColumnDefault::None), Some(None)),
        (with("int", false, literal("5")), Some(Some("5"))),
        (with("float", false, literal("0")), Some(Some("0"))),
        (with("float", false, literal("16777200")), None),
        (
            with("double", false, literal("16777216")),
            Some(Some("16777216")),
        ),
        (with("bit", false, literal("b'1'")), None),
        (
            with("timestamp", true, literal("2024-01-01 00:00:00")),
            None,
        ),
        (
            with("date", true, literal("2024-01-01")),
            Some(Some("2024-01-01")),
        ),
        (with("date", true, literal("2024-00-01")), None),
        (with("varchar", true, ColumnDefault::Computed), None),
    ] {
        assert_eq!(
            fill(&column, true),
            expected,
            "{} {:?}",
            column.data_type,
            column.default
        );
    }
}
