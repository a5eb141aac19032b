//! What a plugin implements, and what it says to its host.

use serde::de::DeserializeOwned;

use crate::{Column, Failure, Field, Op, Problem, Rows, Selection, Table, Target, To};

/// A configured plugin. See the crate's documentation for a whole one.
///
/// ```
/// use pipewright_sdk::testing::{Cell, Harness};
/// use pipewright_sdk::{DataType, Failure, Field, Op, Problem, Table, Transform, helpers};
///
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Config {
///     least: i64,
/// }
///
/// struct AtLeast(i64);
///
/// impl Transform for AtLeast {
///     type Config = Config;
///     type Binding = helpers::Bound;
///
///     fn new(config: Config) -> Result<Self, Vec<Problem>> {
///         match config.least {
///             0.. => Ok(AtLeast(config.least)),
///             _ => Err(vec![Problem::at("/least", "a number from 0 on is wanted")]),
///         }
///     }
///
///     fn bind(&self, table: &Table) -> Result<helpers::Bound, Failure> {
///         let least = self.0;
///         helpers::filter(table, &["age"], move |row| Ok(row.value::<i64>(0)? >= Some(least)))
///     }
/// }
///
/// let fields = [Field::new("age", DataType::Int64)];
/// let harness = Harness::<AtLeast>::new(r#"{"least": 18}"#, &fields)?;
/// let rows = harness.run(&[(Op::Insert, vec![Cell::Int(17)]), (Op::Insert, vec![Cell::Int(18)])])?;
/// assert_eq!(rows, [None, Some(vec![Cell::Int(18)])]);
/// assert!(Harness::<AtLeast>::new(r#"{"least": -1}"#, &fields).is_err_and(|text| text.contains("/least")));
/// # Ok::<(), String>(())
/// ```
pub trait Transform: Sized + 'static {
    /// The configuration, as the pipe file's `config` has it. `#[serde(deny_unknown_fields)]` makes typing errors visible.
    type Config: DeserializeOwned;
    /// What [`Transform::bind`] gives.
    type Binding: Binding;

    /// Takes the configuration. Called once in each instance, before any table is bound.
    ///
    /// # Errors
    /// All that is wrong with the configuration, at once; the operator sees it.
    fn new(config: Self::Config) -> Result<Self, Vec<Problem>>;

    /// Binds to a table. Called in each instance, and again when the table's columns have changed.
    ///
    /// # Errors
    /// Why the table cannot be transformed; the operator sees it, and nothing of the table is replicated.
    fn bind(&self, table: &Table) -> Result<Self::Binding, Failure>;

    /// The JSON Schema of the configuration, which `plugin inspect` shows. It is asked for without a configuration, and
    /// nothing is checked against it: that is what [`Transform::new`] is for. The feature `schema` makes it of the type.
    fn config_schema() -> Option<String> {
        None
    }
}

