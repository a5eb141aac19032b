use arrow::array::{
    AsArray, BinaryArray, Date32Array, FixedSizeBinaryArray, Float32Array, Int64Array, UInt32Array,
};
use arrow::datatypes::Date32Type;
use arrow::ipc::reader::StreamReader;

use super::super::convert::DATE32;
use super::super::target::tests::{config, schema, table};
use super::*;
use crate::batch::Number;

fn target(nullable: bool) -> TargetTable {
    let mut config = config();
    config.nullable = nullable;
    TargetTable::plan(&config, &table(), &schema()).expect("a plan")
}

fn batch(days: &[Option<i32>], changes: Changes) -> ChangeBatch {
    let rows = days.len();
    ChangeBatch {
        schema: Arc::new(schema()),
        columns: vec![
            Arc::new(Int64Array::from_iter_values(0..rows as i64)),
            Arc::new(UInt32Array::from(vec![7; rows])),
            Arc::new(BinaryArray::from_iter(
                (0..rows).map(|row| (row > 0).then_some(b"x")),
            )),
            Arc::new(Date32Array::from(days.to_vec())),
        ],
        row_count: rows,
        changes,
    }
}

fn stream(ops: &[Op]) -> Changes {
    Changes::Stream {
        ops: ops.to_vec(),
        versions: (0..ops.len() as u64).map(|offset| 10 + offset).collect(),
    }
}

fn read(prepared: Prepared, compress: bool) -> Vec<RecordBatch> {
    let bytes = prepared.into_stream(compress).expect("encodes").concat();
    let reader = StreamReader::try_new(bytes.as_slice(), None).expect("a stream");
    reader.map(|batch| batch.expect("a batch")).collect()
}

fn column_names(batch: &RecordBatch) -> Vec<String> {
    batch
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect()
}

#[test]
fn versions_and_tombstones_stand_beside_the_rows() {
    let ops = [Op::Insert, Op::Update, Op::Delete];
    let prepared = prepare(
        &target(true),
        &[batch(&[Some(0), None, Some(1)], stream(&ops))],
    )
    .expect("prepares");
    for compress in [false, true] {
        let again = prepare(
            &target(true),
            &[batch(&[Some(0), None, Some(1)], stream(&ops))],
        )
        .expect("prepares");
        let read = read(again, compress);
        assert_eq!(read.len(), 1);
        assert_eq!(
            column_names(&read[0]),
            ["id", "tenant", "note", "born", "_version", "_is_deleted"]
        );
        let versions = read[0]
            .column(4)
            .as_primitive::<arrow::datatypes::UInt64Type>();
        assert_eq!(versions.values().to_vec(), [10, 11, 12]);
        let deleted = read[0]
            .column(5)
            .as_primitive::<arrow::datatypes::UInt8Type>();
        assert_eq!(deleted.values().to_vec(), [0, 0, 1]);
        assert_eq!(read[0].column(2).null_count(), 1);
    }
    assert_eq!(prepared.row_count, 3);
    assert_eq!(prepared.adjustments, [[]]);
}

#[test]
fn a_load_leaves_our_columns_to_their_defaults() {
    let prepared = prepare(&target(true), &[batch(&[None], Changes::Load)]).expect("prepares");
    assert!(!prepared.with_system);
    assert_eq!(
        column_names(&read(prepared, false)[0]),
        ["id", "tenant", "note", "born"]
    );
}

#[test]
fn a_load_beside_a_stream_says_version_0() {
    let batches = [
        batch(&[None], Changes::Load),
        batch(&[None], stream(&[Op::Delete])),
    ];
    let read = read(prepare(&target(true), &batches).expect("prepares"), false);
    let versions: Vec<u64> = read
        .iter()
        .map(|batch| {
            batch
                .column(4)
                .as_primitive::<arrow::datatypes::UInt64Type>()
                .value(0)
        })
        .collect();
    assert_eq!(versions, [0, 10]);
}

#[test]
fn dates_outside_of_date32_are_clamped_and_counted() {
    let days = [Some(DATE32.0 - 1), Some(DATE32.1 + 1), None, Some(0)];
    let batches = [batch(&days, Changes::Load), batch(&days, Changes::Load)];
    let prepared = prepare(&target(true), &batches).expect("prepares");
    assert_eq!(
        prepared.adjustments,
        [(); 2].map(|()| [Adjustment {
            column: "born".to_owned(),
            policy: Policy::DateRange,
            values: 2
        }])
    );
    let read = read(prepared, false);
    let born: Vec<Option<i32>> = read[0]
        .column(3)
        .as_primitive::<Date32Type>()
        .iter()
        .collect();
    assert_eq!(born, [Some(DATE32.0), Some(DATE32.1), None, Some(0)]);
}

#[test]
fn null_becomes_the_default_where_the_target_takes_none() {
    let prepared =
        prepare(&target(false), &[batch(&[None, Some(5)], Changes::Load)]).expect("prepares");
    let policies: Vec<Policy> = prepared.adjustments[0]
        .iter()
        .map(|one| one.policy)
        .collect();
    assert_eq!(policies, [Policy::NullAsDefault; 2]);
    let read = read(prepared, false);
    assert_eq!(read[0].column(3).null_count(), 0);
    assert_eq!(
        read[0]
            .column(3)
            .as_primitive::<Date32Type>()
            .values()
            .to_vec(),
        [0, 5]
    );
    assert_eq!(read[0].column(2).as_binary::<i32>().value(0), b"");
    assert_eq!(read[0].column(2).as_binary::<i32>().value(1), b"x");
}

