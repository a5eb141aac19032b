//! Tables, columns and types, as the plugin sees them.

/// What a column holds.
///
/// ```
/// use pipewright_sdk::{DataType, Failure, Field};
///
/// fn scale(field: &Field) -> Result<i8, Failure> {
///     match field.data_type {
///         DataType::Decimal128 { scale, .. } | DataType::Decimal256 { scale, .. } => Ok(scale),
///         other => Err(Failure::unsupported(format!("`{}` is {other:?}, not a decimal", field.name))),
///     }
/// }
///
/// assert_eq!(scale(&Field::new("price", DataType::Decimal128 { precision: 10, scale: 2 })), Ok(2));
/// assert!(scale(&Field::new("name", DataType::Utf8)).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataType {
    /// One bit.
    Boolean,
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// Unsigned, 8 bits.
    UInt8,
    /// Unsigned, 16 bits.
    UInt16,
    /// Unsigned, 32 bits.
    UInt32,
    /// Unsigned, 64 bits.
    UInt64,
    /// 32 bits.
    Float32,
    /// 64 bits.
    Float64,
    /// Up to 38 digits.
    Decimal128 {
        /// All digits.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// Up to 76 digits.
    Decimal256 {
        /// All digits.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// Days since 1970-01-01.
    Date32,
    /// A signed span of microseconds.
    Time64Micros,
    /// Microseconds since 1970-01-01 00:00:00.
    TimestampMicros {
        /// True: a moment, counted in UTC. False: a wall clock.
        utc: bool,
    },
    /// Text.
    Utf8,
    /// Bytes.
    Binary,
    /// A list.
    List(Item),
}

/// What a list is of.
///
/// ```
/// use pipewright_sdk::{DataType, Field, Item};
/// let vector = Field::new("embedding", DataType::List(Item::Float32));
/// assert!(matches!(vector.data_type, DataType::List(Item::Float32 | Item::Float64)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Item {
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// Unsigned, 8 bits.
    UInt8,
    /// Unsigned, 16 bits.
    UInt16,
    /// Unsigned, 32 bits.
    UInt32,
    /// Unsigned, 64 bits.
    UInt64,
    /// 32 bits: VECTOR.
    Float32,
    /// 64 bits.
    Float64,
    /// Something that this version of the SDK does not read.
    Other,
}

impl Item {
    /// The type of one of them; none where the SDK does not read it.
    ///
    /// ```
    /// use pipewright_sdk::{DataType, Item};
    /// assert_eq!(Item::Float32.data_type(), Some(DataType::Float32));
    /// ```
    pub fn data_type(self) -> Option<DataType> {
        Some(match self {
            Item::Int8 => DataType::Int8,
            Item::Int16 => DataType::Int16,
            Item::Int32 => DataType::Int32,
            Item::Int64 => DataType::Int64,
            Item::UInt8 => DataType::UInt8,
            Item::UInt16 => DataType::UInt16,
            Item::UInt32 => DataType::UInt32,
            Item::UInt64 => DataType::UInt64,
            Item::Float32 => DataType::Float32,
            Item::Float64 => DataType::Float64,
            Item::Other => return None,
        })
    }
}

impl DataType {
    /// Bytes of one value; none for text, bytes, lists, and for booleans, of which eight share a byte.
    ///
    /// ```
    /// use pipewright_sdk::DataType;
    /// assert_eq!(DataType::Int32.width(), Some(4));
    /// assert_eq!(DataType::Utf8.width(), None);
    /// ```
    pub fn width(self) -> Option<usize> {
        match self {
            DataType::Int8 | DataType::UInt8 => Some(1),
            DataType::Int16 | DataType::UInt16 => Some(2),
            DataType::Int32 | DataType::UInt32 | DataType::Float32 | DataType::Date32 => Some(4),
            DataType::Int64
            | DataType::UInt64
            | DataType::Float64
            | DataType::Time64Micros
            | DataType::TimestampMicros { .. } => Some(8),
            DataType::Decimal128 { .. } => Some(16),
            DataType::Decimal256 { .. } => Some(32),
            DataType::Boolean | DataType::Utf8 | DataType::Binary | DataType::List(_) => None,
        }
    }

    /// Whether values have offsets: text, bytes and lists.
    ///
    /// ```
    /// use pipewright_sdk::DataType;
    /// assert!(DataType::Binary.has_offsets());
    /// ```
    pub fn has_offsets(self) -> bool {
        matches!(self, DataType::Utf8 | DataType::Binary | DataType::List(_))
    }
}

/// One column of a table.
///
/// ```
/// use pipewright_sdk::{DataType, Field};
/// let email = Field::new("email", DataType::Utf8);
/// assert!(email.nullable && !email.key);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Unique within the table; case matters.
    pub name: String,
    /// What it holds.
    pub data_type: DataType,
    /// Whether a row may have no value.
    pub nullable: bool,
    /// Whether the column is part of what identifies a row. Such columns may be read, not written.
    pub key: bool,
    /// The source's own words for the type.
    pub source_type: String,
}

impl Field {
    /// A column that may be NULL and is no part of the key.
    ///
    /// ```
    /// # use pipewright_sdk::{DataType, Field};
    /// assert_eq!(Field::new("total", DataType::Int64).name, "total");
    /// ```
    pub fn new(name: impl Into<String>, data_type: DataType) -> Self {
        Self {
            name: name.into(),
            data_type,
            nullable: true,
            key: false,
            source_type: String::new(),
        }
    }

