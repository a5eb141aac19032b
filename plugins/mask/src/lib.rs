//! Hides the values of chosen columns: a salted hash, a fixed text, the outer characters, or NULL.

mod hash;
mod keyed;
mod method;

use pipewright_sdk::schema::{self, JsonSchema, schemars};
use pipewright_sdk::{
    Batch, Binding, BytesBuilder, Column, DataType, Failure, Field, Outcome, Problem, Read, Shape,
    Table, Transform, Write, export,
};
use serde::Deserialize;

use crate::keyed::Tokens;

pub use method::{Method, MethodName};

export!(Mask);

/// The plugin, configured.
#[derive(Debug)]
pub struct Mask {
    columns: Vec<String>,
    method: Method,
}

/// Hides the values of chosen columns.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The columns to hide.
    columns: Vec<String>,
    /// How.
    method: MethodName,
    /// sha256: what stands before the value in the hash. Needed, because hashes of e-mail addresses can be guessed.
    salt: Option<String>,
    /// hmac and tokenise: the secret.
    key: Option<String>,
    /// redact: the text in the value's place.
    text: Option<String>,
    /// partial: how many characters stay at the beginning.
    first: Option<usize>,
    /// partial: how many characters stay at the end.
    last: Option<usize>,
}

impl Transform for Mask {
    type Config = Config;
    type Binding = BoundMask;

    fn new(config: Config) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        if config.columns.is_empty() {
            problems.push(Problem::at("/columns", "name at least one column"));
        }
        for (index, column) in config.columns.iter().enumerate() {
            if config.columns[..index].contains(column) {
                let message = format!("column `{column}` stands here twice");
                problems.push(Problem::at(format!("/columns/{index}"), message));
            }
        }
        let method = Method::new(&config, &mut problems);
        match method {
            Some(method) if problems.is_empty() => Ok(Self {
                columns: config.columns,
                method,
            }),
            _ => Err(problems),
        }
    }

    fn bind(&self, table: &Table) -> Result<BoundMask, Failure> {
        let mut shape = Shape::new();
        let mut columns = Vec::new();
        for name in &self.columns {
            let (index, field) = table.require(name)?;
            self.ensure_maskable(field)?;
            let masked = if matches!(self.method, Method::Null) {
                MaskedColumn::Null(shape.replace(index, field.clone()), field.data_type)
            } else {
                MaskedColumn::Text(shape.read(index), shape.replace(index, field.clone()))
            };
            columns.push(masked);
        }
        Ok(BoundMask {
            shape,
            columns,
            method: self.method.clone(),
        })
    }

    fn config_schema() -> Option<String> {
        Some(schema::of::<Config>())
    }
}

impl Mask {
    fn ensure_maskable(&self, field: &Field) -> Result<(), Failure> {
        let name = &field.name;
        if field.key {
            return Err(Failure::unsupported(format!(
                "column `{name}` is part of the key; hiding it could make two rows one. Exclude it or mask another column"
            )));
        }
        if matches!(self.method, Method::Null) {
            if !field.nullable {
                return Err(Failure::unsupported(format!(
                    "column `{name}` is NOT NULL, so method `null` cannot hide it; use `redact`, or exclude the column"
                )));
            }
        } else if field.data_type != DataType::Utf8 {
            return Err(Failure::unsupported(format!(
                "column `{name}` is `{}`, not text; only method `null` hides it",
                field.source_type
            )));
        }
        Ok(())
    }
}

/// The plugin, bound to a table.
#[derive(Debug)]
pub struct BoundMask {
    shape: Shape,
    columns: Vec<MaskedColumn>,
    method: Method,
}

#[derive(Debug)]
enum MaskedColumn {
    Null(Write, DataType),
    Text(Read, Write),
}

impl Binding for BoundMask {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn transform(&self, batch: &Batch) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::unchanged();
        for column in &self.columns {
            outcome = match column {
                MaskedColumn::Null(write, data_type) => {
                    outcome.column(*write, Column::nulls(*data_type, batch.len()))
                }
                MaskedColumn::Text(read, write) => {
                    outcome.column(*write, self.mask(batch.column(*read))?)
                }
            };
        }
        Ok(outcome)
    }
}

