//! A SELECT over each row: columns that it computes, and WHERE.

use pipewright_expression::{OnFailure, Projection, Select, parse_select};
use pipewright_sdk::schema::{self, JsonSchema, schemars};
use pipewright_sdk::{Failure, Problem, Table, Transform, export};
use serde::Deserialize;

export!(Sql);

/// The plugin, configured.
#[derive(Debug)]
pub struct Sql {
    select: Select,
    on_failure: OnFailure,
}

/// A SELECT over each row.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The statement, such as `SELECT *, total * 2 AS twice FROM orders WHERE total > 10`.
    query: String,
    /// What becomes of a value that cannot be computed.
    #[serde(default)]
    on_failure: OnFailure,
}

impl Transform for Sql {
    type Config = Config;
    type Binding = Projection;

    fn new(config: Config) -> Result<Self, Vec<Problem>> {
        parse_select(&config.query)
            .map(|select| Self {
                select,
                on_failure: config.on_failure,
            })
            .map_err(|error| vec![Problem::at("/query", error.to_string())])
    }

    fn bind(&self, table: &Table) -> Result<Projection, Failure> {
        let Select { columns, condition } = &self.select;
        Projection::bind(columns, condition.as_ref(), self.on_failure, table)
    }

    fn config_schema() -> Option<String> {
        Some(schema::of::<Config>())
    }
}

#[cfg(test)]
mod tests {
    use pipewright_sdk::testing::{Cell, Harness};
    use pipewright_sdk::{DataType, Field, Op};

    use super::*;

    fn harness(query: &str) -> Result<Harness<Sql>, String> {
        let fields = [
            Field::new("id", DataType::Int64).key(),
            Field::new("name", DataType::Utf8),
            Field::new("age", DataType::Int32),
        ];
        Harness::new(&format!("{{\"query\": \"{query}\"}}"), &fields)
    }

    #[test]
    fn a_select_adds_replaces_and_drops() {
        let harness = harness(
            "SELECT *, upper(name) AS name, age * 12 AS months FROM people WHERE age >= 18",
        )
        .unwrap();
        let rows = [
            (
                Op::Insert,
                vec![Cell::Int(1), Cell::text("ann"), Cell::Int(36)],
            ),
            (
                Op::Insert,
                vec![Cell::Int(2), Cell::text("bob"), Cell::Int(7)],
            ),
        ];
        let rows = harness.run(&rows).unwrap();
        let expected = vec![
            Cell::Int(1),
            Cell::text("ANN"),
            Cell::Int(36),
            Cell::Int(432),
        ];
        assert_eq!(rows, [Some(expected), None]);
    }

    #[test]
    fn the_table_may_be_named_as_sql_does() {
        for from in [
            "",
            "FROM people",
            "FROM shop.people",
            "FROM shop.people AS p",
            "FROM `people` p",
        ] {
            let harness = harness(&format!("SELECT *, age AS years {from} WHERE age > 1"));
            assert!(harness.is_ok(), "{from}: {harness:?}");
        }
    }

    #[test]
    fn what_looks_at_more_than_one_row_is_refused_by_name() {
        for (query, word) in [
            (
                "SELECT *, count(id) AS n FROM t",
                "`count` looks at more than one row",
            ),
            (
                "SELECT * FROM t GROUP BY name",
                "GROUP looks at more than one row",
            ),
            (
                "SELECT * FROM t WHERE age > 1 ORDER BY id",
                "ORDER looks at more than one row",
            ),
            (
                "SELECT * FROM t LIMIT 10",
                "LIMIT looks at more than one row",
            ),
            (
                "SELECT DISTINCT * FROM t",
                "DISTINCT looks at more than one row",
            ),
            (
                "SELECT * FROM t LEFT JOIN u ON u.id = t.id",
                "at character 17: JOIN looks at more than one row",
            ),
            ("SELECT * FROM t AS a JOIN u", "JOIN looks at"),
            ("SELECT * FROM t, u", "a second table looks at"),
            ("SELECT * FROM (SELECT 1) s", "a subquery looks at"),
            (
                "SELECT *, (SELECT 1) AS one FROM t",
                "at character 12: a subquery looks at more than one row",
            ),
            (
                "SELECT * FROM t WHERE id IN (SELECT id FROM u)",
                "a subquery looks at more than one row",
            ),
            ("SELECT * FROM t WHERE EXISTS (SELECT 1)", "EXISTS looks at"),
            (
                "WITH a AS (SELECT 1) SELECT * FROM a",
                "at character 1: WITH looks at",
            ),
            (
                "SELECT *, row_number() OVER (ORDER BY id) AS n FROM t",
                "at character 24: OVER looks at more than one row",
            ),
            (
                "SELECT *, sum(age) OVER () AS n FROM t",
                "`sum` looks at more than one row",
            ),
            (
                "SELECT *, count(*) AS n FROM t",
                "at character 11: `count` looks at more than one row",
            ),
            ("SELECT * FROM t UNION SELECT * FROM u", "UNION looks at"),
            ("SELECT * FROM t HAVING age > 1", "HAVING looks at"),
            ("SELECT * FROM t a GROUP BY name", "GROUP looks at"),
            (
                "SELECT *, upper(name) FROM t",
                "expected AS and the name of the column, found `FROM`",
            ),
            (
                "SELECT *, 1 AS a, 2 AS a FROM t",
                "column `a` is computed twice",
            ),
            ("SELECT id FROM t", "begin with `SELECT *`"),
            (
                "SELECT id, name FROM t",
                "`exclude_columns` in the pipe file leaves some out",
            ),
            (
                "SELECT *, now() AS at FROM t",
                "`now` is not the same on a replay",
            ),
        ] {
            let text = harness(query).unwrap_err();
            assert!(text.contains(word), "{query}: {text}");
        }
    }
}
