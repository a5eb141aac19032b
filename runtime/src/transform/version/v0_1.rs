//! Contract 0.1: generated bindings, and the way between them and the host's own types.

use wasmtime::component::{Component, HasSelf, Linker, ResourceAny};
use wasmtime::{Result, Store, StoreContextMut};

use self::generated::exports::pipewright::transform::plugin as wit;
use self::generated::pipewright::transform::{log, types};
use super::{
    Cardinality, Guest, GuestColumn, GuestField, GuestInput, GuestOps, GuestOutcome, GuestOutput,
    GuestRejection, GuestShape, GuestTarget, GuestTargetColumn, GuestVerdict, Linked, PluginInfo,
    Problem, nothing,
};
use crate::batch::{ColumnType, Number, Op, TableSchema};
use crate::transform::limits::{GuestState, LogLevel};

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated from wit/"
)]
mod generated {
    // Borrowed parameters let a column cross with one copy, from the Arrow buffer into the guest's memory.
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "transform",
        imports: { default: trappable },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

/// A component, linked and ready to be instantiated.
struct LinkedPlugin(generated::TransformPre<GuestState>);

/// What an instance exports, and the table that it is bound to.
struct Exports {
    plugin: generated::Transform,
    binding: Option<ResourceAny>,
}

/// Links a component with the log, the files that the pipe file grants, and WASI that gives nothing.
pub(super) fn link(
    engine: &wasmtime::Engine,
    component: &Component,
) -> Result<impl Linked + use<>> {
    let mut linker = Linker::new(engine);
    generated::Transform::add_to_linker::<_, HasSelf<GuestState>>(&mut linker, |state| state)?;
    linker.instance(LOOKUP)?.func_wrap(
        "read",
        |store: StoreContextMut<'_, GuestState>, (name,): (String,)| {
            Ok((store.data().lookup(&name),))
        },
    )?;
    nothing::link(engine, component, &mut linker)?;
    let instance = linker.instantiate_pre(component)?;
    Ok(LinkedPlugin(generated::TransformPre::new(instance)?))
}

const LOOKUP: &str = "pipewright:transform/lookup@0.1.0";

impl Linked for LinkedPlugin {
    fn instantiate(&self, store: &mut Store<GuestState>) -> Result<Box<dyn Guest>> {
        let plugin = self.0.instantiate(store)?;
        Ok(Box::new(Exports {
            plugin,
            binding: None,
        }))
    }
}

impl Exports {
    fn binding(&self) -> Result<ResourceAny> {
        self.binding
            .ok_or_else(|| wasmtime::Error::msg("the guest is not bound to a table"))
    }
}

impl Guest for Exports {
    fn describe(&mut self, store: &mut Store<GuestState>) -> Result<PluginInfo> {
        let plugin = self.plugin.pipewright_transform_plugin();
        let info = plugin.call_describe(&mut *store)?;
        Ok(PluginInfo {
            name: info.name,
            version: info.version,
            config_schema: info.config_schema,
        })
    }

    fn configure(
        &mut self,
        store: &mut Store<GuestState>,
        json: &str,
    ) -> Result<Result<(), Vec<Problem>>> {
        let plugin = self.plugin.pipewright_transform_plugin();
        let answer = plugin.call_configure(&mut *store, json)?;
        Ok(answer.map_err(|problems| {
            let problems = problems.into_iter();
            problems
                .map(|problem| Problem {
                    path: problem.path,
                    message: problem.message,
                })
                .collect()
        }))
    }

