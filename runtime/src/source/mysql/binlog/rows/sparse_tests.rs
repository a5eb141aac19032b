use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array};

use super::super::tests::{TERM, map, rows, table};
use super::*;
use crate::batch::{ChangeBatch, Changes};
use crate::source::mysql::binlog::IncompleteRows;

/// A column of an image.
#[derive(Clone, Copy)]
enum Is {
    Absent,
    Null,
    Number(i32),
}

use Is::{Absent as Gone, Null, Number};

type Image = [Is; 2];

fn bits(image: Image, of: impl Fn(Is) -> bool) -> u8 {
    u8::from(of(image[0])) | u8::from(of(image[1])) << 1
}

fn present(image: Image) -> u8 {
    bits(image, |is| !matches!(is, Gone))
}

/// A row event body of version 2: twelve bytes and a bitmap or two before the first image.
fn body(images: &[&[Image]]) -> Vec<u8> {
    let mut body = vec![1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 2];
    body.extend(images[0].iter().map(|image| present(*image)));
    for image in images.iter().copied().flatten() {
        let held: Vec<Is> = image
            .iter()
            .copied()
            .filter(|is| !matches!(is, Gone))
            .collect();
        let nulls = held
            .iter()
            .enumerate()
            .map(|(index, is)| u8::from(matches!(is, Null)) << index);
        // Without a column there is no bitmap either.
        if !held.is_empty() {
            body.push(nulls.sum());
        }
        for is in held {
            if let Number(number) = is {
                body.extend(number.to_le_bytes());
            }
        }
    }
    body
}

fn push(
    builder: &mut ChangeBuilder,
    kind: RowKind,
    offset: u64,
    images: &[&[Image]],
) -> Result<Counts> {
    let body = body(images);
    let event = RowEvent {
        table: Arc::new(map()),
        kind,
        extra_data: true,
        partial: false,
        body: &body,
        offset,
        undone: false,
    };
    builder.push_event(&event, TERM)
}

fn update(builder: &mut ChangeBuilder, offset: u64, before: Image, after: Image) {
    push(builder, RowKind::Update, offset, &[&[before, after]]).unwrap();
}

fn builder() -> ChangeBuilder {
    ChangeBuilder::new(table(), vec![0], false)
        .unwrap()
        .completing(false)
        .unwrap()
}

/// Versions without their term, and `(id, place)` of each row.
fn shown(batch: Option<ChangeBatch>) -> Vec<(Op, u64, i32, Option<i32>)> {
    let Some(batch) = batch else {
        return Vec::new();
    };
    let Changes::Stream { ops, versions } = &batch.changes else {
        panic!("no stream changes");
    };
    let column =
        |index: usize| -> &Int32Array { batch.columns[index].as_any().downcast_ref().unwrap() };
    (0..batch.row_count)
        .map(|row| {
            let place = column(1);
            (
                ops[row],
                versions[row] - (u64::from(TERM) << 48),
                column(0).value(row),
                place.is_valid(row).then(|| place.value(row)),
            )
        })
        .collect()
}

fn answer(rows: &[(i32, Option<i32>)]) -> Vec<ArrayRef> {
    vec![
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(rows.iter().map(|row| row.1).collect::<Int32Array>()),
    ]
}

fn incomplete(builder: &mut ChangeBuilder) -> IncompleteRows {
    builder.take_incomplete().expect("rows to be read")
}

#[test]
fn an_update_whose_images_together_hold_the_row_needs_no_reading() {
    let mut builder = builder();
    update(&mut builder, 1000, [Number(1), Gone], [Gone, Null]);
    update(
        &mut builder,
        2000,
        [Number(2), Number(7)],
        [Number(3), Gone],
    );
    assert_eq!(
        rows(&mut builder),
        [
            // NULL on purpose.
            (Op::Update, 1018, 1, None),
            // The before image has what the after image leaves out, and the key changed.
            (Op::Delete, 2013, 2, Some(7)),
            (Op::Insert, 2022, 3, Some(7)),
        ]
    );
    assert!(builder.take_incomplete().is_none());
}

