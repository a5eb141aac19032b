use super::*;
use crate::batch::{TableName, TableSchema};
use crate::transform::binding::Write;
use crate::transform::target::Origin;
use crate::transform::version::GuestRejection;

/// The writes of [`binding`], by their numbers.
const NAME: u32 = 0;
const PRICE: u32 = 1;
const MUST: u32 = 2;
const FLAG: u32 = 3;
const POINTS: u32 = 4;

/// Rows of every call here.
const ROWS: usize = 3;

fn column(name: &str, column_type: ColumnType, nullable: bool) -> Column {
    Column {
        name: name.to_owned(),
        column_type,
        nullable,
        source_type: String::new(),
    }
}

fn schema(columns: Vec<Column>) -> Arc<TableSchema> {
    Arc::new(TableSchema {
        name: TableName::new("shop", "t"),
        columns,
        key: vec![0],
    })
}

/// A plugin that replaces `name` and adds four columns, of which one may not be NULL.
fn binding() -> Binding {
    let (id, name) = (
        column("id", ColumnType::Int64, false),
        column("name", ColumnType::Text, true),
    );
    let price = ColumnType::Decimal {
        precision: 3,
        scale: 2,
    };
    let output = vec![
        id.clone(),
        name.clone(),
        column("price", price, true),
        column("must", ColumnType::Int32, false),
        column("flag", ColumnType::Bool, true),
        column("points", ColumnType::List(Number::Float64), true),
    ];
    let kinds = [WriteKind::Replaced].into_iter();
    let kinds = kinds.chain([WriteKind::Added; 4]);
    Binding {
        input: schema(vec![id, name]),
        output: schema(output),
        reads: vec![1],
        may_drop: true,
        writes: (1..).zip(kinds).map(write).collect(),
        targets: Vec::new(),
    }
}

fn write((place, kind): (usize, WriteKind)) -> Write {
    Write { place, kind }
}

/// A plugin whose rows go to a target with the table's key and a text of its own.
fn routing() -> Binding {
    let columns = vec![
        column("id", ColumnType::Int64, false),
        column("label", ColumnType::Text, true),
    ];
    Binding {
        may_drop: false,
        writes: Vec::new(),
        targets: vec![Target {
            name: Some("labels".to_owned()),
            schema: schema(columns),
            columns: vec![Origin::Passed(0), Origin::Made],
        }],
        ..binding()
    }
}

fn offsets(offsets: &[i32]) -> Option<Vec<u8>> {
    let bytes = offsets.iter().flat_map(|offset| offset.to_le_bytes());
    Some(bytes.collect())
}

fn text(ends: &[i32], values: &[u8]) -> GuestColumn {
    GuestColumn {
        offsets: offsets(ends),
        values: values.to_vec(),
        ..GuestColumn::default()
    }
}

fn sound_text() -> GuestColumn {
    text(&[0, 1, 3, 3], "aä".as_bytes())
}

/// `bytes` bytes of 0, which is a value of each type that has a width.
fn zeros(bytes: usize) -> GuestColumn {
    GuestColumn {
        values: vec![0; bytes],
        ..GuestColumn::default()
    }
}

fn sound_list() -> GuestColumn {
    GuestColumn {
        offsets: offsets(&[0, 1, 1, 2]),
        ..zeros(16)
    }
}

fn rows(columns: Vec<(u32, GuestColumn)>) -> GuestVerdict {
    GuestVerdict::Rows {
        keep: None,
        columns,
    }
}

/// With `must`, which is needed, and one column more.
fn with(number: u32, column: GuestColumn) -> GuestVerdict {
    rows(vec![(MUST, zeros(12)), (number, column)])
}

fn must(column: GuestColumn) -> GuestVerdict {
    rows(vec![(MUST, column)])
}

fn to_labels(parents: Vec<u32>, columns: Vec<GuestColumn>) -> GuestOutput {
    GuestOutput {
        target: 0,
        parents,
        columns,
    }
}

fn checked(binding: &Binding, verdict: GuestVerdict) -> Result<Answer, Breach> {
    let rejected = Vec::new();
    check(binding, ROWS, GuestOutcome { verdict, rejected })
}

fn assert_lies(binding: &Binding, lies: Vec<(GuestVerdict, ErrorKind, &str)>) {
    for (verdict, kind, what) in lies {
        match checked(binding, verdict) {
            Ok(_) => panic!("believed: {what}"),
            Err(breach) => assert_eq!((breach.kind, breach.what.as_str()), (kind, what)),
        }
    }
}

