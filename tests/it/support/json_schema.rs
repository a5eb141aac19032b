//! Whether a value fits a JSON Schema, for the keywords that the plugins' schemas are made of.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

/// Err says where the value does not fit. A keyword that is not known here is an error too: nothing is passed over.
pub(crate) fn ensure_fits(schema: &Value, value: &Value) -> Result<()> {
    fits(schema, schema, value, "")
}

fn fits(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<()> {
    let Value::Object(keywords) = schema else {
        ensure!(*schema == Value::Bool(true), "`{at}` may not be there");
        return Ok(());
    };
    for (keyword, wanted) in keywords {
        let list = || wanted.as_array().into_iter().flatten();
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "format" => {}
            "$ref" => {
                let place = wanted.as_str().and_then(|to| to.strip_prefix('#'));
                let target = place.and_then(|place| root.pointer(place));
                fits(
                    root,
                    target.context("a reference leads nowhere")?,
                    value,
                    at,
                )?;
            }
            "type" => {
                let fitting = match wanted {
                    Value::Array(names) => names.iter().any(|name| is_of(value, name)),
                    name => is_of(value, name),
                };
                ensure!(fitting, "`{at}` is no {wanted}");
            }
            "const" => ensure!(value == wanted, "`{at}` is not {wanted}"),
            "enum" => ensure!(list().any(|one| one == value), "`{at}` is none of {wanted}"),
            "oneOf" | "anyOf" => {
                let fitting = list().filter(|one| fits(root, one, value, at).is_ok());
                ensure!(fitting.count() >= 1, "`{at}` fits no part of {wanted}");
            }
            "minimum" => ensure!(
                value
                    .as_f64()
                    .zip(wanted.as_f64())
                    .is_none_or(|(value, least)| value >= least),
                "`{at}` is below {wanted}"
            ),
            "required" | "properties" | "additionalProperties" | "items" => {
                members_fit(root, keywords, keyword, value, at)?;
            }
            keyword => bail!("`{at}`: the keyword `{keyword}` is not known here"),
        }
    }
    Ok(())
}

/// What stands inside an object or a list.
fn members_fit(
    root: &Value,
    keywords: &Map<String, Value>,
    keyword: &str,
    value: &Value,
    at: &str,
) -> Result<()> {
    let wanted = &keywords[keyword];
    let known = |key: &str| {
        let properties = keywords.get("properties");
        properties.and_then(|properties| properties.get(key))
    };
    match keyword {
        "required" => {
            for key in wanted
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
            {
                ensure!(value.get(key).is_some(), "`{at}` has no `{key}`");
            }
        }
        "items" => {
            for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                fits(root, wanted, value, &format!("{at}/{index}"))?;
            }
        }
        _ => {
            for (key, value) in value.as_object().into_iter().flatten() {
                let at = format!("{at}/{key}");
                match (keyword, known(key)) {
                    ("properties", Some(schema)) => fits(root, schema, value, &at)?,
                    ("additionalProperties", None) => fits(root, wanted, value, &at)?,
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

fn is_of(value: &Value, name: &Value) -> bool {
    match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => false,
    }
}
