//! Bindings for the usual cases, made of one closure over values: change a column, add one, filter rows, send rows to
//! other tables, make several rows of one. A closure that cannot do a row answers [`Reject`].
//!
//! ```
//! use pipewright_sdk::helpers::{Bound, map_text};
//! use pipewright_sdk::*;
//!
//! struct Shout;
//!
//! impl Transform for Shout {
//!     type Config = serde_json::Map<String, serde_json::Value>;
//!     type Binding = Bound;
//!
//!     fn new(_config: Self::Config) -> Result<Self, Vec<Problem>> {
//!         Ok(Shout)
//!     }
//!
//!     fn bind(&self, table: &Table) -> Result<Bound, Failure> {
//!         map_text(table, "name", |name| Ok(Some(name.to_uppercase())))
//!     }
//! }
//!
//! use pipewright_sdk::testing::{Cell, Harness};
//! let harness = Harness::<Shout>::new("{}", &[Field::new("name", DataType::Utf8)])?;
//! let rows = harness.run(&[(Op::Insert, vec![Cell::text("ann")])])?;
//! assert_eq!(rows[0].as_ref().unwrap()[0], Cell::text("ANN"));
//! # Ok::<(), String>(())
//! ```

use crate::{
    Batch, Binding, BytesBuilder, Column, DataType, Failure, Field, Outcome, Read, Rows, Selection,
    Shape, Strings, Table, Target, Value, ValuesBuilder,
};

/// Why a closure cannot do a row.
///
/// ```
/// # use pipewright_sdk::helpers::Reject;
/// let reject = Reject::new("bad-date", "`due` is before `ordered`");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    code: String,
    message: String,
}

impl Reject {
    /// `code` is a short stable word; `message` is for whoever may see the row: it stands beside its dead letter, and in no
    /// log or status.
    ///
    /// ```
    /// # use pipewright_sdk::helpers::Reject;
    /// assert_eq!(Reject::new("a", "b"), Reject::new("a", "b"));
    /// ```
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }
}

type TransformBatch = Box<dyn Fn(&Batch) -> Result<Outcome, Failure>>;

/// A binding made by a function of this module.
///
/// ```
/// use pipewright_sdk::{Binding, DataType, Field, Shape, Table, helpers::map_text};
/// let table = Table { database: "d".into(), name: "t".into(), fields: vec![Field::new("name", DataType::Utf8)] };
/// let bound = map_text(&table, "name", |name| Ok(Some(name.to_uppercase())))?;
/// let mut expected = Shape::new();
/// expected.read(0);
/// expected.replace(0, Field::new("name", DataType::Utf8));
/// assert_eq!(bound.shape(), expected);
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
pub struct Bound {
    shape: Shape,
    transform: TransformBatch,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("shape", &self.shape).finish()
    }
}

impl Binding for Bound {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn transform(&self, batch: &Batch) -> Result<Outcome, Failure> {
        (self.transform)(batch)
    }
}

/// Changes a text column; NULL stays NULL.
///
/// ```
/// # use pipewright_sdk::{DataType, Field, Table, helpers::map_text};
/// # let table = Table { database: "d".into(), name: "t".into(), fields: vec![Field::new("name", DataType::Utf8)] };
/// let binding = map_text(&table, "name", |name| Ok(Some(name.trim().to_owned())))?;
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
///
/// # Errors
/// When the table has no such column, or one of another type.
pub fn map_text(
    table: &Table,
    column: &str,
    map: impl Fn(&str) -> Result<Option<String>, Reject> + 'static,
) -> Result<Bound, Failure> {
    let (index, field) = table.require(column)?;
    ensure_type(field, field.data_type == DataType::Utf8)?;
    let field = Field {
        nullable: true,
        ..field.clone()
    };
    text_column(Some(index), index, field, map)
}

/// Adds a text column made of another one; NULL gives NULL.
///
/// ```
/// # use pipewright_sdk::{DataType, Field, Table, helpers::add_text};
/// # let table = Table { database: "d".into(), name: "t".into(), fields: vec![Field::new("email", DataType::Utf8)] };
/// let binding = add_text(&table, "email", "domain", |email| Ok(email.split_once('@').map(|(_, d)| d.to_owned())))?;
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
///
/// # Errors
/// When the table has no such column, or one of another type.
pub fn add_text(
    table: &Table,
    from: &str,
    name: &str,
    map: impl Fn(&str) -> Result<Option<String>, Reject> + 'static,
) -> Result<Bound, Failure> {
    let (index, field) = table.require(from)?;
    ensure_type(field, field.data_type == DataType::Utf8)?;
    text_column(None, index, Field::new(name, DataType::Utf8), map)
}

