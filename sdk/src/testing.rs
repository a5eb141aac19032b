//! Runs a transform natively, without a sandbox: `cargo test` of a plugin needs nothing else.
//!
//! ```
//! use pipewright_sdk::testing::{Cell, Harness};
//! use pipewright_sdk::{DataType, Field, Op};
//! # use pipewright_sdk::*;
//! # struct Keep;
//! # impl Transform for Keep {
//! #     type Config = ();
//! #     type Binding = Keep;
//! #     fn new(_: ()) -> Result<Self, Vec<Problem>> { Ok(Keep) }
//! #     fn bind(&self, _: &Table) -> Result<Keep, Failure> { Ok(Keep) }
//! # }
//! # impl Binding for Keep {
//! #     fn shape(&self) -> Shape { Shape::new() }
//! #     fn transform(&self, _: &Batch) -> Result<Outcome, Failure> { Ok(Outcome::unchanged()) }
//! # }
//! let fields = [Field::new("id", DataType::Int64).key(), Field::new("email", DataType::Utf8)];
//! let harness = Harness::<Keep>::new("null", &fields)?;
//! let rows = harness.run(&[(Op::Insert, vec![Cell::Int(1), Cell::text("ann@example.com")])])?;
//! assert_eq!(rows[0].as_ref().unwrap()[1], Cell::text("ann@example.com"));
//! # Ok::<(), String>(())
//! ```

use crate::target::TargetColumn;
use crate::transform::{Ops, configure};
use crate::{
    Batch, Binding, BooleanBuilder, BytesBuilder, Column, DataType, Field, I256, Op, Outcome,
    Shape, Table, Transform, Value, ValuesBuilder,
};

/// One value, for writing down rows.
///
/// ```
/// use pipewright_sdk::testing::Cell;
/// // DECIMAL(10, 2) 10.50, a DATE and a VECTOR.
/// let row = [Cell::Int(1050), Cell::Int(19_782), Cell::List(vec![Cell::Float(3.0), Cell::Float(4.0)])];
/// assert_eq!(row[1], Cell::Int(pipewright_sdk::days_since_1970(2024, 2, 29).unwrap().into()));
/// assert_ne!(Cell::text(""), Cell::Null);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// No value.
    Null,
    /// Of a boolean column.
    Bool(bool),
    /// Of an integer, decimal (in units of the last digit), date (days), time or timestamp (microseconds) column.
    Int(i128),
    /// Of a float column.
    Float(f64),
    /// Of a text column.
    Text(String),
    /// Of a column of bytes.
    Bytes(Vec<u8>),
    /// Of a column of lists.
    List(Vec<Cell>),
}