#[test]
fn a_row_that_lacks_a_column_is_read_and_has_its_events_version() {
    let mut builder = builder();
    push(&mut builder, RowKind::Insert, 1000, &[&[[Number(1), Gone]]]).unwrap();
    update(&mut builder, 2000, [Number(2), Gone], [Gone, Gone]);
    update(&mut builder, 3000, [Number(-3), Gone], [Gone, Gone]);
    assert!(builder.finish().is_none());
    let mut rows = incomplete(&mut builder);
    assert_eq!(rows.conditions(), ["`id` IN (1, 2, -3)"]);
    // The answer's order is its own, and it may hold rows that nobody asked for.
    let found = rows
        .found(&answer(&[(2, None), (9, Some(9)), (1, Some(4))]))
        .unwrap();
    assert_eq!(
        shown(found),
        [(Op::Update, 1012, 1, Some(4)), (Op::Update, 2018, 2, None)]
    );
    assert_eq!(shown(rows.gone().unwrap()), [(Op::Delete, 3018, -3, None)]);
    assert!(builder.take_incomplete().is_none());
}

#[test]
fn of_several_events_of_a_key_the_last_is_read_and_a_delete_settles_it() {
    let mut builder = builder();
    for offset in [1000, 2000, 3000] {
        update(&mut builder, offset, [Number(1), Gone], [Gone, Gone]);
    }
    update(&mut builder, 4000, [Number(2), Gone], [Gone, Gone]);
    push(&mut builder, RowKind::Delete, 5000, &[&[[Number(2), Gone]]]).unwrap();
    // It comes back, and needs reading again.
    update(&mut builder, 6000, [Number(3), Gone], [Gone, Gone]);
    push(&mut builder, RowKind::Delete, 7000, &[&[[Number(3), Gone]]]).unwrap();
    push(&mut builder, RowKind::Insert, 8000, &[&[[Number(3), Gone]]]).unwrap();
    assert_eq!(
        rows(&mut builder),
        [(Op::Delete, 5012, 2, None), (Op::Delete, 7012, 3, None)]
    );
    let mut rows = incomplete(&mut builder);
    assert_eq!(rows.conditions(), ["`id` IN (1, 3)"]);
    let found = rows
        .found(&answer(&[(1, None), (2, None), (3, None)]))
        .unwrap();
    assert_eq!(
        shown(found),
        [(Op::Update, 3018, 1, None), (Op::Update, 8012, 3, None)]
    );
    // A row twice in the answers of two statements is written once.
    assert!(rows.found(&answer(&[(1, None)])).unwrap().is_none());
    assert!(rows.gone().unwrap().is_none());
}

#[test]
fn a_key_change_leaves_a_tombstone_of_the_key_and_the_new_row_is_read() {
    let mut builder = builder();
    update(&mut builder, 1000, [Number(1), Gone], [Number(2), Gone]);
    assert_eq!(rows(&mut builder), [(Op::Delete, 1013, 1, None)]);
    let mut rows = incomplete(&mut builder);
    assert_eq!(rows.conditions(), ["`id` IN (2)"]);
    let found = rows.found(&answer(&[(2, Some(5))])).unwrap();
    assert_eq!(shown(found), [(Op::Update, 1018, 2, Some(5))]);
}

#[test]
fn a_column_is_refused_by_its_name_where_the_image_may_not_lack_it() {
    let error = push(&mut builder(), RowKind::Delete, 1, &[&[[Gone, Number(1)]]]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceSetting);
    assert!(error.message().contains("`id`"), "{error}");
    // Whole images are demanded.
    let mut strict = ChangeBuilder::new(table(), vec![0], false).unwrap();
    let error = push(
        &mut strict,
        RowKind::Update,
        1,
        &[&[[Number(1), Gone], [Gone, Null]]],
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceSetting);
    assert!(error.message().contains("leaves out"), "{error}");
}

#[test]
fn keys_are_asked_for_in_statements_of_bounded_size() {
    let mut builder = builder();
    for id in 0..1200 {
        update(&mut builder, 1000, [Number(id), Gone], [Gone, Gone]);
    }
    assert!(builder.byte_count() > 1200 * 4);
    let rows = incomplete(&mut builder);
    let conditions = rows.conditions();
    assert_eq!(conditions.len(), 3);
    assert!(conditions[2].ends_with("1198, 1199)"));
}

#[test]
fn an_event_cut_anywhere_is_refused() {
    let images: [&[Image]; 2] = [
        &[[Number(1), Gone], [Gone, Null]],
        &[[Number(2), Gone], [Gone, Number(3)]],
    ];
    let whole = body(&images);
    let rows = [13, 13 + 5 + 1];
    for length in 0..whole.len() {
        let event = RowEvent {
            table: Arc::new(map()),
            kind: RowKind::Update,
            extra_data: true,
            partial: false,
            body: &whole[..length],
            offset: 1,
            undone: false,
        };
        let result = builder().push_event(&event, TERM);
        assert_eq!(result.is_ok(), rows.contains(&length), "cut at {length}");
    }
}