    /// The same column, which may not be NULL.
    ///
    /// ```
    /// # use pipewright_sdk::{DataType, Field};
    /// assert!(!Field::new("id", DataType::Int64).not_null().nullable);
    /// ```
    #[must_use]
    pub fn not_null(mut self) -> Self {
        self.nullable = false;
        self
    }

    /// The same column as a part of the key, which may not be NULL.
    ///
    /// ```
    /// # use pipewright_sdk::{DataType, Field};
    /// assert!(Field::new("id", DataType::Int64).key().key);
    /// ```
    #[must_use]
    pub fn key(mut self) -> Self {
        self.key = true;
        self.not_null()
    }

    /// The same column with another type.
    ///
    /// ```
    /// # use pipewright_sdk::{DataType, Field};
    /// let field = Field::new("id", DataType::Int64).with_type(DataType::Utf8);
    /// assert_eq!(field.data_type, DataType::Utf8);
    /// ```
    #[must_use]
    pub fn with_type(mut self, data_type: DataType) -> Self {
        self.data_type = data_type;
        self
    }
}

/// One table as it reaches the plugin.
///
/// ```
/// use pipewright_sdk::{DataType, Field, Table};
/// let table = Table {
///     database: "shop".into(),
///     name: "orders".into(),
///     fields: vec![Field::new("id", DataType::Int64).key(), Field::new("note", DataType::Utf8)],
/// };
/// let (index, note) = table.require("note")?;
/// assert_eq!((index, note.nullable, note.key), (1, true, false));
/// assert!(table.require("Note").is_err());
/// # Ok::<(), pipewright_sdk::Failure>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The database.
    pub database: String,
    /// The table.
    pub name: String,
    /// The columns in order.
    pub fields: Vec<Field>,
}

impl Table {
    /// The place of a column.
    ///
    /// ```
    /// use pipewright_sdk::{DataType, Field, Table};
    /// let table = Table {
    ///     database: "shop".into(),
    ///     name: "customers".into(),
    ///     fields: vec![Field::new("id", DataType::Int64).key(), Field::new("email", DataType::Utf8)],
    /// };
    /// assert_eq!(table.index_of("email"), Some(1));
    /// ```
    pub fn index_of(&self, column: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == column)
    }

    /// The place of a column and the column, or the failure that names it.
    ///
    /// ```
    /// # use pipewright_sdk::{DataType, Field, Table};
    /// # let table = Table { database: "shop".into(), name: "customers".into(), fields: vec![] };
    /// let failure = table.require("email").unwrap_err();
    /// assert_eq!(failure.message(), "column `email` does not exist in table `shop.customers`");
    /// ```
    ///
    /// # Errors
    /// When the table has no such column.
    pub fn require(&self, column: &str) -> Result<(usize, &Field), Failure> {
        self.fields
            .iter()
            .enumerate()
            .find(|(_, field)| field.name == column)
            .ok_or_else(|| {
                Failure::unsupported(format!(
                    "column `{column}` does not exist in table `{}.{}`",
                    self.database, self.name
                ))
            })
    }
}

/// What happened to a row.
///
/// ```
/// use pipewright_sdk::Op;
/// let is_there = |op: Op| match op {
///     Op::Insert | Op::Update => true,
///     Op::Delete => false,
/// };
/// assert!(is_there(Op::Update) && !is_there(Op::Delete));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The row is new, or read by a load.
    Insert,
    /// The row's image after a change that kept its key.
    Update,
    /// The row's last image.
    Delete,
}

/// One thing that is wrong with a configuration.
///
/// ```
/// use pipewright_sdk::Problem;
/// let problem = Problem::at("/columns", "name at least one column");
/// assert_eq!(problem.to_string(), "/columns: name at least one column");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A JSON pointer into the configuration; empty for the whole.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Problem {
    /// A problem with the value that `path` points to.
    ///
    /// ```
    /// # use pipewright_sdk::Problem;
    /// assert_eq!(Problem::at("/salt", "too short").path, "/salt");
    /// ```
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// Why a table cannot be bound or a batch not be transformed.
///
/// ```
/// use pipewright_sdk::{Column, DataType, Failure};
/// let failure = Failure::unsupported("the table has no text column");
/// assert_eq!(failure.to_string(), "the table has no text column");
/// assert!(matches!(Column::nulls(DataType::Int8, 1).strings(), Err(Failure::Failed(_))));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The table or the batch is outside of what the plugin does; a person must change something.
    Unsupported(String),
    /// It should have worked.
    Failed(String),
}

impl Failure {
    /// A person must change something.
    ///
    /// ```
    /// # use pipewright_sdk::Failure;
    /// assert_eq!(Failure::unsupported("no such column").to_string(), "no such column");
    /// ```
    pub fn unsupported(message: impl Into<String>) -> Self {
        Failure::Unsupported(message.into())
    }

    /// It should have worked.
    ///
    /// ```
    /// # use pipewright_sdk::Failure;
    /// assert_eq!(Failure::failed("bad luck").message(), "bad luck");
    /// ```
    pub fn failed(message: impl Into<String>) -> Self {
        Failure::Failed(message.into())
    }

    /// The text, which reaches the operator.
    ///
    /// ```
    /// # use pipewright_sdk::Failure;
    /// assert_eq!(Failure::failed("bad luck").message(), "bad luck");
    /// ```
    pub fn message(&self) -> &str {
        match self {
            Failure::Unsupported(message) | Failure::Failed(message) => message,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Failure {}
