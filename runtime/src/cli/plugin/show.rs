//! What the author's verbs print for people.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Map, Value};

use super::keys;
use crate::author::{Figures, Report};
use crate::transform::{Inspection, StepDescription};

/// Cells wider than this are cut: a screen is no place for documents.
const CELL: usize = 48;

pub(super) fn bytes(size: u64) -> String {
    match size {
        0..=9_999 => format!("{size} bytes"),
        10_000..=9_999_999 => format!("{} kB", size / 1000),
        _ => format!("{} MB", size / 1_000_000),
    }
}

pub(super) fn report(report: &Report) -> String {
    let mut text = match (report.differences.is_empty(), report.updated) {
        (true, true) => format!("new   {}\n", report.case),
        (true, false) => format!("ok    {}\n", report.case),
        (false, _) => format!("FAIL  {}\n", report.case),
    };
    for difference in &report.differences {
        writeln!(text, "      {}", difference.what).ok();
        for (sign, lines) in [('-', &difference.expected), ('+', &difference.got)] {
            for line in lines.iter().flat_map(|lines| lines.lines()) {
                writeln!(text, "      {sign} {line}").ok();
            }
        }
    }
    text
}

pub(super) fn figures(figures: &Figures) -> String {
    let boundary = match (
        figures.nothing_micros,
        figures.boundary_share,
        &figures.nothing_missing,
    ) {
        (Some(micros), Some(share), _) => {
            format!("doing nothing {micros:.0} µs, {:.0} % of it", 100.0 * share)
        }
        (.., Some(why)) => format!("doing nothing: not measured, {why}"),
        _ => "doing nothing: not measured".to_owned(),
    };
    format!(
        "{}: {} rows, {:.1} MB a batch, median of {} batches\n  {:.0} µs a batch; {:.2} million rows/s, {:.0} MB/s; {boundary}; an instance {:.0} µs\n",
        figures.case,
        figures.rows,
        figures.bytes as f64 / 1e6,
        figures.batches,
        figures.micros,
        figures.rows_per_second / 1e6,
        figures.megabytes_per_second,
        figures.instantiate_micros,
    )
}

pub(super) fn inspection(path: &Path, inspection: &Inspection, bindings: &[Value]) -> String {
    let mut text = format!(
        "{}\n  {}, sha256 {}\n",
        path.display(),
        bytes(inspection.size),
        inspection.digest
    );
    if let (Some(name), Some(version)) = (&inspection.name, &inspection.version) {
        writeln!(text, "  plugin    {name} {version}").ok();
    }
    writeln!(text, "  contract  {}", listed(&inspection.contract)).ok();
    writeln!(text, "  imports   {}", listed(&inspection.imports)).ok();
    let keys = match &inspection.config_schema {
        Some(schema) => keys::described(schema),
        None => vec!["no schema given; `configure` refuses what it does not know".to_owned()],
    };
    for (line, key) in keys.iter().enumerate() {
        let label = if line == 0 { "config" } else { "" };
        writeln!(text, "  {label:<10}{key}").ok();
    }
    if let Some(refusal) = &inspection.refusal {
        writeln!(text, "  refused   {refusal}").ok();
    }
    for binding in bindings {
        writeln!(text, "\n{}", plain(&binding["table"])).ok();
        for step in binding["transforms"].as_array().into_iter().flatten() {
            writeln!(text, "  {}", step_line(step)).ok();
        }
        for column in binding["columns"].as_array().into_iter().flatten() {
            let column_type = column.get("type").unwrap_or(&column["target_type"]);
            writeln!(
                text,
                "    {}  {}",
                plain(&column["name"]),
                plain(column_type)
            )
            .ok();
        }
    }
    text
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

fn step_line(step: &Value) -> String {
    let names = |key: &str| {
        let names: Vec<String> = step[key]
            .as_array()
            .into_iter()
            .flatten()
            .map(|name| match plain(name) {
                own if own.is_empty() => "its own table".to_owned(),
                name => name,
            })
            .collect();
        listed(&names)
    };
    let drops = if step["may_drop"] == Value::Bool(true) {
        "; may drop rows"
    } else {
        ""
    };
    let targets = match names("targets").as_str() {
        "none" => String::new(),
        targets => format!("; sends rows to {targets}"),
    };
    format!(
        "{}: reads {}; writes {}{drops}{targets}",
        plain(&step["plugin"]),
        names("reads"),
        names("writes")
    )
}

/// A row before and after, side by side; what stays is shown once.
pub(super) fn sample(
    table: &str,
    steps: &[StepDescription],
    rows: &[(Value, Vec<Value>)],
) -> String {
    let mut text = format!("{table}\n");
    for step in steps {
        writeln!(
            text,
            "  {}",
            step_line(&serde_json::to_value(step).unwrap_or_default())
        )
        .ok();
    }
    let empty = Map::new();
    for (number, (before, after)) in rows.iter().enumerate() {
        let before = before.as_object().unwrap_or(&empty);
        if after.is_empty() {
            writeln!(text, "\nrow {}: dropped", number + 1).ok();
            side_by_side(&mut text, before, None);
        }
        for after in after {
            writeln!(text, "\nrow {}", number + 1).ok();
            side_by_side(&mut text, before, after.as_object());
        }
    }
    text
}

fn side_by_side(
    text: &mut String,
    before: &Map<String, Value>,
    after: Option<&Map<String, Value>>,
) {
    let mut names: Vec<&String> = before.keys().collect();
    if let Some(after) = after {
        names.extend(after.keys().filter(|name| !before.contains_key(*name)));
    }
    let width = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0);
    for name in names {
        let old = before.get(name).map_or_else(String::new, short);
        let new = after.map(|after| after.get(name).map_or_else(String::new, short));
        let padding = " ".repeat(width - name.chars().count());
        match new {
            Some(new) if new != old => writeln!(text, "  {name}{padding}  {old:<CELL$}  ->  {new}"),
            _ => writeln!(text, "  {name}{padding}  {old}"),
        }
        .ok();
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= CELL {
        return text;
    }
    text.chars().take(CELL - 1).chain(['…']).collect()
}

/// A string without its quotes.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_changed_stands_beside_what_was() {
        let rows = [
            (
                json!({ "id": 1, "email": "A@b.c" }),
                vec![json!({ "id": 1, "email": "a@b.c", "domain": "b.c" })],
            ),
            (json!({ "id": 2, "email": null }), vec![]),
        ];
        let text = sample("shop.customers", &[], &rows);
        assert!(text.contains("  id      1\n"), "{text}");
        assert!(
            text.lines()
                .any(|line| line.starts_with("  email   \"A@b.c\"")
                    && line.ends_with("->  \"a@b.c\"")),
            "{text}"
        );
        assert!(
            text.lines()
                .any(|line| line.starts_with("  domain") && line.ends_with("->  \"b.c\"")),
            "{text}"
        );
        assert!(text.contains("row 2: dropped"), "{text}");
    }
}
