//! Answers of a few rows, value by value as the text protocol sends them.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};

use super::super::connection::query_error;
use crate::error::Result;

/// The rows that a query answers, each value as the server sends it.
///
/// # Errors
/// Failures of the query.
pub(super) async fn query(conn: &mut Conn, sql: &str) -> Result<Vec<Vec<Option<Vec<u8>>>>> {
    Ok(texts(conn.query::<Row, _>(sql).await.map_err(query_error)?))
}

/// Rows as the server sent them.
pub(super) fn texts(rows: Vec<Row>) -> Vec<Vec<Option<Vec<u8>>>> {
    rows.into_iter()
        .map(|row| {
            row.unwrap()
                .into_iter()
                .map(|value| match value {
                    Value::NULL => None,
                    Value::Bytes(bytes) => Some(bytes),
                    other => Some(other.as_sql(true).into_bytes()),
                })
                .collect()
        })
        .collect()
}

/// The one value of an answer; none for NULL and for no row.
pub(super) fn value(rows: Vec<Vec<Option<Vec<u8>>>>) -> Option<Vec<u8>> {
    rows.into_iter().next()?.into_iter().next()?
}
