//! The invariants of runtime/ARCHITECTURE.md, which are absences: read from the source, they cannot rot unseen.

use std::fs;
use std::path::{Path, PathBuf};

use testbed::harness::{Plugins, workspace_folder};

/// A crate, and the only folder below runtime/src that may name it.
const CRATES: [(&str, &str); 3] = [
    ("mysql_async", "source/mysql"),
    ("clickhouse", "destination/clickhouse"),
    ("wasmtime", "transform"),
];

/// Modules that know `batch` and never each other, nor those above them.
const PARTS: [&str; 4] = ["source", "transform", "destination", "state"];

/// What stands above the parts and is known to none of them.
const RIM: [&str; 3] = ["pipe", "api", "cli"];

/// Who asks the machine what time it is: for dates that people read, for the age of cached files, and for how far the
/// source's clock is off. A clock may jump, so nothing else may depend on it.
const ASKS_THE_CLOCK: [&str; 4] = [
    "pipe/clock.rs",
    "pipe/document.rs",
    "source/mysql/preflight.rs",
    "transform/cache.rs",
];

/// Who writes such a date down: of failures, checkpoints and rows that failed. Nobody compares one with another.
const KEEPS_DATES: [&str; 7] = [
    "pipe/clock.rs",
    "pipe/heal.rs",
    "pipe/lifecycle.rs",
    "pipe/progress.rs",
    "pipe/resync.rs",
    "pipe/setup.rs",
    "pipe/track.rs",
];

/// Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for path in entries.map(|entry| entry.expect("an entry can be read").path()) {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn runtime() -> PathBuf {
    workspace_folder().join("runtime/src")
}

/// Lines of code: comments may name whatever they explain.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).expect("a source file is text");
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"));
    lines
        .map(|(number, line)| (number + 1, line.to_owned()))
        .collect()
}

/// Whether `line` uses `name` as the first part of a path: `name::` with nothing of a name before it.
fn names_path(line: &str, name: &str) -> bool {
    let prefix = format!("{name}::");
    line.match_indices(&prefix).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':')
    }) || line.trim() == format!("use {name};")
}

/// Whether `line` names a module of this crate, in either spelling of a path to it.
fn names_module(line: &str, module: &str) -> bool {
    let direct = format!("crate::{module}");
    let direct = line.match_indices(&direct).any(|(at, found)| {
        let after = line[at + found.len()..].chars().next();
        !after.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
    });
    let grouped = line.trim_start().starts_with("use crate::{")
        && line.split(['{', ',', '}']).any(|part| {
            let part = part.trim();
            part == module || part.starts_with(&format!("{module}::"))
        });
    direct || grouped
}

