//! Targets: the tables that a binding of several rows, several targets or another key writes to.

use crate::{Column, Field, Table};

/// A target that the shape declares.
///
/// ```
/// use pipewright_sdk::{Rows, Shape, Target};
/// let mut shape = Shape::new();
/// let (paid, open) = (shape.target(Target::named("paid").pass(0)), shape.target(Target::named("open").pass(0)));
/// assert_ne!(paid, open);
/// assert_eq!(Rows::to(paid), Rows::to(paid));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct To(pub(crate) usize);

/// A column that the binding makes for a target.
///
/// ```
/// use pipewright_sdk::{Column, DataType, Field, Rows, Shape, Target};
/// let mut tags = Target::named("tags").pass(0);
/// let number = tags.make(Field::new("number", DataType::UInt32).not_null());
/// let tag = tags.make(Field::new("tag", DataType::Utf8));
/// assert_ne!(number, tag);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made(pub(crate) usize);

/// A table that rows go to: its columns, each passed from the source's table or made by the plugin, and its key.
///
/// ```
/// use pipewright_sdk::{DataType, Field, Shape, Table, Target};
/// # let table = Table { database: "shop".into(), name: "orders".into(), fields: vec![Field::new("id", DataType::Int64).key()] };
/// let mut shape = Shape::new();
/// let own = shape.target(Target::own().pass_all(&table));
/// let mut lines = Target::named("order_lines").pass(0);
/// let number = lines.make(Field::new("number", DataType::Int32).not_null());
/// let lines = shape.target(lines.key([0, 1]));
/// # let _ = (own, lines, number);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub(crate) name: Option<String>,
    pub(crate) columns: Vec<TargetColumn>,
    pub(crate) key: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetColumn {
    Passed(usize),
    Made(Field),
}

impl Target {
    /// The table's own target.
    ///
    /// ```
    /// let own = pipewright_sdk::Target::own();
    /// ```
    pub fn own() -> Self {
        Self {
            name: None,
            columns: Vec::new(),
            key: Vec::new(),
        }
    }

    /// A table of that name at the destination, beside the table's own.
    ///
    /// ```
    /// let archive = pipewright_sdk::Target::named("orders_archive");
    /// ```
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::own()
        }
    }

    /// Passes every column of the source's table, and with them its key.
    ///
    /// ```
    /// # use pipewright_sdk::{Table, Target};
    /// # let table = Table { database: "shop".into(), name: "orders".into(), fields: vec![] };
    /// let archive = Target::named("orders_archive").pass_all(&table);
    /// ```
    #[must_use]
    pub fn pass_all(mut self, table: &Table) -> Self {
        let all = (0..table.fields.len()).map(TargetColumn::Passed);
        self.columns.extend(all);
        self
    }

    /// Passes the table's column of that index. It does not cross into the plugin.
    ///
    /// ```
    /// let narrow = pipewright_sdk::Target::named("narrow").pass(0).pass(3);
    /// ```
    #[must_use]
    pub fn pass(mut self, column: usize) -> Self {
        self.columns.push(TargetColumn::Passed(column));
        self
    }

    /// Adds a column that the plugin makes.
    ///
    /// ```
    /// # use pipewright_sdk::{DataType, Field, Target};
    /// let mut tags = Target::named("tags").pass(0);
    /// let tag = tags.make(Field::new("tag", DataType::Utf8).not_null());
    /// ```
    pub fn make(&mut self, field: Field) -> Made {
        self.columns.push(TargetColumn::Made(field));
        let made = self.columns.iter();
        Made(
            made.filter(|column| matches!(column, TargetColumn::Made(_)))
                .count()
                - 1,
        )
    }

    /// Declares the key by places among the target's columns. Rows of different source rows must have different keys.
    ///
    /// ```
    /// # use pipewright_sdk::{DataType, Field, Target};
    /// let mut tags = Target::named("tags").pass(0);
    /// tags.make(Field::new("tag", DataType::Utf8).not_null());
    /// let tags = tags.key([0, 1]);
    /// ```
    #[must_use]
    pub fn key(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        self.key = columns.into_iter().collect();
        self
    }

    pub(crate) fn made(&self) -> impl Iterator<Item = &Field> {
        self.columns.iter().filter_map(|column| match column {
            TargetColumn::Made(field) => Some(field),
            TargetColumn::Passed(_) => None,
        })
    }
}

/// Rows of a batch on their way to one target.
///
/// ```
/// use pipewright_sdk::{Outcome, Rows, Shape, Target};
/// let mut shape = Shape::new();
/// let archive = shape.target(Target::named("archive").pass(0));
/// let mut rows = Rows::to(archive);
/// rows.push(0);
/// rows.push(2);
/// let outcome = Outcome::replace([rows]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    pub(crate) target: usize,
    pub(crate) parents: Vec<u32>,
    pub(crate) columns: Vec<(usize, Column)>,
}

impl Rows {
    /// No rows yet.
    ///
    /// ```
    /// # use pipewright_sdk::{Rows, Shape, Target};
    /// # let archive = Shape::new().target(Target::named("archive").pass(0));
    /// assert!(Rows::to(archive).is_empty());
    /// ```
    pub fn to(target: To) -> Self {
        Self {
            target: target.0,
            parents: Vec::new(),
            columns: Vec::new(),
        }
    }

    /// One more row, made of that row of the batch. Rows come in the order of the batch.
    ///
    /// ```
    /// # use pipewright_sdk::{Rows, Shape, Target};
    /// # let archive = Shape::new().target(Target::named("archive").pass(0));
    /// let mut rows = Rows::to(archive);
    /// rows.push(3);
    /// assert_eq!(rows.len(), 1);
    /// ```
    pub fn push(&mut self, parent: usize) {
        self.parents.push(parent as u32);
    }

    /// How many rows.
    ///
    /// ```
    /// # use pipewright_sdk::{Rows, Shape, Target};
    /// # let archive = Shape::new().target(Target::named("archive").pass(0));
    /// assert_eq!(Rows::to(archive).len(), 0);
    /// ```
    pub fn len(&self) -> usize {
        self.parents.len()
    }

    /// Whether there are none.
    ///
    /// ```
    /// # use pipewright_sdk::{Rows, Shape, Target};
    /// # let archive = Shape::new().target(Target::named("archive").pass(0));
    /// assert!(Rows::to(archive).is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.parents.is_empty()
    }

    /// Hands over a column that the target declares as made: a value for every row pushed.
    ///
    /// ```
    /// # use pipewright_sdk::{Column, DataType, Field, Rows, Shape, Target};
    /// # let mut target = Target::named("tags").pass(0);
    /// let tag = target.make(Field::new("tag", DataType::Utf8));
    /// # let tags = Shape::new().target(target);
    /// let mut rows = Rows::to(tags);
    /// rows.push(0);
    /// let rows = rows.column(tag, Column::nulls(DataType::Utf8, 1));
    /// ```
    #[must_use]
    pub fn column(mut self, made: Made, column: Column) -> Self {
        self.columns.push((made.0, column));
        self
    }
}