/// A plugin bound to one table.
///
/// ```
/// use pipewright_sdk::testing::{Cell, Harness};
/// # use pipewright_sdk::*;
/// # struct Doubles;
/// # impl Transform for Doubles {
/// #     type Config = ();
/// #     type Binding = Doubled;
/// #     fn new(_: ()) -> Result<Self, Vec<Problem>> { Ok(Doubles) }
/// #     fn bind(&self, table: &Table) -> Result<Doubled, Failure> { Ok(Doubled::of(table.require("n")?.0)) }
/// # }
///
/// struct Doubled {
///     shape: Shape,
///     n: Read,
///     twice: Write,
/// }
///
/// # impl Doubled {
/// #     fn of(column: usize) -> Self {
/// #         let mut shape = Shape::new();
/// #         let n = shape.read(column);
/// #         let twice = shape.add(Field::new("twice", DataType::Int64));
/// #         Doubled { shape, n, twice }
/// #     }
/// # }
/// impl Binding for Doubled {
///     fn shape(&self) -> Shape {
///         self.shape.clone()
///     }
///
///     fn transform(&self, batch: &Batch) -> Result<Outcome, Failure> {
///         let mut twice = ValuesBuilder::<i64>::new(DataType::Int64, batch.len());
///         let mut outcome = Outcome::unchanged();
///         for (row, n) in batch.column(self.n).values::<i64>()?.iter().enumerate() {
///             let doubled = n.and_then(|n| n.checked_mul(2));
///             if doubled.is_none() && n.is_some() {
///                 outcome = outcome.reject(row, "overflow", "twice the number does not fit");
///             }
///             twice.push(doubled);
///         }
///         Ok(outcome.column(self.twice, twice.finish()))
///     }
/// }
///
/// let harness = Harness::<Doubles>::new("null", &[Field::new("n", DataType::Int64)])?;
/// let rows = harness.run(&[(Op::Insert, vec![Cell::Int(21)])])?;
/// assert_eq!(rows, [Some(vec![Cell::Int(21), Cell::Int(42)])]);
/// let failing = harness.run(&[(Op::Insert, vec![Cell::Int(i64::MAX.into())])]);
/// assert!(failing.unwrap_err().contains("overflow"));
/// # Ok::<(), String>(())
/// ```
pub trait Binding: 'static {
    /// What it will do to the table: the same answer in every instance.
    fn shape(&self) -> Shape;

    /// Transforms one batch: a function of each row, however the rows are cut into batches.
    ///
    /// # Errors
    /// Why the batch cannot be transformed. The pipe stops; for single rows use [`Outcome::reject`].
    fn transform(&self, batch: &Batch) -> Result<Outcome, Failure>;
}

/// A column that the binding reads.
///
/// ```
/// use pipewright_sdk::Shape;
/// let mut shape = Shape::new();
/// let (email, name) = (shape.read(4), shape.read(1));
/// assert_ne!(email, name);
/// assert_eq!(shape.read(4), email);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read(usize);

/// A column that the binding makes.
///
/// ```
/// use pipewright_sdk::{Column, DataType, Field, Outcome, Shape};
/// let mut shape = Shape::new();
/// let (note, hint) = (shape.add(Field::new("note", DataType::Utf8)), shape.add(Field::new("hint", DataType::Utf8)));
/// let made = |write| Outcome::unchanged().column(write, Column::nulls(DataType::Utf8, 1));
/// assert_ne!(made(note), made(hint));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write(usize);

/// What a binding reads and makes: only that crosses the boundary.
///
/// ```
/// use pipewright_sdk::{DataType, Field, Shape};
/// let mut shape = Shape::new();
/// let email = shape.read(1);
/// let masked = shape.replace(1, Field::new("email", DataType::Utf8));
/// # let _ = (email, masked);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    pub(crate) reads: Vec<usize>,
    pub(crate) writes: Vec<(Option<usize>, Field)>,
    pub(crate) may_drop: bool,
    pub(crate) targets: Vec<Target>,
}

impl Shape {
    /// Reads nothing, makes nothing, keeps every row.
    ///
    /// ```
    /// let shape = pipewright_sdk::Shape::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the table's column of that index. Asking twice for one column gives the same answer.
    ///
    /// ```
    /// # use pipewright_sdk::Shape;
    /// let mut shape = Shape::new();
    /// assert_eq!(shape.read(3), shape.read(3));
    /// ```
    pub fn read(&mut self, column: usize) -> Read {
        let place = self.reads.iter().position(|read| *read == column);
        Read(place.unwrap_or_else(|| {
            self.reads.push(column);
            self.reads.len() - 1
        }))
    }

    /// Puts a new column in the place of the table's column of that index.
    ///
    /// ```
    /// # use pipewright_sdk::{DataType, Field, Shape};
    /// let mut shape = Shape::new();
    /// let total = shape.replace(2, Field::new("total", DataType::Int64));
    /// ```
    pub fn replace(&mut self, column: usize, field: Field) -> Write {
        self.writes.push((Some(column), field));
        Write(self.writes.len() - 1)
    }

    /// Adds a column behind the others.
    ///
    /// ```
    /// # use pipewright_sdk::{DataType, Field, Shape};
    /// let mut shape = Shape::new();
    /// let domain = shape.add(Field::new("domain", DataType::Utf8));
    /// ```
    pub fn add(&mut self, field: Field) -> Write {
        self.writes.push((None, field));
        Write(self.writes.len() - 1)
    }