fn text_column(
    replaced: Option<usize>,
    from: usize,
    field: Field,
    map: impl Fn(&str) -> Result<Option<String>, Reject> + 'static,
) -> Result<Bound, Failure> {
    let mut shape = Shape::new();
    let read = shape.read(from);
    let write = match replaced {
        Some(index) => shape.replace(index, field),
        None => shape.add(field),
    };
    let transform = move |batch: &Batch| {
        let mut builder = BytesBuilder::new(DataType::Utf8, batch.len());
        let mut outcome = Outcome::unchanged();
        for (row, text) in batch.column(read).strings()?.iter().enumerate() {
            let mapped = text.map_or(Ok(None), &map);
            let mapped = settled(&mut outcome, row, mapped).flatten();
            builder.push(mapped.as_ref().map(|text| text.as_bytes()));
        }
        Ok(outcome.column(write, builder.finish()))
    };
    Ok(Bound {
        shape,
        transform: Box::new(transform),
    })
}

/// Changes a column of numbers, dates, times or decimals, which keeps its type; NULL stays NULL.
///
/// ```
/// # use pipewright_sdk::{DataType, Field, Table, helpers::map_values};
/// # let table = Table { database: "d".into(), name: "t".into(), fields: vec![Field::new("age", DataType::Int32)] };
/// let binding = map_values(&table, "age", |age: i32| Ok(Some(age / 10 * 10)))?;
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
///
/// # Errors
/// When the table has no such column. A batch fails when `T` is not what the column holds.
pub fn map_values<T: Value>(
    table: &Table,
    column: &str,
    map: impl Fn(T) -> Result<Option<T>, Reject> + 'static,
) -> Result<Bound, Failure> {
    let (index, field) = table.require(column)?;
    Column::nulls(field.data_type, 0).values::<T>()?;
    let data_type = field.data_type;
    let mut shape = Shape::new();
    let read = shape.read(index);
    let write = shape.replace(
        index,
        Field {
            nullable: true,
            ..field.clone()
        },
    );
    let transform = move |batch: &Batch| {
        let mut builder = ValuesBuilder::<T>::new(data_type, batch.len());
        let mut outcome = Outcome::unchanged();
        for (row, value) in batch.column(read).values::<T>()?.iter().enumerate() {
            let mapped = value.map_or(Ok(None), &map);
            builder.push(settled(&mut outcome, row, mapped).flatten());
        }
        Ok(outcome.column(write, builder.finish()))
    };
    Ok(Bound {
        shape,
        transform: Box::new(transform),
    })
}

/// One row, as the closures below see it: the columns that they named, by place in that list.
///
/// ```
/// use pipewright_sdk::testing::{Cell, Harness};
/// # use pipewright_sdk::{*, helpers::{Bound, filter}};
/// # struct Adults;
/// # impl Transform for Adults {
/// #     type Config = ();
/// #     type Binding = Bound;
/// #     fn new(_: ()) -> Result<Self, Vec<Problem>> { Ok(Adults) }
/// #     fn bind(&self, table: &Table) -> Result<Bound, Failure> {
/// filter(table, &["name", "age"], |row| {
///     Ok(row.text(0)? == Some("ann") || row.value::<i32>(1)? >= Some(18))
/// })
/// #     }
/// # }
/// # let fields = [Field::new("age", DataType::Int32), Field::new("name", DataType::Utf8)];
/// # let harness = Harness::<Adults>::new("null", &fields)?;
/// # let rows = harness.run(&[
/// #     (Op::Insert, vec![Cell::Int(7), Cell::text("ann")]),
/// #     (Op::Insert, vec![Cell::Int(7), Cell::text("bob")]),
/// #     (Op::Insert, vec![Cell::Int(40), Cell::Null]),
/// # ])?;
/// # assert_eq!(rows.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    views: &'a [View<'a>],
    row: usize,
}

/// A column, looked at once a batch.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    column: &'a Column,
    strings: Option<Strings<'a>>,
}