#[test]
fn a_vendor_crate_stays_in_its_folder() {
    let root = runtime();
    let mut leaks = Vec::new();
    for path in sources(&root) {
        let relative = path
            .strip_prefix(&root)
            .expect("below the root")
            .display()
            .to_string();
        for (name, folder) in CRATES
            .iter()
            .filter(|(_, folder)| !relative.starts_with(folder))
        {
            for (number, line) in code(&path) {
                if names_path(&line, name) {
                    leaks.push(format!(
                        "{relative}:{number}: `{name}` belongs to {folder}: {line}"
                    ));
                }
            }
        }
    }
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

#[test]
fn parts_know_neither_each_other_nor_what_joins_them() {
    let root = runtime();
    let mut leaks = Vec::new();
    for part in PARTS {
        let others = PARTS.iter().chain(&RIM).filter(|other| **other != part);
        for path in sources(&root.join(part)) {
            for (number, line) in code(&path) {
                for other in others.clone().filter(|other| names_module(&line, other)) {
                    leaks.push(format!(
                        "{}:{number}: {part} names {other}: {line}",
                        path.display()
                    ));
                }
            }
        }
    }
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

#[test]
fn batch_and_error_know_nothing_above_them() {
    let root = runtime();
    let mut leaks = Vec::new();
    for path in sources(&root.join("batch"))
        .into_iter()
        .chain([root.join("error.rs")])
    {
        for (number, line) in code(&path) {
            for other in PARTS
                .iter()
                .chain(&RIM)
                .filter(|other| names_module(&line, other))
            {
                leaks.push(format!("{}:{number}: {other}: {line}", path.display()));
            }
        }
    }
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

#[test]
fn only_pipe_joins_source_and_destination() {
    let root = runtime();
    let mut leaks = Vec::new();
    for path in sources(&root) {
        let relative = path
            .strip_prefix(&root)
            .expect("below the root")
            .display()
            .to_string();
        if relative.starts_with("pipe") {
            continue;
        }
        let lines = code(&path);
        let known: Vec<&str> = PARTS
            .into_iter()
            .filter(|part| lines.iter().any(|(_, line)| names_module(line, part)))
            .collect();
        if known.len() > 1 {
            leaks.push(format!("{relative} knows {}", known.join(" and ")));
        }
    }
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

/// Files below `runtime/src` with a line of code that has one of `texts`.
fn files_with(texts: &[&str]) -> Vec<String> {
    let root = runtime();
    let has = |path: &PathBuf| {
        let lines = code(path);
        let mut lines = lines.iter();
        lines.any(|(_, line)| texts.iter().any(|text| line.contains(text)))
    };
    let found = sources(&root).into_iter().filter(has);
    found
        .map(|path| {
            let below = path.strip_prefix(&root).expect("below the root");
            below.display().to_string()
        })
        .collect()
}

#[test]
fn no_version_place_or_token_depends_on_the_clock() {
    let asks = ["SystemTime::now(", "Utc::now(", "Local::now("];
    assert_eq!(files_with(&asks), ASKS_THE_CLOCK);
    assert_eq!(files_with(&["now_us("]), KEEPS_DATES);
}

#[test]
fn main_is_short_and_nothing_unwraps() {
    // `row.unwrap()` is the driver's way to take a row apart; it cannot fail.
    let root = runtime();
    let main = fs::read_to_string(root.join("main.rs")).expect("there is a main");
    assert!(main.lines().count() < 40, "main.rs is more than a start");
    let mut found = Vec::new();
    for path in sources(&root) {
        let text = fs::read_to_string(&path).expect("a source file is text");
        let before_tests = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_test = path
            .components()
            .any(|part| part.as_os_str().to_string_lossy().contains("test"));
        if !is_test
            && before_tests.lines().any(|line| {
                line.replace("row.unwrap()", "").contains(".unwrap()")
                    && !line.trim_start().starts_with("//")
            })
        {
            found.push(path.display().to_string());
        }
    }
    assert!(found.is_empty(), "unwrap() in {}", found.join(", "));
}

#[test]
fn every_plugin_has_an_end_to_end_case() {
    let cases = include_str!("plugins.rs");
    let names = Plugins::names().expect("plugins/ can be read");
    assert!(!names.is_empty());
    for name in names {
        assert!(
            cases.contains(&format!("\"{name}\"")),
            "plugins/{name} has no case in tests/it/plugins.rs"
        );
    }
}

/// Types, traits, functions, methods and macros of the SDK that a plugin's author may name each have an example of their own.
/// The guest's half is generated and hidden.
#[test]
fn every_public_item_of_the_sdk_shows_its_use() {
    let kinds = ["struct", "enum", "trait", "type", "const", "static"];
    let (mut shown, mut bare) = (0, Vec::new());
    for path in sources(&workspace_folder().join("sdk/src")) {
        if path.ends_with("guest.rs") || path.ends_with("testing_tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source file is text");
        let mut comment = String::new();
        let mut exported = false;
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().take(3).collect();
            let named = match words.as_slice() {
                ["pub", "fn", _] => true,
                ["pub", kind, _] if kinds.contains(kind) => !line.starts_with(' '),
                ["macro_rules!", ..] => exported,
                _ => false,
            };
            match named {
                true if comment.contains("```") => shown += 1,
                true => bare.push(format!("{}: {}", path.display(), line)),
                false => {}
            }
            match line.trim_start() {
                line if line.starts_with("///") => comment.push_str(line),
                "#[macro_export]" => exported = true,
                line if line.starts_with("#[") => {}
                _ => (comment, exported) = (String::new(), false),
            }
        }
    }
    assert!(bare.is_empty(), "without an example:\n{}", bare.join("\n"));
    assert!(shown > 100, "only {shown} items were found");
}

#[test]
fn the_readme_names_the_two_commands() {
    let readme =
        fs::read_to_string(workspace_folder().join("README.md")).expect("there is a README");
    for command in ["cargo demo", "cargo test --workspace"] {
        assert!(
            readme.contains(command),
            "README.md does not name `{command}`"
        );
    }
}

#[test]
fn architecture_and_licence_are_there() {
    for file in [
        "runtime/ARCHITECTURE.md",
        "LICENSE",
        "rust-toolchain.toml",
        ".ci/run",
        "wit",
    ] {
        assert!(workspace_folder().join(file).exists(), "{file} is missing");
    }
    let script =
        fs::read_to_string(workspace_folder().join(".ci/run")).expect("there is a .ci/run");
    for step in [
        "cargo fmt --all --check",
        "cargo clippy --workspace --all-targets -- -D warnings",
        "cargo test --workspace",
    ] {
        assert!(script.contains(step), ".ci/run does not run `{step}`");
    }
}

#[test]
fn a_path_is_told_from_a_longer_name() {
    assert!(names_path("use clickhouse::Client;", "clickhouse"));
    assert!(!names_path(
        "use crate::destination::clickhouse::Client;",
        "clickhouse"
    ));
    assert!(!names_path("let my_clickhouse::x", "clickhouse"));
    assert!(names_module("use crate::source::mysql;", "source"));
    assert!(!names_module("use crate::sources;", "source"));
    assert!(names_module("use crate::{batch, source::mysql};", "source"));
}