    fn bind_table(
        &mut self,
        store: &mut Store<GuestState>,
        schema: &TableSchema,
    ) -> Result<Result<(), String>> {
        let fields: Vec<_> = schema
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| types::FieldParam {
                name: &column.name,
                data_type: data_type(column.column_type),
                nullable: column.nullable,
                key: schema.key.contains(&index),
                source_type: &column.source_type,
            })
            .collect();
        let table = types::Table {
            database: &schema.name.database,
            name: &schema.name.table,
            fields: &fields,
        };
        let plugin = self.plugin.pipewright_transform_plugin();
        let answer = plugin.call_bind_table(&mut *store, table)?;
        Ok(answer
            .map(|binding| self.binding = Some(binding))
            .map_err(failure_text))
    }

    fn shape(&mut self, store: &mut Store<GuestState>) -> Result<GuestShape> {
        let binding = self.binding()?;
        let plugin = self.plugin.pipewright_transform_plugin();
        let shape = plugin.binding().call_shape(&mut *store, binding)?;
        Ok(GuestShape {
            reads: shape.reads,
            cardinality: match shape.cardinality {
                types::Cardinality::SameRows => Cardinality::SameRows,
                types::Cardinality::MayDrop => Cardinality::MayDrop,
                types::Cardinality::Any => Cardinality::Any,
            },
            writes: shape
                .writes
                .into_iter()
                .map(|(replaced, field)| (replaced, guest_field(field)))
                .collect(),
            targets: shape.targets.into_iter().map(guest_target).collect(),
        })
    }

    fn transform(
        &mut self,
        store: &mut Store<GuestState>,
        input: &GuestInput<'_>,
    ) -> Result<Result<GuestOutcome, String>> {
        let binding = self.binding()?;
        let columns: Vec<_> = input
            .columns
            .iter()
            .map(|column| types::ColumnParam {
                validity: column.validity.as_deref(),
                absent: None,
                offsets: column.offsets.as_deref(),
                values: &column.values,
                child_validity: None,
                child_offsets: None,
            })
            .collect();
        let ops: Vec<types::Op>;
        let batch = types::Batch {
            row_count: input.row_count,
            ops: match input.ops {
                GuestOps::AllInserts => types::Ops::All(types::Op::Insert),
                GuestOps::Each(each) => {
                    ops = each.iter().map(|op| wit_op(*op)).collect();
                    types::Ops::Each(&ops)
                }
            },
            columns: &columns,
        };
        let plugin = self.plugin.pipewright_transform_plugin();
        let answer = plugin
            .binding()
            .call_transform(&mut *store, binding, batch)?;
        Ok(answer.map(guest_outcome).map_err(failure_text))
    }
}