#[test]
fn every_type_has_a_default() {
    for column_type in [
        ColumnType::Int8,
        ColumnType::UInt64,
        ColumnType::Float32,
        ColumnType::Decimal {
            precision: 15,
            scale: 2,
        },
        ColumnType::Decimal {
            precision: 65,
            scale: 30,
        },
        ColumnType::Date,
        ColumnType::Timestamp { digits: 6 },
        ColumnType::Time { digits: 6 },
        ColumnType::Json,
    ] {
        let array = default_value(Conversion::None, &column_type.arrow()).expect("a default");
        assert_eq!((array.len(), array.null_count()), (1, 0), "{column_type:?}");
    }
}

#[test]
fn a_key_that_a_policy_would_change_is_refused() {
    let mut schema = schema();
    schema.columns[3].nullable = false;
    schema.key = vec![3];
    let target = TargetTable::plan(&config(), &table(), &schema).expect("a plan");
    for day in [Some(DATE32.1 + 1), None] {
        let mut batch = batch(&[day], Changes::Load);
        batch.schema = Arc::new(schema.clone());
        let error = prepare(&target, &[batch]).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("`born`") && error.hint().is_some());
    }
}

#[test]
fn a_null_that_the_source_forbids_is_an_error_and_not_a_default() {
    let mut schema = schema();
    schema.columns[2].nullable = false;
    let target = TargetTable::plan(&config(), &table(), &schema).expect("a plan");
    let error = prepare(&target, &[batch(&[None], Changes::Load)]).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::SchemaConflict);
}

#[test]
fn a_batch_of_another_shape_is_never_sent() {
    let mut wrong = batch(&[None], Changes::Load);
    wrong.columns.swap(0, 1);
    assert_eq!(
        prepare(&target(true), &[wrong])
            .expect_err("refused")
            .kind(),
        ErrorKind::Internal
    );
    let mut renamed = batch(&[None], Changes::Load);
    let mut schema = schema();
    schema.columns[1].name = "Tenant".to_owned();
    renamed.schema = Arc::new(schema);
    assert!(prepare(&target(true), &[renamed]).is_err());
    let short = batch(&[None, None], stream(&[Op::Insert]));
    assert!(prepare(&target(true), &[short]).is_err());
}

#[test]
fn large_buffers_are_cut_and_small_ones_gathered() {
    let mut pieces = Pieces::default();
    pieces.extend(vec![
        Buffer::from(vec![1_u8; 10]),
        Buffer::from(vec![2_u8; 10]),
        Buffer::from(vec![3_u8; 2 * CHUNK_BYTES + 5]),
        Buffer::from(vec![4_u8; 3]),
    ]);
    let lengths: Vec<usize> = pieces.finish().iter().map(Bytes::len).collect();
    assert_eq!(lengths, [20, CHUNK_BYTES, CHUNK_BYTES, 5, 3]);
}

#[test]
fn a_null_vector_is_an_empty_array_and_other_new_types_keep_null() {
    let column = |name: &str, column_type| crate::batch::Column {
        name: name.to_owned(),
        column_type,
        nullable: name != "id",
        source_type: String::new(),
    };
    let mut schema = schema();
    schema.columns = vec![
        column("id", ColumnType::Uuid),
        column("vector", ColumnType::Vector),
        column("address", ColumnType::Inet6),
    ];
    let floats = Float32Array::from(vec![1.0, 2.0]);
    let vectors = ListArray::new(
        Number::Float32.list_field(),
        OffsetBuffer::from_lengths([2, 0]),
        Arc::new(floats),
        Some(vec![true, false].into()),
    );
    let sixteen = |values: [Option<[u8; 16]>; 2]| {
        FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 16)
            .expect("sixteen")
    };
    let batch = ChangeBatch {
        columns: vec![
            Arc::new(sixteen([Some([1; 16]), Some([2; 16])])),
            Arc::new(vectors),
            Arc::new(sixteen([None, Some([3; 16])])),
        ],
        schema: Arc::new(schema.clone()),
        row_count: 2,
        changes: Changes::Load,
    };
    let target = TargetTable::plan(&config(), &table(), &schema).expect("a plan");
    let prepared = prepare(&target, std::slice::from_ref(&batch)).expect("prepares");
    let adjustments = &prepared.adjustments[0];
    assert_eq!(adjustments.len(), 1);
    assert_eq!(adjustments[0].column, "vector");
    assert_eq!(adjustments[0].policy, Policy::NullAsDefault);
    assert_eq!(adjustments[0].values, 1);
    let read = read(prepared, false);
    assert_eq!(read[0].column(1).null_count(), 0);
    assert_eq!(read[0].column(1).as_list::<i32>().value_length(1), 0);
    assert_eq!(read[0].column(2).null_count(), 1);
    // Without `nullable` the address becomes the type's default as well.
    let mut config = config();
    config.nullable = false;
    let target = TargetTable::plan(&config, &table(), &schema).expect("a plan");
    let prepared = prepare(&target, &[batch]).expect("prepares");
    let filled = prepared.batches[0].column(2);
    assert_eq!(filled.as_fixed_size_binary().value(0), [0; 16]);
}