#[test]
fn a_column_that_is_none_of_its_type_is_told_by_its_name_and_fault() {
    let of = |number, column: GuestColumn| with(number, column);
    let lies = vec![
        (
            must(zeros(11)),
            ErrorKind::PluginRowCount,
            "answered column `must` with 11 bytes for 3 rows, which have 12",
        ),
        (
            of(FLAG, zeros(3)),
            ErrorKind::PluginRowCount,
            "answered column `flag` with 3 bytes for 3 rows, which have 1",
        ),
        (
            must(GuestColumn {
                validity: Some(vec![255; 2]),
                ..zeros(12)
            }),
            ErrorKind::PluginRowCount,
            "answered column `must` with 2 bytes of validity for 3 rows",
        ),
        (
            must(GuestColumn {
                validity: Some(vec![0b101]),
                ..zeros(12)
            }),
            ErrorKind::PluginSchema,
            "answered column `must` with NULL, though it is declared not null",
        ),
        (
            must(GuestColumn {
                offsets: offsets(&[0, 4, 8, 12]),
                ..zeros(12)
            }),
            ErrorKind::PluginSchema,
            "answered column `must` with offsets, which its type does not have",
        ),
        (
            must(GuestColumn {
                absent: true,
                ..zeros(12)
            }),
            ErrorKind::PluginSchema,
            "answered column `must` with buffers that its type does not have",
        ),
        (
            must(GuestColumn {
                child_offsets: true,
                ..zeros(12)
            }),
            ErrorKind::PluginSchema,
            "answered column `must` with buffers that its type does not have",
        ),
        (
            must(GuestColumn {
                child_validity: Some(vec![7]),
                ..zeros(12)
            }),
            ErrorKind::PluginSchema,
            "answered column `must` with buffers that its type does not have",
        ),
        (
            of(
                PRICE,
                GuestColumn {
                    values: [0_i128, 999, 1000].map(i128::to_le_bytes).concat(),
                    ..GuestColumn::default()
                },
            ),
            ErrorKind::PluginOutput,
            "answered column `price` with a decimal of more digits than declared",
        ),
    ];
    assert_lies(&binding(), lies);
}

#[test]
fn text_and_lists_are_believed_no_offset_and_no_byte() {
    let list = |column: GuestColumn| with(POINTS, column);
    let name = |ends: &[i32], values: &[u8]| with(NAME, text(ends, values));
    let (count, schema, output) = (
        ErrorKind::PluginRowCount,
        ErrorKind::PluginSchema,
        ErrorKind::PluginOutput,
    );
    let no_rise = "answered column `name` with offsets that do not rise from 0";
    let not_utf8 = "answered column `name` with text that is not UTF-8";
    let lies = vec![
        (
            with(NAME, zeros(3)),
            schema,
            "answered column `name` without offsets",
        ),
        (
            name(&[0, 1, 3], b"abc"),
            count,
            "answered column `name` with 3 offsets for 3 rows",
        ),
        (name(&[1, 1, 3, 3], b"abc"), output, no_rise),
        (name(&[0, 3, 1, 3], b"abc"), output, no_rise),
        (name(&[0, -1, 3, 3], b"abc"), output, no_rise),
        (
            name(&[0, 1, 3, 9], b"abc"),
            output,
            "answered column `name` with offsets up to 9 for 3 bytes",
        ),
        (
            name(&[0, 1, 2, 2], b"abc"),
            output,
            "answered column `name` with offsets up to 2 for 3 bytes",
        ),
        (name(&[0, 1, 2, 3], b"a\xffb"), output, not_utf8),
        (name(&[0, 1, 2, 3], "aä".as_bytes()), output, not_utf8),
        (
            list(zeros(16)),
            schema,
            "answered column `points` without offsets",
        ),
        (
            list(GuestColumn {
                offsets: offsets(&[0, 1, 1, 2]),
                ..zeros(15)
            }),
            schema,
            "answered column `points` with a part of a list's element",
        ),
        (
            list(GuestColumn {
                child_validity: Some(vec![0b01]),
                ..sound_list()
            }),
            schema,
            "answered column `points` with NULL in a list, of which each element needs a value",
        ),
        (
            list(GuestColumn {
                offsets: offsets(&[0, 1, 1, 3]),
                ..zeros(16)
            }),
            output,
            "answered column `points` with offsets up to 3 for 2 bytes",
        ),
    ];
    assert_lies(&binding(), lies);
}