impl log::Host for GuestState {
    fn write(&mut self, level: log::Level, message: String) -> Result<()> {
        let level = match level {
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        self.log(level, &message)
    }
}

impl types::Host for GuestState {}

fn failure_text(failure: wit::Failure) -> String {
    match failure {
        wit::Failure::Unsupported(text) | wit::Failure::Failed(text) => text,
    }
}

fn guest_outcome(outcome: wit::Outcome) -> GuestOutcome {
    GuestOutcome {
        verdict: match outcome.verdict {
            types::Verdict::Unchanged => GuestVerdict::Unchanged,
            types::Verdict::Rows(rows) => GuestVerdict::Rows {
                keep: rows.keep,
                columns: rows
                    .columns
                    .into_iter()
                    .map(|(write, column)| (write, guest_column(column)))
                    .collect(),
            },
            types::Verdict::Replace(outputs) => {
                GuestVerdict::Replace(outputs.into_iter().map(guest_output).collect())
            }
        },
        rejected: outcome
            .rejected
            .into_iter()
            .map(|rejection| GuestRejection {
                row: rejection.row,
                code: rejection.code,
                message: rejection.message,
            })
            .collect(),
    }
}

fn guest_output(output: types::Output) -> GuestOutput {
    GuestOutput {
        target: output.target,
        parents: output.parents,
        columns: output.columns.into_iter().map(guest_column).collect(),
    }
}

fn guest_target(target: types::Target) -> GuestTarget {
    let columns = target.columns.into_iter().map(|column| match column {
        types::TargetColumn::Passed(index) => GuestTargetColumn::Passed(index),
        types::TargetColumn::Made(field) => GuestTargetColumn::Made(guest_field(field)),
    });
    GuestTarget {
        name: target.name,
        columns: columns.collect(),
        key: target.key,
    }
}

fn guest_column(column: types::ColumnResult) -> GuestColumn {
    GuestColumn {
        validity: column.validity,
        absent: column.absent.is_some(),
        offsets: column.offsets,
        values: column.values,
        child_validity: column.child_validity,
        child_offsets: column.child_offsets.is_some(),
    }
}

fn guest_field(field: types::FieldResult) -> GuestField {
    GuestField {
        column_type: column_type(field.data_type),
        name: field.name,
        nullable: field.nullable,
        key: field.key,
        source_type: field.source_type,
    }
}

fn wit_op(op: Op) -> types::Op {
    match op {
        Op::Insert => types::Op::Insert,
        Op::Update => types::Op::Update,
        Op::Delete => types::Op::Delete,
    }
}

fn data_type(column_type: ColumnType) -> types::DataType {
    match column_type {
        list @ (ColumnType::Vector | ColumnType::List(_)) => types::DataType::ListOf(scalar(list)),
        other => types::DataType::Plain(scalar(other)),
    }
}

/// Of a list, what it is of.
fn scalar(column_type: ColumnType) -> types::Scalar {
    use types::Scalar;
    match column_type {
        ColumnType::List(number) => scalar(number.column_type()),
        ColumnType::Bool => Scalar::Boolean,
        ColumnType::Int8 => Scalar::Int8,
        ColumnType::Int16 => Scalar::Int16,
        ColumnType::Int32 => Scalar::Int32,
        ColumnType::Int64 => Scalar::Int64,
        ColumnType::UInt8 => Scalar::Uint8,
        ColumnType::UInt16 => Scalar::Uint16,
        ColumnType::UInt32 => Scalar::Uint32,
        ColumnType::UInt64 => Scalar::Uint64,
        ColumnType::Float32 | ColumnType::Vector => Scalar::Float32,
        ColumnType::Float64 => Scalar::Float64,
        ColumnType::Decimal { precision, scale } if precision <= 38 => {
            Scalar::Decimal128((precision, scale.cast_signed()))
        }
        ColumnType::Decimal { precision, scale } => {
            Scalar::Decimal256((precision, scale.cast_signed()))
        }
        ColumnType::Date => Scalar::Date32,
        ColumnType::DateTime { .. } => Scalar::TimestampMicros(false),
        ColumnType::Timestamp { .. } => Scalar::TimestampMicros(true),
        ColumnType::Time { .. } => Scalar::Time64Micros,
        ColumnType::Text
        | ColumnType::Label
        | ColumnType::Json
        | ColumnType::Uuid
        | ColumnType::Inet4
        | ColumnType::Inet6 => Scalar::Utf8,
        ColumnType::Bytes => Scalar::Binary,
    }
}

/// The column type that a guest's type stands for, or the name of what this build has no column for.
fn column_type(data_type: types::DataType) -> Result<ColumnType, &'static str> {
    use types::Scalar;
    let scalar = match data_type {
        types::DataType::Plain(scalar) => scalar,
        types::DataType::ListOf(scalar) => {
            let element = column_type(types::DataType::Plain(scalar))?;
            let number = Number::of(element).ok_or("list-of what is no number")?;
            return Ok(ColumnType::List(number));
        }
    };
    let decimal = |precision: u8, scale: i8, digits: std::ops::RangeInclusive<u8>| {
        u8::try_from(scale)
            .ok()
            .filter(|scale| *scale <= 30 && *scale <= precision && digits.contains(&precision))
            .map(|scale| ColumnType::Decimal { precision, scale })
    };
    Ok(match scalar {
        Scalar::Boolean => ColumnType::Bool,
        Scalar::Int8 => ColumnType::Int8,
        Scalar::Int16 => ColumnType::Int16,
        Scalar::Int32 => ColumnType::Int32,
        Scalar::Int64 => ColumnType::Int64,
        Scalar::Uint8 => ColumnType::UInt8,
        Scalar::Uint16 => ColumnType::UInt16,
        Scalar::Uint32 => ColumnType::UInt32,
        Scalar::Uint64 => ColumnType::UInt64,
        Scalar::Float32 => ColumnType::Float32,
        Scalar::Float64 => ColumnType::Float64,
        Scalar::Decimal128((precision, scale)) => decimal(precision, scale, 1..=38)
            .ok_or("decimal128 outside of 38 digits, 30 after the point")?,
        Scalar::Decimal256((precision, scale)) => decimal(precision, scale, 39..=65)
            .ok_or("decimal256 outside of 39 to 65 digits, 30 after the point")?,
        Scalar::Date32 => ColumnType::Date,
        Scalar::Time64Micros => ColumnType::Time { digits: 6 },
        Scalar::TimestampMicros(false) => ColumnType::DateTime { digits: 6 },
        Scalar::TimestampMicros(true) => ColumnType::Timestamp { digits: 6 },
        Scalar::Utf8 => ColumnType::Text,
        Scalar::Binary => ColumnType::Bytes,
    })
}