fn views<'a>(batch: &'a Batch, reads: &[Read]) -> Vec<View<'a>> {
    let columns = reads.iter().map(|read| batch.column(*read));
    columns
        .map(|column| View {
            column,
            strings: column.strings().ok(),
        })
        .collect()
}

impl Row<'_> {
    /// The text of the column at that place; none for NULL.
    ///
    /// ```
    /// # use pipewright_sdk::{DataType, Field, Table, helpers::filter};
    /// # let table = Table { database: "d".into(), name: "t".into(), fields: vec![Field::new("name", DataType::Utf8)] };
    /// let binding = filter(&table, &["name"], |row| Ok(row.text(0)?.is_some_and(|name| name.len() > 2)))?;
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    ///
    /// # Errors
    /// When the column is of another type.
    pub fn text(&self, place: usize) -> Result<Option<&str>, Reject> {
        let strings = self.views[place].strings;
        let strings = strings.ok_or_else(|| Reject::new("column-type", "the column is no text"))?;
        Ok(strings.get(self.row))
    }

    /// The number, date, time or decimal of the column at that place; none for NULL.
    ///
    /// ```
    /// # use pipewright_sdk::{DataType, Field, Table, helpers::filter};
    /// # let table = Table { database: "d".into(), name: "t".into(), fields: vec![Field::new("age", DataType::Int32)] };
    /// let binding = filter(&table, &["age"], |row| Ok(row.value::<i32>(0)?.is_some_and(|age| age >= 18)))?;
    /// # Ok::<(), pipewright_sdk::Failure>(())
    /// ```
    ///
    /// # Errors
    /// When `T` is not what the column holds.
    pub fn value<T: Value>(&self, place: usize) -> Result<Option<T>, Reject> {
        let values = self.views[place].column.values::<T>();
        let values = values.map_err(|failure| Reject::new("column-type", failure.message()))?;
        Ok(values.get(self.row))
    }
}