impl BoundMask {
    /// NULL stays NULL: that a value is missing is not the secret.
    fn mask(&self, column: &Column) -> Result<Column, Failure> {
        let mut builder = BytesBuilder::new(DataType::Utf8, column.len());
        match &self.method {
            Method::Sha256(begun) => hash_all(column, &mut builder, |value| begun.hash([value]))?,
            Method::Hmac(key) => hash_all(column, &mut builder, |value| key.hash([value]))?,
            Method::Tokenise(key) => {
                let values = column.bytes()?;
                builder.reserve_bytes(values.byte_count());
                let mut room = Tokens::default();
                for value in values.iter() {
                    match value {
                        Some(value) => builder.push_with(|out| room.write_token(key, value, out)),
                        None => builder.push(None),
                    }
                }
            }
            Method::Redact(text) => {
                builder.reserve_bytes(text.len() * column.len());
                for row in 0..column.len() {
                    builder.push((!column.is_null(row)).then_some(text.as_bytes()));
                }
            }
            Method::Partial { first, last } => {
                let values = column.strings()?;
                for value in values.iter() {
                    match value {
                        Some(value) => builder
                            .push_with(|out| method::write_partial(value, *first, *last, out)),
                        None => builder.push(None),
                    }
                }
            }
            Method::Null => return Ok(Column::nulls(DataType::Utf8, column.len())),
        }
        Ok(builder.finish())
    }
}

