//! The guest's side of the boundary: generated bindings, and the way from them to the SDK's types and back.
//!
//! Buffers move; nothing is copied or parsed here.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;

use bindings::exports::pipewright::transform::plugin as wit;
use bindings::pipewright::transform::types as wit_types;

use crate::target::TargetColumn;
use crate::transform::{Ops, configure};
use crate::{
    Batch, Column, DataType, Failure, Field, Item, Op, Outcome, Problem, Rows, Shape, Table,
    Target, Transform,
};

/// What wit-bindgen makes of `wit/`.
#[allow(
    missing_docs,
    unsafe_code,
    unused_qualifications,
    clippy::all,
    reason = "generated: the canonical ABI passes pointers into linear memory"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "transform-with-lookup",
        pub_export_macro: true,
        export_macro_name: "export_transform",
        default_bindings_module: "pipewright_sdk::guest::bindings",
        generate_unused_types: true,
    });
}

/// The exports of a component that runs `T`, which calls itself `N`.
#[derive(Debug)]
pub struct Guest<T, N>(PhantomData<(T, N)>);

/// Name and version, which only the plugin's own crate knows.
pub trait Named {
    /// `CARGO_PKG_NAME`.
    const NAME: &'static str;
    /// `CARGO_PKG_VERSION`.
    const VERSION: &'static str;
}

type BindTable = Rc<dyn Fn(&Table) -> Result<Box<dyn crate::Binding>, Failure>>;

thread_local! {
    // An instance is configured once; generics cannot own a static, hence the boxed function.
    static BIND_TABLE: RefCell<Option<BindTable>> = const { RefCell::new(None) };
}

impl<T: Transform, N: Named + 'static> wit::Guest for Guest<T, N> {
    type Binding = GuestBinding;

    fn describe() -> wit::Info {
        wit::Info {
            name: N::NAME.to_owned(),
            version: N::VERSION.to_owned(),
            config_schema: T::config_schema(),
        }
    }

    fn configure(json: String) -> Result<(), Vec<wit::Problem>> {
        // Without this a panic leaves nothing but "unreachable executed".
        std::panic::set_hook(Box::new(|panic| crate::log::error(&panic.to_string())));
        let transform = configure::<T>(&json)
            .map_err(|problems| problems.into_iter().map(problem_to_wit).collect::<Vec<_>>())?;
        let bind_table: BindTable = Rc::new(move |table: &Table| {
            let binding = transform.bind(table)?;
            Ok(Box::new(binding) as Box<dyn crate::Binding>)
        });
        BIND_TABLE.set(Some(bind_table));
        Ok(())
    }

    fn bind_table(table: wit::Table) -> Result<wit::Binding, wit::Failure> {
        let bind_table = BIND_TABLE
            .with_borrow(Option::clone)
            .ok_or_else(|| wit::Failure::Failed("bind-table before configure".to_owned()))?;
        let table = table_from_wit(table);
        let binding = bind_table(&table).map_err(failure_to_wit)?;
        let shape = binding.shape();
        let read_types = shape
            .reads
            .iter()
            .map(|read| table.fields.get(*read).map(|field| field.data_type))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| {
                wit::Failure::Failed("the shape reads a column past the last".to_owned())
            })?;
        Ok(wit::Binding::new(GuestBinding {
            binding,
            shape,
            read_types,
        }))
    }
}

/// One bound table.
pub struct GuestBinding {
    binding: Box<dyn crate::Binding>,
    shape: Shape,
    read_types: Vec<DataType>,
}

impl std::fmt::Debug for GuestBinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestBinding").finish_non_exhaustive()
    }
}

impl wit::GuestBinding for GuestBinding {
    fn shape(&self) -> wit::Shape {
        shape_to_wit(&self.shape)
    }

    fn transform(&self, batch: wit::Batch) -> Result<wit::Outcome, wit::Failure> {
        let row_count = batch.row_count as usize;
        let columns = batch.columns.into_iter().zip(&self.read_types);
        let batch = Batch {
            row_count,
            ops: ops_from_wit(batch.ops),
            columns: columns
                .map(|(column, data_type)| Column {
                    data_type: *data_type,
                    row_count,
                    validity: column.validity,
                    offsets: column.offsets,
                    values: column.values,
                })
                .collect(),
        };
        let outcome = self.binding.transform(&batch).map_err(failure_to_wit)?;
        Ok(outcome_to_wit(outcome))
    }
}

