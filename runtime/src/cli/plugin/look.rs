//! `plugin inspect` and `plugin run`: what a plugin would do.

use serde_json::{Value, json};

use super::arguments::{Inspect, Run};
use super::{engine, show, usage};
use crate::author::{self, applied_to_json, row_to_json};
use crate::cli::exit::Exit;
use crate::cli::output::{self, Result};
use crate::config::Secrets;
use crate::error::Error;
use crate::pipe;

pub(super) fn inspect(options: &Inspect, as_json: bool) -> Result<Exit> {
    let component = options.which.component()?;
    let engine = engine()?;
    let inspection = crate::cli::block_on(async { Ok(engine.inspect(&component.path).await?) })?;
    let bindings = if let Some(path) = &options.pipe {
        let pipes = crate::cli::load(std::slice::from_ref(path), Secrets::Resolve)?;
        let mut bindings = Vec::new();
        for config in &pipes {
            let plan = crate::cli::block_on(async { Ok(pipe::plan(config).await?) })?;
            for table in plan.tables {
                bindings.push(json!({ "table": table.source, "transforms": table.transforms, "columns": table.columns }));
            }
        }
        bindings
    } else if let Some(case) = chosen_case(options, &component)? {
        let bound = crate::cli::block_on(async {
            Ok(author::bind(&engine, &component.name, &component.path, &case).await?)
        })?;
        vec![bound]
    } else {
        Vec::new()
    };
    if as_json {
        output::data(
            &json!({ "component": component.path, "inspection": inspection, "bindings": bindings }),
        );
    } else {
        output::text(&show::inspection(&component.path, &inspection, &bindings));
    }
    Ok(if inspection.refusal.is_none() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// The table and configuration to bind with, if any were asked for.
fn chosen_case(options: &Inspect, component: &super::Component) -> Result<Option<author::Case>> {
    if let Some(path) = &options.table {
        let config: Value = serde_json::from_str(&options.config).map_err(|error| {
            usage(
                &format!("--config is no JSON: {error}"),
                "write it as --config '{\"columns\": [\"email\"]}'",
            )
        })?;
        let schema = author::read_table(path)?;
        return Ok(Some(author::Case::of_table(path, schema, config)));
    }
    let Some(wanted) = &options.case else {
        return Ok(None);
    };
    let cases = component.cases(None, None)?;
    let found = cases.into_iter().find(|case| case.name == *wanted);
    found.map(Some).ok_or_else(|| {
        usage(
            &format!("there is no case `{wanted}`"),
            "give the name of a folder of cases/",
        )
    })
}

pub(super) fn run(options: &Run, as_json: bool) -> Result<Exit> {
    let engine = engine()?;
    let pipes = crate::cli::load(std::slice::from_ref(&options.path), Secrets::Resolve)?;
    let [config] = pipes.as_slice() else {
        return Err(usage(
            "the file holds several pipes",
            "give a file with one",
        ));
    };
    let table = options.table.as_deref();
    let sample = crate::cli::block_on(async {
        let sample = pipe::sample(&engine, config, table, options.rows as usize).await;
        Ok(sample.map_err(Error::telling)?)
    })?;
    let rows: Vec<(Value, Vec<Value>)> = sample
        .rows
        .iter()
        .map(|(before, after)| {
            let before = row_to_json(&before.schema, &before.columns, 0);
            (Value::Object(before), applied_to_json(&sample.chain, after))
        })
        .collect();
    let steps = sample.chain.describe();
    if as_json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|(before, after)| json!({ "before": before, "after": after }))
            .collect();
        output::data(
            &json!({ "table": sample.table.to_string(), "transforms": steps, "rows": rows }),
        );
    } else {
        output::text(&show::sample(&sample.table.to_string(), &steps, &rows));
    }
    Ok(Exit::Done)
}