fn hash_all(
    column: &Column,
    builder: &mut BytesBuilder,
    hash: impl Fn(&[u8]) -> [u8; 32],
) -> Result<(), Failure> {
    builder.reserve_bytes(64 * column.len());
    for value in column.bytes()?.iter() {
        match value {
            Some(value) => builder.push_with(|out| hash::write_hex(&hash(value), out)),
            None => builder.push(None),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use pipewright_sdk::Op;
    use pipewright_sdk::testing::{Cell, Harness};

    use super::*;

    fn fields() -> Vec<Field> {
        vec![
            Field::new("id", DataType::Int64).key(),
            Field::new("email", DataType::Utf8),
            Field::new("name", DataType::Utf8).not_null(),
            Field::new("age", DataType::Int32),
        ]
    }

    fn row(email: Cell) -> (Op, Vec<Cell>) {
        let cells = vec![Cell::Int(1), email, Cell::text("Ann"), Cell::Int(30)];
        (Op::Insert, cells)
    }

    fn masked(config: &str, email: Cell) -> Cell {
        let harness = Harness::<Mask>::new(config, &fields()).unwrap();
        let rows = harness.run(&[row(email)]).unwrap();
        rows[0].as_ref().unwrap()[1].clone()
    }

    fn refusal(config: &str) -> String {
        Harness::<Mask>::new(config, &fields()).unwrap_err()
    }

    #[test]
    fn sha256_is_the_hash_of_salt_and_value_in_hex() {
        let config = r#"{"columns": ["email"], "method": "sha256", "salt": "ab"}"#;
        // printf 'abc' | sha256sum
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(masked(config, Cell::text("c")), Cell::text(expected));
    }

    #[test]
    fn null_stays_null_under_every_method() {
        for config in [
            r#"{"columns": ["email"], "method": "sha256", "salt": "ab"}"#,
            r#"{"columns": ["email"], "method": "hmac", "key": "0123456789abcdef"}"#,
            r#"{"columns": ["email"], "method": "tokenise", "key": "0123456789abcdef"}"#,
            r#"{"columns": ["email"], "method": "redact"}"#,
            r#"{"columns": ["email"], "method": "partial"}"#,
            r#"{"columns": ["email"], "method": "null"}"#,
        ] {
            assert_eq!(masked(config, Cell::Null), Cell::Null, "{config}");
        }
    }

    #[test]
    fn keyed_methods_need_a_long_key_and_no_other_takes_one() {
        for method in ["hmac", "tokenise"] {
            let config =
                format!(r#"{{"columns": ["email"], "method": "{method}", "key": "short"}}"#);
            assert!(refusal(&config).starts_with("/key: this method needs a key of 16 bytes"));
        }
        let config = r#"{"columns": ["email"], "method": "null", "key": "0123456789abcdef"}"#;
        assert!(refusal(config).starts_with("/key: only methods"));
    }

    #[test]
    fn a_token_keeps_the_form_of_an_address() {
        let config = r#"{"columns": ["email"], "method": "tokenise", "key": "0123456789abcdef"}"#;
        let Cell::Text(token) = masked(config, Cell::text("ann7@example.com")) else {
            panic!("a token is text");
        };
        assert_eq!(
            (token.len(), token.find('@'), token.rfind('.')),
            (16, Some(4), Some(12))
        );
        assert_ne!(token, "ann7@example.com");
    }

    #[test]
    fn redact_writes_its_text() {
        let config = r#"{"columns": ["email"], "method": "redact", "text": "gone"}"#;
        assert_eq!(masked(config, Cell::text("x")), Cell::text("gone"));
    }

    #[test]
    fn partial_keeps_the_domain_and_the_outer_characters() {
        let config = r#"{"columns": ["email"], "method": "partial", "first": 2, "last": 1}"#;
        assert_eq!(
            masked(config, Cell::text("joänna@example.com")),
            Cell::text("jo***a@example.com")
        );
        assert_eq!(
            masked(config, Cell::text("+4915112345")),
            Cell::text("+4***5")
        );
    }

    #[test]
    fn partial_hides_all_of_a_value_that_is_too_short_to_hide_anything() {
        let config = r#"{"columns": ["email"], "method": "partial", "first": 2, "last": 1}"#;
        assert_eq!(masked(config, Cell::text("abc")), Cell::text("***"));
        assert_eq!(
            masked(config, Cell::text("äb@x.org")),
            Cell::text("***@x.org")
        );
    }

    #[test]
    fn null_empties_a_column_of_any_type() {
        let config = r#"{"columns": ["age"], "method": "null"}"#;
        let harness = Harness::<Mask>::new(config, &fields()).unwrap();
        let rows = harness.run(&[row(Cell::text("a"))]).unwrap();
        assert_eq!(rows[0].as_ref().unwrap()[3], Cell::Null);
    }

    #[test]
    fn a_column_that_does_not_exist_is_named() {
        let text = refusal(r#"{"columns": ["e_mail"], "method": "redact"}"#);
        assert_eq!(text, "column `e_mail` does not exist in table `test.t`");
    }

    #[test]
    fn columns_that_cannot_be_hidden_are_refused() {
        let key = refusal(r#"{"columns": ["id"], "method": "null"}"#);
        assert!(key.starts_with("column `id` is part of the key"), "{key}");
        let not_null = refusal(r#"{"columns": ["name"], "method": "null"}"#);
        assert!(
            not_null.starts_with("column `name` is NOT NULL"),
            "{not_null}"
        );
        let number = refusal(r#"{"columns": ["age"], "method": "redact"}"#);
        assert!(number.contains("only method `null`"), "{number}");
    }

    #[test]
    fn a_bad_configuration_is_refused_with_all_its_places() {
        let text = refusal(r#"{"columns": [], "method": "sha256", "text": "x"}"#);
        for path in ["/columns: ", "/salt: ", "/text: "] {
            assert!(text.contains(path), "{path} in {text}");
        }
        let text = refusal(r#"{"columns": ["email"], "method": "rot13"}"#);
        assert!(
            text.starts_with("/method: unknown variant `rot13`"),
            "{text}"
        );
        let text = refusal(r#"{"columns": ["email", 3], "method": "redact"}"#);
        assert!(text.starts_with("/columns/1: invalid type"), "{text}");
        let text = refusal(r#"{"columns": ["email"], "metod": "redact"}"#);
        assert!(text.contains("unknown field `metod`"), "{text}");
    }
}