    /// Declares that rows may be dropped.
    ///
    /// ```
    /// # use pipewright_sdk::Shape;
    /// Shape::new().may_drop();
    /// ```
    pub fn may_drop(&mut self) {
        self.may_drop = true;
    }

    /// Declares a target. With targets, rows may become several, go elsewhere or have another key, and every answer is an
    /// [`Outcome::replace`]; columns are then made by target, not by `replace` and `add`.
    ///
    /// ```
    /// # use pipewright_sdk::{Shape, Target};
    /// let archive = Shape::new().target(Target::named("archive").pass(0));
    /// ```
    pub fn target(&mut self, target: Target) -> To {
        self.targets.push(target);
        To(self.targets.len() - 1)
    }
}

/// Rows of one table, in the order in which they happened: the columns that the shape reads.
///
/// ```
/// use pipewright_sdk::testing::{Cell, Harness};
/// # use pipewright_sdk::*;
/// # struct Marks;
/// # impl Transform for Marks {
/// #     type Config = ();
/// #     type Binding = Marked;
/// #     fn new(_: ()) -> Result<Self, Vec<Problem>> { Ok(Marks) }
/// #     fn bind(&self, _: &Table) -> Result<Marked, Failure> { Ok(Marked) }
/// # }
/// # struct Marked;
/// # fn declared() -> (Shape, Read, Write) {
/// #     let mut shape = Shape::new();
/// #     let name = shape.read(0);
/// #     let mark = shape.add(Field::new("mark", DataType::Boolean));
/// #     (shape, name, mark)
/// # }
/// # impl Binding for Marked {
/// #     fn shape(&self) -> Shape { declared().0 }
/// fn transform(&self, batch: &Batch) -> Result<Outcome, Failure> {
///     let (_, name, mark) = declared();
///     let mut marks = BooleanBuilder::new();
///     for row in 0..batch.len() {
///         marks.push(Some(batch.op(row) == Op::Update && !batch.column(name).is_null(row)));
///     }
///     Ok(Outcome::unchanged().column(mark, marks.finish()))
/// }
/// # }
/// let harness = Harness::<Marks>::new("null", &[Field::new("name", DataType::Utf8)])?;
/// let rows = harness.run(&[(Op::Update, vec![Cell::text("ann")]), (Op::Insert, vec![Cell::text("bob")])])?;
/// assert_eq!(rows[0].as_ref().unwrap()[1], Cell::Bool(true));
/// assert_eq!(rows[1].as_ref().unwrap()[1], Cell::Bool(false));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batch {
    pub(crate) row_count: usize,
    pub(crate) ops: Ops,
    pub(crate) columns: Vec<Column>,
}

#[derive(Clone, Debug)]
pub(crate) enum Ops {
    #[cfg_attr(
        not(target_arch = "wasm32"),
        expect(dead_code, reason = "only a host sends it")
    )]
    All(Op),
    Each(Vec<Op>),
}

impl Batch {
    /// How many rows.
    ///
    /// ```
    /// # use pipewright_sdk::{Batch, Failure, Outcome, Read, Selection};
    /// fn adults(batch: &Batch, age: Read) -> Result<Outcome, Failure> {
    ///     let ages = batch.column(age).values::<i64>()?;
    ///     let keep = Selection::from_fn(batch.len(), |row| ages.get(row).is_some_and(|age| age >= 18));
    ///     Ok(Outcome::unchanged().keep(keep))
    /// }
    /// ```
    pub fn len(&self) -> usize {
        self.row_count
    }