/// Keeps the rows that the predicate holds for; a row that ceases to match disappears.
///
/// ```
/// # use pipewright_sdk::{DataType, Field, Table, helpers::filter};
/// # let table = Table { database: "d".into(), name: "t".into(), fields: vec![Field::new("age", DataType::Int32)] };
/// let binding = filter(&table, &["age"], |row| Ok(row.value::<i32>(0)? >= Some(18)))?;
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
///
/// # Errors
/// When the table lacks a column.
pub fn filter(
    table: &Table,
    columns: &[&str],
    keeps: impl Fn(Row<'_>) -> Result<bool, Reject> + 'static,
) -> Result<Bound, Failure> {
    let mut shape = Shape::new();
    let reads = reads(&mut shape, table, columns)?;
    shape.may_drop();
    let transform = move |batch: &Batch| {
        let views = views(batch, &reads);
        let mut outcome = Outcome::unchanged();
        let kept = Selection::from_fn(batch.len(), |row| {
            let answer = keeps(Row { views: &views, row });
            settled(&mut outcome, row, answer).unwrap_or(true)
        });
        Ok(outcome.keep(kept))
    };
    Ok(Bound {
        shape,
        transform: Box::new(transform),
    })
}

/// Sends each whole row to one of several targets, or nowhere. `targets` are names at the destination; none is the
/// table's own.
///
/// ```
/// # use pipewright_sdk::{DataType, Field, Table, helpers::route};
/// # let table = Table {
/// #     database: "d".into(),
/// #     name: "t".into(),
/// #     fields: vec![Field::new("id", DataType::Int64).key(), Field::new("country", DataType::Utf8)],
/// # };
/// let binding = route(&table, &["country"], &[None, Some("orders_abroad")], |row| {
///     Ok(Some(usize::from(row.text(0)? != Some("DE"))))
/// })?;
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
///
/// # Errors
/// When the table lacks a column.
pub fn route(
    table: &Table,
    columns: &[&str],
    targets: &[Option<&str>],
    choose: impl Fn(Row<'_>) -> Result<Option<usize>, Reject> + 'static,
) -> Result<Bound, Failure> {
    let mut shape = Shape::new();
    let reads = reads(&mut shape, table, columns)?;
    let targets: Vec<_> = targets
        .iter()
        .map(|name| shape.target(named(*name).pass_all(table)))
        .collect();
    let transform = move |batch: &Batch| {
        let views = views(batch, &reads);
        let mut outcome = Outcome::replace([]);
        let mut routed: Vec<Rows> = targets.iter().map(|target| Rows::to(*target)).collect();
        for row in 0..batch.len() {
            let answer = choose(Row { views: &views, row });
            let Some(Some(place)) = settled(&mut outcome, row, answer) else {
                continue;
            };
            let rows = routed.get_mut(place);
            rows.ok_or_else(|| Failure::failed("a row is routed past the last target"))?
                .push(row);
        }
        outcome.replaced = Some(routed);
        Ok(outcome)
    };
    Ok(Bound {
        shape,
        transform: Box::new(transform),
    })
}

/// Makes any number of rows of each: the table's key, a number that counts from 0 within the source row, and one text. The
/// key and the number identify a row of the target.
///
/// ```
/// # use pipewright_sdk::{DataType, Field, Table, helpers::fan_out_text};
/// # let table = Table {
/// #     database: "d".into(),
/// #     name: "t".into(),
/// #     fields: vec![Field::new("id", DataType::Int64).key(), Field::new("tags", DataType::Utf8)],
/// # };
/// let binding = fan_out_text(&table, &["tags"], Some("post_tags"), "tag", |row| {
///     let tags = row.text(0)?.unwrap_or_default();
///     Ok(tags.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect())
/// })?;
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
///
/// # Errors
/// When the table lacks a column, or has no key.
pub fn fan_out_text(
    table: &Table,
    columns: &[&str],
    target: Option<&str>,
    name: &str,
    make: impl Fn(Row<'_>) -> Result<Vec<String>, Reject> + 'static,
) -> Result<Bound, Failure> {
    let mut shape = Shape::new();
    let reads = reads(&mut shape, table, columns)?;
    let key = table.fields.iter().enumerate();
    let mut made = key
        .filter(|(_, field)| field.key)
        .fold(named(target), |target, (index, _)| target.pass(index));
    if made.columns.is_empty() {
        return Err(Failure::unsupported("the table has no key"));
    }
    let number = made.make(Field::new("number", DataType::UInt32).not_null());
    let key_columns = 0..made.columns.len();
    let text = made.make(Field::new(name, DataType::Utf8).not_null());
    let target = shape.target(made.key(key_columns));
    let transform = move |batch: &Batch| {
        let views = views(batch, &reads);
        let mut outcome = Outcome::replace([]);
        let mut rows = Rows::to(target);
        let (mut numbers, mut texts) = (Vec::new(), Vec::new());
        for row in 0..batch.len() {
            let answer = make(Row { views: &views, row });
            let lines = settled(&mut outcome, row, answer).unwrap_or_default();
            for (place, line) in (0_u32..).zip(lines) {
                rows.push(row);
                numbers.push(place);
                texts.push(line);
            }
        }
        let mut number_column = ValuesBuilder::<u32>::new(DataType::UInt32, numbers.len());
        numbers
            .into_iter()
            .for_each(|n| number_column.push(Some(n)));
        let mut text_column = BytesBuilder::new(DataType::Utf8, texts.len());
        texts
            .iter()
            .for_each(|line| text_column.push(Some(line.as_bytes())));
        let rows = rows
            .column(number, number_column.finish())
            .column(text, text_column.finish());
        outcome.replaced = Some(vec![rows]);
        Ok(outcome)
    };
    Ok(Bound {
        shape,
        transform: Box::new(transform),
    })
}

fn named(name: Option<&str>) -> Target {
    name.map_or_else(Target::own, Target::named)
}

fn reads(shape: &mut Shape, table: &Table, columns: &[&str]) -> Result<Vec<Read>, Failure> {
    let places = columns.iter().map(|column| table.require(column));
    places.map(|place| Ok(shape.read(place?.0))).collect()
}

fn ensure_type(field: &Field, fits: bool) -> Result<(), Failure> {
    match fits {
        true => Ok(()),
        false => Err(Failure::unsupported(format!(
            "column `{}` is of type {:?}",
            field.name, field.data_type
        ))),
    }
}

/// The answer for a row, or none when it was rejected.
fn settled<T>(outcome: &mut Outcome, row: usize, answer: Result<T, Reject>) -> Option<T> {
    match answer {
        Ok(value) => Some(value),
        Err(Reject { code, message }) => {
            outcome.rejected.push((row, code, message));
            None
        }
    }
}