fn outcome_to_wit(outcome: Outcome) -> wit::Outcome {
    let Outcome {
        keep,
        columns,
        rejected,
        replaced,
    } = outcome;
    let verdict = if let Some(rows) = replaced {
        wit_types::Verdict::Replace(rows.into_iter().map(rows_to_wit).collect())
    } else if keep.is_none() && columns.is_empty() {
        wit_types::Verdict::Unchanged
    } else {
        wit_types::Verdict::Rows(wit_types::Rows {
            keep: keep.map(|selection| selection.bits),
            columns: columns
                .into_iter()
                .map(|(write, column)| (write as u32, column_to_wit(column)))
                .collect(),
        })
    };
    let rejected = rejected
        .into_iter()
        .map(|(row, code, message)| wit_types::Rejection {
            row: row as u32,
            code,
            message,
        })
        .collect();
    wit::Outcome { verdict, rejected }
}

/// Columns in the order in which the target declares them.
fn rows_to_wit(mut rows: Rows) -> wit_types::Output {
    rows.columns.sort_by_key(|(made, _)| *made);
    wit_types::Output {
        target: rows.target as u32,
        parents: rows.parents,
        columns: rows
            .columns
            .into_iter()
            .map(|(_, column)| column_to_wit(column))
            .collect(),
    }
}

fn column_to_wit(column: Column) -> wit_types::Column {
    wit_types::Column {
        validity: column.validity,
        absent: None,
        offsets: column.offsets,
        values: column.values,
        child_validity: None,
        child_offsets: None,
    }
}

fn shape_to_wit(shape: &Shape) -> wit::Shape {
    wit::Shape {
        reads: shape.reads.iter().map(|read| *read as u32).collect(),
        cardinality: if !shape.targets.is_empty() {
            wit_types::Cardinality::Any
        } else if shape.may_drop {
            wit_types::Cardinality::MayDrop
        } else {
            wit_types::Cardinality::SameRows
        },
        writes: shape
            .writes
            .iter()
            .map(|(replaced, field)| (replaced.map(|index| index as u32), field_to_wit(field)))
            .collect(),
        targets: shape.targets.iter().map(target_to_wit).collect(),
    }
}

fn target_to_wit(target: &Target) -> wit_types::Target {
    let columns = target.columns.iter().map(|column| match column {
        TargetColumn::Passed(index) => wit_types::TargetColumn::Passed(*index as u32),
        TargetColumn::Made(field) => wit_types::TargetColumn::Made(field_to_wit(field)),
    });
    wit_types::Target {
        name: target.name.clone(),
        columns: columns.collect(),
        key: target.key.iter().map(|index| *index as u32).collect(),
    }
}

fn ops_from_wit(ops: wit_types::Ops) -> Ops {
    match ops {
        wit_types::Ops::All(op) => Ops::All(op_from_wit(op)),
        wit_types::Ops::Each(ops) => Ops::Each(ops.into_iter().map(op_from_wit).collect()),
    }
}

fn op_from_wit(op: wit_types::Op) -> Op {
    match op {
        wit_types::Op::Insert => Op::Insert,
        wit_types::Op::Update => Op::Update,
        wit_types::Op::Delete => Op::Delete,
    }
}

fn problem_to_wit(problem: Problem) -> wit::Problem {
    wit::Problem {
        path: problem.path,
        message: problem.message,
    }
}

fn failure_to_wit(failure: Failure) -> wit::Failure {
    match failure {
        Failure::Unsupported(message) => wit::Failure::Unsupported(message),
        Failure::Failed(message) => wit::Failure::Failed(message),
    }
}

fn table_from_wit(table: wit::Table) -> Table {
    let fields = table.fields.into_iter().map(|field| Field {
        name: field.name,
        data_type: data_type_from_wit(field.data_type),
        nullable: field.nullable,
        key: field.key,
        source_type: field.source_type,
    });
    Table {
        database: table.database,
        name: table.name,
        fields: fields.collect(),
    }
}