    /// Whether there are no rows.
    ///
    /// ```
    /// # use pipewright_sdk::{Batch, Outcome};
    /// fn nothing_to_do(batch: &Batch) -> Option<Outcome> {
    ///     batch.is_empty().then(Outcome::unchanged)
    /// }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.row_count == 0
    }

    /// What happened to a row. A binding with targets sees each image as an insert, and so do the plugins in front of it: the
    /// image before an update too, which the host sends through the same transforms to know what to take back. A load shows
    /// every row as an insert, so what stays of a row may not depend on this either: a load of tomorrow would give another
    /// table. It tells, say, of which rows a value may be missing.
    ///
    /// ```
    /// # use pipewright_sdk::{Batch, Op};
    /// // Of a row that is gone the binlog may hold no more than its key: nothing else of it is looked at.
    /// fn must_be_whole(batch: &Batch, row: usize) -> bool {
    ///     batch.op(row) != Op::Delete
    /// }
    /// ```
    pub fn op(&self, row: usize) -> Op {
        match &self.ops {
            Ops::All(op) => *op,
            Ops::Each(ops) => ops[row],
        }
    }

    /// A column that the shape reads.
    ///
    /// ```
    /// # use pipewright_sdk::{Batch, Read};
    /// // What `Shape::read` has answered for the column.
    /// fn values(batch: &Batch, name: Read) -> usize {
    ///     let name = batch.column(name);
    ///     (0..batch.len()).filter(|row| !name.is_null(*row)).count()
    /// }
    /// ```
    pub fn column(&self, read: Read) -> &Column {
        &self.columns[read.0]
    }
}

/// What becomes of a batch.
///
/// ```
/// use pipewright_sdk::{Outcome, Selection};
/// let outcome = Outcome::unchanged().keep(Selection::from_fn(4, |row| row != 2));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub(crate) keep: Option<Selection>,
    pub(crate) columns: Vec<(usize, Column)>,
    pub(crate) rejected: Vec<(usize, String, String)>,
    pub(crate) replaced: Option<Vec<Rows>>,
}

impl Outcome {
    /// Every row stays as it is.
    ///
    /// ```
    /// let outcome = pipewright_sdk::Outcome::unchanged();
    /// ```
    pub fn unchanged() -> Self {
        Self::default()
    }

    /// Rows go to the targets that the shape declares; a row that is in none of them goes nowhere.
    ///
    /// ```
    /// # use pipewright_sdk::{Outcome, Rows, Shape, Target};
    /// # let mut shape = Shape::new();
    /// # let (paid, open) = (shape.target(Target::named("paid").pass(0)), shape.target(Target::named("open").pass(0)));
    /// let outcome = Outcome::replace([Rows::to(paid), Rows::to(open)]);
    /// ```
    pub fn replace(rows: impl IntoIterator<Item = Rows>) -> Self {
        Self {
            replaced: Some(rows.into_iter().collect()),
            ..Self::default()
        }
    }

    /// Drops the rows that the selection does not keep. A deleted row is deleted all the same; a dropped insert or update
    /// hides the row that was there.
    ///
    /// ```
    /// # use pipewright_sdk::{Outcome, Selection};
    /// let outcome = Outcome::unchanged().keep(Selection::from_fn(4, |row| row > 0));
    /// ```
    #[must_use]
    pub fn keep(mut self, selection: Selection) -> Self {
        self.keep = Some(selection);
        self
    }

    /// Hands over a column that the shape declared: a value for every row of the batch, dropped ones too.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType, Field, Outcome, Shape};
    /// # let mut shape = Shape::new();
    /// let note = shape.add(Field::new("note", DataType::Utf8));
    /// let outcome = Outcome::unchanged().column(note, Column::nulls(DataType::Utf8, 4));
    /// ```
    #[must_use]
    pub fn column(mut self, write: Write, column: Column) -> Self {
        self.columns.push((write.0, column));
        self
    }

    /// Declares that a row cannot be transformed. `code` is a short stable word; `message` is for whoever may see the row: it
    /// stands beside its dead letter, and in no log or status.
    ///
    /// ```
    /// # use pipewright_sdk::Outcome;
    /// let outcome = Outcome::unchanged().reject(3, "bad-date", "`due` is before `ordered`");
    /// ```
    #[must_use]
    pub fn reject(
        mut self,
        row: usize,
        code: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        self.rejected.push((row, code.into(), message.into()));
        self
    }
}

/// Reads a configuration, telling where it does not fit.
pub(crate) fn configure<T: Transform>(json: &str) -> Result<T, Vec<Problem>> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let config = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = pointer(error.path());
        vec![Problem::at(path, message(&error.into_inner()))]
    })?;
    T::new(config)
}

/// The error without serde_json's line and column, which are those of our own rendering and mean nothing to a person.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}
