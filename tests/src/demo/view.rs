//! The pipe's document as a few lines: drawn over each other on a terminal, one line at a time in a log.

use std::io::{Write, stderr};

use serde_json::Value;
use testbed::harness::MARKER_TABLE;

const BAR_WIDTH: u64 = 24;

/// What has been drawn so far.
pub(super) struct View {
    terminal: bool,
    lines_drawn: usize,
    newest_line: String,
}

impl View {
    pub(super) fn new(terminal: bool) -> Self {
        Self {
            terminal,
            lines_drawn: 0,
            newest_line: String::new(),
        }
    }

    /// Shows this document.
    pub(super) fn draw(&mut self, status: &Value) {
        if self.terminal {
            return self.redraw(status);
        }
        let line = one_line(status);
        if line != self.newest_line {
            eprintln!("{line}");
            self.newest_line = line;
        }
    }

    fn redraw(&mut self, status: &Value) {
        let mut text = String::new();
        if self.lines_drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.lines_drawn));
        }
        let lines = all_lines(status);
        for line in &lines {
            text.push_str(&format!("\r\x1b[K{line}\n"));
        }
        self.lines_drawn = lines.len();
        // A closed terminal must not end the demo.
        let mut stream = stderr().lock();
        stream.write_all(text.as_bytes()).ok();
        stream.flush().ok();
    }
}

fn all_lines(status: &Value) -> Vec<String> {
    let mut lines = vec![String::new(), headline(status)];
    for table in tables(status) {
        let snapshot = &table["snapshot"];
        let (done, total) = (
            number(&snapshot["partitions_done"]),
            number(&snapshot["partitions_total"]),
        );
        let filled = (done * BAR_WIDTH).checked_div(total).unwrap_or(0);
        let bar: String = (0..BAR_WIDTH)
            .map(|place| if place < filled { '█' } else { '·' })
            .collect();
        let rows = &table["rows"];
        lines.push(format!(
            "  {:<12} {:<12} {bar} {done:>3}/{total:<3} {:>7} loaded  {:>6} inserted {:>6} updated {:>6} deleted",
            name(table),
            table["state"].as_str().unwrap_or_default(),
            number(&snapshot["rows"]),
            number(&rows["inserted"]),
            number(&rows["updated"]),
            number(&rows["deleted"]),
        ));
    }
    lines.push("  Ctrl-C ends the demo".to_owned());
    lines
}

fn one_line(status: &Value) -> String {
    let tables = tables(status).map(|table| {
        let rows = &table["rows"];
        format!(
            "{} {} loaded +{} ~{} -{}",
            name(table),
            number(&table["snapshot"]["rows"]),
            number(&rows["inserted"]),
            number(&rows["updated"]),
            number(&rows["deleted"])
        )
    });
    format!(
        "{} | {}",
        headline(status),
        tables.collect::<Vec<_>>().join(" | ")
    )
}

fn headline(status: &Value) -> String {
    let lag = status["lag_seconds"]
        .as_f64()
        .map(|lag| format!(", {lag:.1} s behind"))
        .unwrap_or_default();
    let reasons = status["reasons"].as_array().into_iter().flatten();
    let reasons: Vec<&str> = reasons
        .filter_map(|reason| reason["message"].as_str())
        .collect();
    let reasons = if reasons.is_empty() {
        String::new()
    } else {
        format!(" ({})", reasons.join("; "))
    };
    format!(
        "pipe shop: {}{lag}{reasons}",
        status["state"].as_str().unwrap_or("starting")
    )
}

/// The shop's own tables; the marker is the demo's.
fn tables(status: &Value) -> impl Iterator<Item = &Value> {
    let all = status["tables"].as_array().into_iter().flatten();
    all.filter(|table| table["target"] != MARKER_TABLE)
}

fn name(table: &Value) -> &str {
    table["target"].as_str().unwrap_or_default()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
