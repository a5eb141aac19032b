use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array};
use arrow::datatypes::Int64Type;

use super::super::target::tests::schema;
use super::*;
use crate::batch::{Op, TableSchema};

fn batch(versions: &[u64]) -> ChangeBatch {
    let columns = schema().columns.into_iter().take(1).collect();
    let numbers = Int64Array::from_iter_values(versions.iter().map(|version| *version as i64));
    ChangeBatch {
        schema: Arc::new(TableSchema {
            columns,
            ..schema()
        }),
        columns: vec![Arc::new(numbers)],
        row_count: versions.len(),
        changes: Changes::Stream {
            ops: versions
                .iter()
                .map(|version| [Op::Insert, Op::Update, Op::Delete][*version as usize % 3])
                .collect(),
            versions: versions.to_vec(),
        },
    }
}

/// pitfall 132: what is there is left out, whatever the cut.
#[test]
fn rows_that_the_table_has_are_left_out_of_a_repetition() {
    let rest = without(&batch(&[3, 4, 5, 6, 8]), &BTreeSet::from([1, 4, 6, 7])).expect("filters");
    let numbers = rest.columns[0].as_primitive::<Int64Type>();
    assert_eq!(numbers.values(), &[3, 5, 8]);
    let changes = Changes::Stream {
        ops: vec![Op::Insert, Op::Delete, Op::Delete],
        versions: vec![3, 5, 8],
    };
    assert_eq!((rest.row_count, &rest.changes), (3, &changes));
    let none = without(&rest, &BTreeSet::from([3, 5, 8])).expect("filters");
    assert_eq!((none.row_count, none.columns[0].len()), (0, 0));
}

#[test]
fn a_token_is_that_of_its_rows_and_of_this_process() {
    let of = |nonce, versions: &[u64]| token(nonce, 0, &[batch(versions)]);
    assert_eq!(of(1, &[3, 4, 5]), of(1, &[3, 4, 5]));
    for other in [of(1, &[3, 5]), of(1, &[3, 4, 6]), of(2, &[3, 4, 5])] {
        assert_ne!(of(1, &[3, 4, 5]), other);
    }
    assert_eq!(of(1, &[]), None);
}
