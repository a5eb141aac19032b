//! The harness, held to what columns of lists are.

use super::*;
use crate::{Failure, Item, Problem, Read, Write};

/// Writes the length of a vector into a column of its own.
struct Length;

struct Bound {
    shape: Shape,
    vector: Read,
    length: Write,
}

impl Transform for Length {
    type Config = ();
    type Binding = Bound;

    fn new(_config: ()) -> Result<Self, Vec<Problem>> {
        Ok(Length)
    }

    fn bind(&self, table: &Table) -> Result<Bound, Failure> {
        let (vector, _) = table.require("v")?;
        let mut shape = Shape::new();
        let vector = shape.read(vector);
        let length = shape.add(Field::new("length", DataType::Float32));
        Ok(Bound {
            shape,
            vector,
            length,
        })
    }
}

impl Binding for Bound {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn transform(&self, batch: &Batch) -> Result<Outcome, Failure> {
        let mut lengths = ValuesBuilder::<f32>::new(DataType::Float32, batch.len());
        for vector in batch.column(self.vector).lists::<f32>()?.iter() {
            lengths.push(vector.map(|vector| vector.iter().map(|x| x * x).sum::<f32>().sqrt()));
        }
        Ok(Outcome::unchanged().column(self.length, lengths.finish()))
    }
}

#[test]
fn a_plugin_reads_vectors_whichever_row_they_begin_in() {
    let fields = [Field::new("v", DataType::List(Item::Float32))];
    let harness = Harness::<Length>::new("null", &fields).expect("bound");
    let vector = |numbers: &[f64]| {
        let cells = numbers.iter().map(|number| Cell::Float(*number)).collect();
        (Op::Insert, vec![Cell::List(cells)])
    };
    let rows = harness
        .run(&[
            vector(&[3.0, 4.0]),
            (Op::Insert, vec![Cell::Null]),
            vector(&[]),
            vector(&[0.0, 5.0, 12.0]),
        ])
        .expect("transformed");
    let lengths: Vec<_> = rows
        .into_iter()
        .flatten()
        .map(|row| row[1].clone())
        .collect();
    let expected = [
        Cell::Float(5.0),
        Cell::Null,
        Cell::Float(0.0),
        Cell::Float(13.0),
    ];
    assert_eq!(lengths, expected);
}