impl Cell {
    /// Of a text column.
    ///
    /// ```
    /// # use pipewright_sdk::testing::Cell;
    /// assert_eq!(Cell::text("a"), Cell::Text("a".to_owned()));
    /// ```
    pub fn text(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

/// A row after the transform: none when it was dropped.
///
/// ```
/// use pipewright_sdk::testing::{Cell, Harness, ResultRow};
/// # use pipewright_sdk::{*, helpers::{Bound, filter}};
/// # struct Even;
/// # impl Transform for Even {
/// #     type Config = ();
/// #     type Binding = Bound;
/// #     fn new(_: ()) -> Result<Self, Vec<Problem>> { Ok(Even) }
/// #     fn bind(&self, table: &Table) -> Result<Bound, Failure> {
/// #         filter(table, &["id"], |row| Ok(row.value::<i64>(0)?.is_some_and(|id| id % 2 == 0)))
/// #     }
/// # }
/// let harness = Harness::<Even>::new("null", &[Field::new("id", DataType::Int64)])?;
/// let rows: Vec<ResultRow> = harness.run(&[(Op::Insert, vec![Cell::Int(1)]), (Op::Insert, vec![Cell::Int(2)])])?;
/// assert_eq!(rows, [None, Some(vec![Cell::Int(2)])]);
/// # Ok::<(), String>(())
/// ```
pub type ResultRow = Option<Vec<Cell>>;

/// The rows of one target, each with the place of the row that it came from.
///
/// ```
/// use pipewright_sdk::testing::{Cell, Routed};
/// // The second row of the batch became two rows of the target.
/// let tags: Routed = vec![(1, vec![Cell::Int(0), Cell::text("a")]), (1, vec![Cell::Int(1), Cell::text("b")])];
/// assert!(tags.iter().all(|(parent, _)| *parent == 1));
/// ```
pub type Routed = Vec<(usize, Vec<Cell>)>;

/// A transform, configured and bound to a table `test.t`.
///
/// ```
/// use pipewright_sdk::testing::{Cell, Harness};
/// # use pipewright_sdk::{*, helpers::{Bound, filter}};
/// # struct Even;
/// # impl Transform for Even {
/// #     type Config = ();
/// #     type Binding = Bound;
/// #     fn new(_: ()) -> Result<Self, Vec<Problem>> { Ok(Even) }
/// #     fn bind(&self, table: &Table) -> Result<Bound, Failure> {
/// #         filter(table, &["id"], |row| Ok(row.value::<i64>(0)?.is_some_and(|id| id % 2 == 0)))
/// #     }
/// # }
/// let harness = Harness::<Even>::new("null", &[Field::new("id", DataType::Int64)])?;
/// assert_eq!(harness.output_fields().len(), 1);
/// // A deleted row is deleted whatever a filter says of it.
/// let rows = harness.run(&[(Op::Update, vec![Cell::Int(3)]), (Op::Delete, vec![Cell::Int(3)])])?;
/// assert_eq!(rows, [None, Some(vec![Cell::Int(3)])]);
/// assert!(Harness::<Even>::new("null", &[]).is_err_and(|text| text.contains("`id`")));
/// # Ok::<(), String>(())
/// ```
#[derive(Debug)]
pub struct Harness<T: Transform> {
    table: Table,
    binding: T::Binding,
    shape: Shape,
}

impl<T: Transform> Harness<T> {
    /// Configures with JSON text and binds to a table of these columns.
    ///
    /// ```
    /// use pipewright_sdk::testing::Harness;
    /// # use pipewright_sdk::{*, helpers::{Bound, filter}};
    /// # struct Even;
    /// # impl Transform for Even {
    /// #     type Config = ();
    /// #     type Binding = Bound;
    /// #     fn new(_: ()) -> Result<Self, Vec<Problem>> { Ok(Even) }
    /// #     fn bind(&self, table: &Table) -> Result<Bound, Failure> {
    /// #         filter(table, &["id"], |row| Ok(row.value::<i64>(0)?.is_some_and(|id| id % 2 == 0)))
    /// #     }
    /// # }
    /// let fields = [Field::new("id", DataType::Int64).key()];
    /// assert!(Harness::<Even>::new("null", &fields).is_ok());
    /// let refused = Harness::<Even>::new("{ \"modulus\": 3 }", &fields);
    /// assert!(refused.is_err(), "it takes no settings");
    /// ```
    ///
    /// # Errors
    /// The text of the problems or of the failure, as the operator would see it.
    pub fn new(config: &str, fields: &[Field]) -> Result<Self, String> {
        let transform = configure::<T>(config).map_err(|problems| {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            lines.join("; ")
        })?;
        let table = Table {
            database: "test".to_owned(),
            name: "t".to_owned(),
            fields: fields.to_vec(),
        };
        let binding = transform
            .bind(&table)
            .map_err(|failure| failure.to_string())?;
        let shape = binding.shape();
        Ok(Self {
            table,
            binding,
            shape,
        })
    }

    /// The columns after the transform.
    ///
    /// ```
    /// use pipewright_sdk::testing::Harness;
    /// # use pipewright_sdk::{*, helpers::{Bound, filter}};
    /// # struct Even;
    /// # impl Transform for Even {
    /// #     type Config = ();
    /// #     type Binding = Bound;
    /// #     fn new(_: ()) -> Result<Self, Vec<Problem>> { Ok(Even) }
    /// #     fn bind(&self, table: &Table) -> Result<Bound, Failure> {
    /// #         filter(table, &["id"], |row| Ok(row.value::<i64>(0)?.is_some_and(|id| id % 2 == 0)))
    /// #     }
    /// # }
    /// let fields = [Field::new("id", DataType::Int64).key()];
    /// assert_eq!(Harness::<Even>::new("null", &fields)?.output_fields(), fields);
    /// # Ok::<(), String>(())
    /// ```
    pub fn output_fields(&self) -> Vec<Field> {
        let mut fields = self.table.fields.clone();
        for (replaced, field) in &self.shape.writes {
            match replaced {
                Some(column) => fields[*column] = field.clone(),
                None => fields.push(field.clone()),
            }
        }
        fields
    }

    /// Sends rows of all the table's columns through the transform: whole, and one by one, because the result may not
    /// depend on the cut.
    ///
    /// ```
    /// use pipewright_sdk::testing::{Cell, Harness};
    /// # use pipewright_sdk::{*, helpers::{Bound, filter}};
    /// # struct Even;
    /// # impl Transform for Even {
    /// #     type Config = ();
    /// #     type Binding = Bound;
    /// #     fn new(_: ()) -> Result<Self, Vec<Problem>> { Ok(Even) }
    /// #     fn bind(&self, table: &Table) -> Result<Bound, Failure> {
    /// #         filter(table, &["id"], |row| Ok(row.value::<i64>(0)?.is_some_and(|id| id % 2 == 0)))
    /// #     }
    /// # }
    /// let harness = Harness::<Even>::new("null", &[Field::new("id", DataType::Int64).key()])?;
    /// let rows = harness.run(&[(Op::Insert, vec![Cell::Int(3)]), (Op::Insert, vec![Cell::Int(4)])])?;
    /// assert_eq!(rows, [None, Some(vec![Cell::Int(4)])]);
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    /// The text of a failure or of a rejection.
    ///
    /// # Panics
    /// When a cell does not fit its column, when the outcome breaks the contract, or when it depends on the cut.
    pub fn run(&self, rows: &[(Op, Vec<Cell>)]) -> Result<Vec<ResultRow>, String> {
        let whole = self.run_batch(rows)?;
        for (row, expected) in rows.iter().zip(&whole) {
            let alone = self.run_batch(std::slice::from_ref(row))?;
            assert_eq!(
                &alone[0], expected,
                "a row's result depends on the rows beside it"
            );
        }
        Ok(whole)
    }

    /// Sends rows through a transform with targets: whole, and one by one. The answer has one list a target, in the order
    /// in which the shape declares them; each row with the place of the row that it came from.
    ///
    /// ```
    /// use pipewright_sdk::testing::{Cell, Harness};
    /// # use pipewright_sdk::{*, helpers::{Bound, route}};
    /// # struct Split;
    /// # impl Transform for Split {
    /// #     type Config = ();
    /// #     type Binding = Bound;
    /// #     fn new(_: ()) -> Result<Self, Vec<Problem>> { Ok(Split) }
    /// #     fn bind(&self, table: &Table) -> Result<Bound, Failure> {
    /// #         route(table, &["id"], &[None, Some("odd")], |row| Ok(row.value::<i64>(0)?.map(|id| (id % 2) as usize)))
    /// #     }
    /// # }
    /// let harness = Harness::<Split>::new("null", &[Field::new("id", DataType::Int64).key()])?;
    /// let routed = harness.run_routed(&[vec![Cell::Int(1)], vec![Cell::Int(2)]])?;
    /// assert_eq!(routed[0], [(1, vec![Cell::Int(2)])]);
    /// assert_eq!(routed[1], [(0, vec![Cell::Int(1)])]);
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// # Errors
    /// The text of a failure or of a rejection.
    ///
    /// # Panics
    /// When a cell does not fit its column, when the outcome breaks the contract, or when it depends on the cut.
    pub fn run_routed(&self, rows: &[Vec<Cell>]) -> Result<Vec<Routed>, String> {
        let rows: Vec<_> = rows.iter().map(|row| (Op::Insert, row.clone())).collect();
        let whole = self.route_batch(&rows)?;
        for (place, row) in rows.iter().enumerate() {
            let alone = self.route_batch(std::slice::from_ref(row))?;
            for (target, alone) in alone.iter().enumerate() {
                let of_row = whole[target].iter().filter(|(parent, _)| *parent == place);
                assert!(
                    of_row
                        .map(|(_, cells)| cells)
                        .eq(alone.iter().map(|(_, cells)| cells)),
                    "a row's result depends on the rows beside it"
                );
            }
        }
        Ok(whole)
    }

    fn route_batch(&self, rows: &[(Op, Vec<Cell>)]) -> Result<Vec<Routed>, String> {
        let outcome = self.outcome(rows)?;
        let replaced = outcome
            .replaced
            .expect("a binding with targets answers `Outcome::replace`");
        let mut routed = vec![Vec::new(); self.shape.targets.len()];
        for answer in &replaced {
            let target = &self.shape.targets[answer.target];
            assert!(
                routed[answer.target].is_empty(),
                "a target is answered twice"
            );
            assert!(
                answer.parents.is_sorted(),
                "rows are not in the batch's order"
            );
            let made: Vec<&Field> = target.made().collect();
            for (place, column) in &answer.columns {
                let field = made[*place];
                assert_eq!(
                    column.len(),
                    answer.parents.len(),
                    "column `{}` has another row count",
                    field.name
                );
                assert_eq!(
                    column.data_type(),
                    field.data_type,
                    "column `{}`",
                    field.name
                );
            }
            assert_eq!(answer.columns.len(), made.len(), "a made column is missing");
            let mut columns = answer.columns.clone();
            columns.sort_by_key(|(place, _)| *place);
            for (row, parent) in answer.parents.iter().enumerate() {
                let parent = *parent as usize;
                let mut made = columns.iter().map(|(_, column)| cell(column, row));
                let cells = target.columns.iter().map(|column| match column {
                    TargetColumn::Passed(index) => rows[parent].1[*index].clone(),
                    TargetColumn::Made(_) => made.next().expect("counted above"),
                });
                routed[answer.target].push((parent, cells.collect()));
            }
        }
        Ok(routed)
    }

    fn run_batch(&self, rows: &[(Op, Vec<Cell>)]) -> Result<Vec<ResultRow>, String> {
        let outcome = self.outcome(rows)?;
        Ok(self.apply(rows, &outcome))
    }

    fn outcome(&self, rows: &[(Op, Vec<Cell>)]) -> Result<Outcome, String> {
        let batch = Batch {
            row_count: rows.len(),
            ops: Ops::Each(rows.iter().map(|(op, _)| *op).collect()),
            columns: self
                .shape
                .reads
                .iter()
                .map(|read| self.column(*read, rows))
                .collect(),
        };
        let outcome = self
            .binding
            .transform(&batch)
            .map_err(|failure| failure.to_string())?;
        if let Some((row, code, message)) = outcome.rejected.first() {
            return Err(format!("row {row}: {code}: {message}"));
        }
        Ok(outcome)
    }

    fn column(&self, index: usize, rows: &[(Op, Vec<Cell>)]) -> Column {
        let cells: Vec<_> = rows.iter().map(|(_, cells)| &cells[index]).collect();
        column(self.table.fields[index].data_type, &cells)
    }

    fn apply(&self, rows: &[(Op, Vec<Cell>)], outcome: &Outcome) -> Vec<ResultRow> {
        for (write, column) in &outcome.columns {
            let field = &self.shape.writes[*write].1;
            assert_eq!(
                column.len(),
                rows.len(),
                "column `{}` has another row count",
                field.name
            );
            assert_eq!(
                column.data_type(),
                field.data_type,
                "column `{}`",
                field.name
            );
            assert!(
                field.nullable || (0..rows.len()).all(|row| !column.is_null(row)),
                "column `{}` may not be NULL",
                field.name
            );
        }
        if let Some(keep) = &outcome.keep {
            assert!(self.shape.may_drop, "rows are dropped without `may_drop`");
            assert_eq!(
                keep.len(),
                rows.len(),
                "the selection has another row count"
            );
        }
        let added = self
            .shape
            .writes
            .iter()
            .filter(|write| write.0.is_none())
            .count();
        rows.iter()
            .enumerate()
            .map(|(row, (op, cells))| {
                let kept = outcome.keep.as_ref().is_none_or(|keep| keep.keeps(row));
                if !kept && *op != Op::Delete {
                    return None;
                }
                let mut cells = cells.clone();
                cells.resize(cells.len() + added, Cell::Null);
                for (write, column) in &outcome.columns {
                    cells[self.place(*write)] = cell(column, row);
                }
                Some(cells)
            })
            .collect()
    }

    fn place(&self, write: usize) -> usize {
        self.shape.writes[write].0.unwrap_or_else(|| {
            let before = self.shape.writes[..write]
                .iter()
                .filter(|write| write.0.is_none());
            self.table.fields.len() + before.count()
        })
    }
}

fn column(data_type: DataType, cells: &[&Cell]) -> Column {
    match data_type {
        DataType::Utf8 | DataType::Binary => {
            let mut builder = BytesBuilder::new(data_type, cells.len());
            for cell in cells {
                builder.push(match cell {
                    Cell::Null => None,
                    Cell::Text(text) => Some(text.as_bytes()),
                    Cell::Bytes(bytes) => Some(bytes),
                    other => panic!("{other:?} is neither text nor bytes"),
                });
            }
            builder.finish()
        }
        DataType::Boolean => {
            let mut builder = BooleanBuilder::new();
            for cell in cells {
                builder.push(match cell {
                    Cell::Null => None,
                    Cell::Bool(value) => Some(*value),
                    other => panic!("{other:?} is no boolean"),
                });
            }
            builder.finish()
        }
        DataType::Int8 => integers::<i8>(data_type, cells),
        DataType::Int16 => integers::<i16>(data_type, cells),
        DataType::Int32 | DataType::Date32 => integers::<i32>(data_type, cells),
        DataType::Int64 | DataType::Time64Micros | DataType::TimestampMicros { .. } => {
            integers::<i64>(data_type, cells)
        }
        DataType::UInt8 => integers::<u8>(data_type, cells),
        DataType::UInt16 => integers::<u16>(data_type, cells),
        DataType::UInt32 => integers::<u32>(data_type, cells),
        DataType::UInt64 => integers::<u64>(data_type, cells),
        DataType::Decimal128 { .. } => integers::<i128>(data_type, cells),
        DataType::Decimal256 { .. } => build(data_type, cells, |cell| match cell {
            Cell::Int(value) => I256::from(*value),
            other => panic!("{other:?} is no decimal"),
        }),
        DataType::Float32 => build(data_type, cells, |cell| float(cell) as f32),
        DataType::Float64 => build(data_type, cells, float),
        DataType::List(_) => lists(data_type, cells),
    }
}

fn lists(data_type: DataType, cells: &[&Cell]) -> Column {
    let mut lists = Column::nulls(data_type, cells.len());
    let (mut items, mut offsets) = (Vec::new(), vec![0; 4]);
    for (row, cell) in cells.iter().enumerate() {
        match cell {
            Cell::Null => {}
            Cell::List(list) => {
                items.extend(list);
                lists.validity.get_or_insert_default()[row / 8] |= 1 << (row % 8);
            }
            other => panic!("{other:?} is no list"),
        }
        offsets.extend_from_slice(&(items.len() as u32).to_le_bytes());
    }
    lists.values = column(item_type(data_type), &items).values;
    lists.offsets = Some(offsets);
    lists
}

fn item_type(data_type: DataType) -> DataType {
    match data_type {
        DataType::List(item) => item.data_type(),
        _ => None,
    }
    .expect("a list of numbers")
}

fn float(cell: &Cell) -> f64 {
    match cell {
        Cell::Float(value) => *value,
        other => panic!("{other:?} is no float"),
    }
}

fn integers<T: Value + TryFrom<i128>>(data_type: DataType, cells: &[&Cell]) -> Column {
    build(data_type, cells, |cell| match cell {
        Cell::Int(value) => T::try_from(*value)
            .unwrap_or_else(|_| panic!("{value} does not fit a column of {data_type:?}")),
        other => panic!("{other:?} is not {data_type:?}"),
    })
}

fn build<T: Value>(data_type: DataType, cells: &[&Cell], value: impl Fn(&Cell) -> T) -> Column {
    let mut builder = ValuesBuilder::<T>::new(data_type, cells.len());
    for cell in cells {
        builder.push((**cell != Cell::Null).then(|| value(cell)));
    }
    builder.finish()
}

fn cell(column: &Column, row: usize) -> Cell {
    if column.is_null(row) {
        return Cell::Null;
    }
    let values = &column.values;
    match column.data_type {
        DataType::Utf8 | DataType::Binary => {
            let bytes = column
                .bytes()
                .ok()
                .and_then(|bytes| bytes.get(row))
                .unwrap_or_default();
            match column.data_type {
                DataType::Utf8 => Cell::Text(
                    String::from_utf8(bytes.to_vec()).expect("a text column must be UTF-8"),
                ),
                _ => Cell::Bytes(bytes.to_vec()),
            }
        }
        DataType::Boolean => Cell::Bool(values[row / 8] >> (row % 8) & 1 == 1),
        DataType::UInt64 => Cell::Int(u64::load(values, row).into()),
        DataType::Date32 => Cell::Int(i32::load(values, row).into()),
        DataType::Time64Micros | DataType::TimestampMicros { .. } => {
            Cell::Int(i64::load(values, row).into())
        }
        DataType::Decimal128 { .. } => Cell::Int(i128::load(values, row)),
        DataType::Decimal256 { .. } => Cell::Int(I256::load(values, row).low.cast_signed()),
        DataType::Float32 => Cell::Float(f32::load(values, row).into()),
        DataType::Float64 => Cell::Float(f64::load(values, row)),
        DataType::List(_) => Cell::List(items(column, row)),
        _ => {
            let integer = column
                .integers()
                .ok()
                .and_then(|integers| integers.get(row));
            Cell::Int(integer.unwrap_or_default().into())
        }
    }
}

fn items(lists: &Column, row: usize) -> Vec<Cell> {
    let offsets = lists.offsets.as_deref().unwrap_or_default();
    let place = |row: usize| u32::from_le_bytes(offsets.as_chunks::<4>().0[row]) as usize;
    let items = Column {
        data_type: item_type(lists.data_type),
        row_count: place(lists.row_count),
        validity: None,
        offsets: None,
        values: lists.values.clone(),
    };
    (place(row)..place(row + 1))
        .map(|item| cell(&items, item))
        .collect()
}

#[cfg(test)]
#[path = "testing_tests.rs"]
mod tests;
