//! SQL's expressions over the columns of a batch: parsed once, typed when a table is bound, evaluated a column at a time.
//!
//! Numbers are exact: integers and decimals of up to 38 digits are counted in units of their last digit. A value that
//! cannot be (an overflow, a text that is no number) marks its row, and only where the row needs it: `CASE`, `AND`, `OR`
//! and `COALESCE` pass over what they do not choose. Dividing by zero gives NULL, as MySQL has it.

mod apply;
mod arithmetic;
mod calendar;
mod cast;
mod compile;
mod condition;
mod evaluate;
mod functions;
mod lex;
mod literal;
mod output;
mod parse;
mod projection;
mod select;
mod syntax;
mod truth;
mod vector;

use pipewright_sdk::{Batch, Column, DataType, Failure, Shape, Table};

pub use output::Failed;
pub use parse::parse;
pub use projection::{OnFailure, Projection};
pub use select::parse_select;
pub use syntax::{Error, Expr, Select};
pub use truth::{FALSE, TRUE, UNKNOWN};

/// A condition, bound to a table.
#[derive(Clone, Debug)]
pub struct Predicate(condition::Condition);

impl Predicate {
    /// Types an expression that is true or not; `shape` learns which columns it reads.
    ///
    /// # Errors
    /// What does not fit, and where.
    pub fn bind(expression: &Expr, table: &Table, shape: &mut Shape) -> Result<Self, Error> {
        condition::compile_condition(expression, table, shape).map(Self)
    }

    /// [`FALSE`], [`UNKNOWN`] or [`TRUE`] for each row, and above that what failed, see [`Failed::of_truth`].
    ///
    /// # Errors
    /// When the batch is not of the table that it is bound to.
    pub fn evaluate(&self, batch: &Batch) -> Result<Vec<u8>, Failure> {
        truth::evaluate(&self.0, batch)
    }
}

/// A value, bound to a table.
#[derive(Clone, Debug)]
pub struct Computed {
    typed: compile::Typed,
    data_type: DataType,
}

impl Computed {
    /// Types an expression; `shape` learns which columns it reads.
    ///
    /// # Errors
    /// What does not fit, and where.
    pub fn bind(expression: &Expr, table: &Table, shape: &mut Shape) -> Result<Self, Error> {
        let typed = compile::compile(expression, table, shape)?;
        let data_type = typed.data_type()?;
        Ok(Self { typed, data_type })
    }

    /// What a column of it holds.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// The column, NULL where a row failed, and the rows that did.
    ///
    /// # Errors
    /// When the batch is not of the table that it is bound to.
    pub fn evaluate(&self, batch: &Batch) -> Result<(Column, Vec<Failed>), Failure> {
        let vector = evaluate::evaluate(&self.typed, batch)?;
        Ok(output::column(&vector, self.data_type))
    }
}

#[cfg(test)]
mod tests;
