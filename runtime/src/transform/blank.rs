//! Values that say nothing, in the place of what may not be shown.

use arrow::array::{ArrayRef, BooleanArray, Scalar, make_array, new_null_array};
use arrow::compute::kernels::zip::zip;
use arrow::error::ArrowError;

/// The column with NULL at these rows, or where it takes none with the type's default.
pub(super) fn at(
    column: &ArrayRef,
    rows: &[usize],
    nullable: bool,
) -> Result<ArrayRef, ArrowError> {
    let mut mask = vec![false; column.len()];
    rows.iter().for_each(|row| mask[*row] = true);
    let null = new_null_array(column.data_type(), 1);
    let value = match nullable {
        true => null,
        // Behind a NULL stand zeros, which are the default.
        false => make_array(null.to_data().into_builder().nulls(None).build()?),
    };
    zip(&BooleanArray::from(mask), &Scalar::new(value), column)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, AsArray, BinaryArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn a_blank_is_null_or_the_default() {
        let texts: ArrayRef = Arc::new(BinaryArray::from_iter_values(["a", "b", "c"]));
        let blank = at(&texts, &[1], true).unwrap();
        assert!(blank.is_null(1) && !blank.is_null(0) && !blank.is_null(2));
        let blank = at(&texts, &[0, 2], false).unwrap();
        let values: Vec<_> = blank.as_binary::<i32>().iter().collect();
        assert_eq!(values, [Some(&b""[..]), Some(b"b"), Some(b"")]);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
        let blank = at(&numbers, &[1], false).unwrap();
        assert_eq!(blank.as_primitive::<Int64Type>().values(), &[7, 0]);
    }
}