fn field_to_wit(field: &Field) -> wit_types::Field {
    wit_types::Field {
        name: field.name.clone(),
        data_type: data_type_to_wit(field.data_type),
        nullable: field.nullable,
        key: field.key,
        source_type: field.source_type.clone(),
    }
}

fn data_type_from_wit(data_type: wit_types::DataType) -> DataType {
    use wit_types::Scalar;
    let scalar = match data_type {
        wit_types::DataType::Plain(scalar) => scalar,
        wit_types::DataType::ListOf(scalar) => return DataType::List(item_from_wit(scalar)),
    };
    match scalar {
        Scalar::Boolean => DataType::Boolean,
        Scalar::Int8 => DataType::Int8,
        Scalar::Int16 => DataType::Int16,
        Scalar::Int32 => DataType::Int32,
        Scalar::Int64 => DataType::Int64,
        Scalar::Uint8 => DataType::UInt8,
        Scalar::Uint16 => DataType::UInt16,
        Scalar::Uint32 => DataType::UInt32,
        Scalar::Uint64 => DataType::UInt64,
        Scalar::Float32 => DataType::Float32,
        Scalar::Float64 => DataType::Float64,
        Scalar::Decimal128((precision, scale)) => DataType::Decimal128 { precision, scale },
        Scalar::Decimal256((precision, scale)) => DataType::Decimal256 { precision, scale },
        Scalar::Date32 => DataType::Date32,
        Scalar::Time64Micros => DataType::Time64Micros,
        Scalar::TimestampMicros(utc) => DataType::TimestampMicros { utc },
        Scalar::Utf8 => DataType::Utf8,
        Scalar::Binary => DataType::Binary,
    }
}

fn item_from_wit(scalar: wit_types::Scalar) -> Item {
    use wit_types::Scalar;
    match scalar {
        Scalar::Int8 => Item::Int8,
        Scalar::Int16 => Item::Int16,
        Scalar::Int32 => Item::Int32,
        Scalar::Int64 => Item::Int64,
        Scalar::Uint8 => Item::UInt8,
        Scalar::Uint16 => Item::UInt16,
        Scalar::Uint32 => Item::UInt32,
        Scalar::Uint64 => Item::UInt64,
        Scalar::Float32 => Item::Float32,
        Scalar::Float64 => Item::Float64,
        _ => Item::Other,
    }
}

fn data_type_to_wit(data_type: DataType) -> wit_types::DataType {
    use wit_types::Scalar;
    wit_types::DataType::Plain(match data_type {
        DataType::Boolean => Scalar::Boolean,
        DataType::Int8 => Scalar::Int8,
        DataType::Int16 => Scalar::Int16,
        DataType::Int32 => Scalar::Int32,
        DataType::Int64 => Scalar::Int64,
        DataType::UInt8 => Scalar::Uint8,
        DataType::UInt16 => Scalar::Uint16,
        DataType::UInt32 => Scalar::Uint32,
        DataType::UInt64 => Scalar::Uint64,
        DataType::Float32 => Scalar::Float32,
        DataType::Float64 => Scalar::Float64,
        DataType::Decimal128 { precision, scale } => Scalar::Decimal128((precision, scale)),
        DataType::Decimal256 { precision, scale } => Scalar::Decimal256((precision, scale)),
        DataType::Date32 => Scalar::Date32,
        DataType::Time64Micros => Scalar::Time64Micros,
        DataType::TimestampMicros { utc } => Scalar::TimestampMicros(utc),
        DataType::Utf8 => Scalar::Utf8,
        DataType::Binary => Scalar::Binary,
        DataType::List(item) => {
            // What the SDK does not read it cannot fill either; the host refuses it by name.
            let of = item.data_type().unwrap_or(DataType::Binary);
            return match data_type_to_wit(of) {
                wit_types::DataType::Plain(scalar) => wit_types::DataType::ListOf(scalar),
                list @ wit_types::DataType::ListOf(_) => list,
            };
        }
    })
}