#[test]
fn an_answer_that_its_shape_does_not_declare_is_refused() {
    let keep = |bytes: Vec<u8>| GuestVerdict::Rows {
        keep: Some(bytes),
        columns: vec![(MUST, zeros(12))],
    };
    let undeclared = "did not answer column `must`, which has no other value";
    let lies = vec![
        (GuestVerdict::Unchanged, ErrorKind::PluginSchema, undeclared),
        (rows(Vec::new()), ErrorKind::PluginSchema, undeclared),
        (
            rows(vec![(9, zeros(12))]),
            ErrorKind::PluginSchema,
            "answered column 9, which its shape does not declare",
        ),
        (
            with(MUST, zeros(12)),
            ErrorKind::PluginSchema,
            "answered column `must` twice",
        ),
        (
            GuestVerdict::Replace(Vec::new()),
            ErrorKind::PluginOutput,
            "answered `replace`, which its shape does not declare",
        ),
        (
            keep(vec![7, 0]),
            ErrorKind::PluginRowCount,
            "answered 2 bytes of selection for 3 rows",
        ),
    ];
    assert_lies(&binding(), lies);
    let all_stay = Binding {
        may_drop: false,
        ..binding()
    };
    let dropped = "dropped rows, though its shape says that all stay";
    assert_lies(
        &all_stay,
        vec![(keep(vec![3]), ErrorKind::PluginRowCount, dropped)],
    );
}

#[test]
fn rows_for_targets_come_from_rows_that_were_given_and_in_their_order() {
    let one = |output: GuestOutput| GuestVerdict::Replace(vec![output]);
    let label = || text(&[0, 1, 1, 1], b"a");
    let lies = vec![
        (
            GuestVerdict::Unchanged,
            ErrorKind::PluginOutput,
            "did not answer `replace`, as its shape declares",
        ),
        (
            rows(Vec::new()),
            ErrorKind::PluginOutput,
            "did not answer `replace`, as its shape declares",
        ),
        (
            one(GuestOutput {
                target: 1,
                ..to_labels(Vec::new(), Vec::new())
            }),
            ErrorKind::PluginSchema,
            "answered target 1, which its shape does not declare",
        ),
        (
            GuestVerdict::Replace(vec![
                to_labels(vec![0, 1, 2], vec![label()]),
                to_labels(vec![0, 1, 2], vec![label()]),
            ]),
            ErrorKind::PluginSchema,
            "answered target 0 twice",
        ),
        (
            one(to_labels(vec![0, 1, 3], vec![label()])),
            ErrorKind::PluginKey,
            "made a row of row 3, and was given 3",
        ),
        (
            one(to_labels(vec![0, 2, 1], vec![label()])),
            ErrorKind::PluginKey,
            "made rows in another order than it was given theirs",
        ),
        (
            one(to_labels(vec![0, 1, 2], Vec::new())),
            ErrorKind::PluginSchema,
            "answered 0 columns for a target of which it makes 1",
        ),
        (
            one(to_labels(vec![0, 1], vec![label()])),
            ErrorKind::PluginRowCount,
            "answered column `label` with 4 offsets for 2 rows",
        ),
    ];
    assert_lies(&routing(), lies);
    let twice = GuestVerdict::Replace(vec![to_labels(
        vec![0, 0, 2],
        vec![text(&[0, 1, 2, 3], b"abc")],
    )]);
    let answer = checked(&routing(), twice).expect("several rows of one");
    assert_eq!(answer.outputs[0].parents, [0, 0, 2]);
}

#[test]
fn what_is_sound_is_believed_and_who_rejects_every_row_answers_nothing_else() {
    let sound = GuestVerdict::Rows {
        // The bits past the last row are nobody's.
        keep: Some(vec![0b1111_1101]),
        columns: vec![
            (NAME, sound_text()),
            (PRICE, zeros(48)),
            (MUST, zeros(12)),
            (FLAG, zeros(1)),
            (POINTS, sound_list()),
        ],
    };
    let answer = checked(&binding(), sound).expect("a sound answer");
    assert_eq!(answer.keep.map(|keep| keep.count_set_bits()), Some(2));
    assert!(answer.columns.iter().all(Option::is_some));
    let rejecting = |rejected: &[u32]| {
        let rejection = |row: &u32| GuestRejection {
            row: *row,
            code: "bad".to_owned(),
            message: String::new(),
        };
        let outcome = GuestOutcome {
            verdict: GuestVerdict::Unchanged,
            rejected: rejected.iter().map(rejection).collect(),
        };
        check(&binding(), ROWS, outcome)
    };
    let bad = rejecting(&[2, 0, 1, 0]).expect("all rows are rejected").bad;
    assert_eq!(bad.iter().map(|bad| bad.row).collect::<Vec<_>>(), [0, 1, 2]);
    for (rejected, kind, what) in [
        (vec![0, 3], ErrorKind::PluginRowCount, "rejected row 3 of 3"),
        (
            vec![0, 1],
            ErrorKind::PluginSchema,
            "did not answer column `must`, which has no other value",
        ),
    ] {
        let breach = rejecting(&rejected).map(drop).expect_err(what);
        assert_eq!((breach.kind, breach.what.as_str()), (kind, what));
    }
}
