//! `plugin new`: a folder that builds and passes its own cases at once, wherever it is.
//!
//! The SDK and the contract stand in this binary and are written beside the plugin, so that both are those of the
//! pipewright that will run it, and no repository is needed.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::project::Language;
use crate::error::{Error, ErrorKind, Result};

/// `sdk/`, `wit/`, and under `c/` the bindings made of the contract.
const EMBEDDED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Where they are written.
const FOLDER: &str = ".pipewright";

/// Where a plugin in C has its bindings.
pub(super) const C_BINDINGS: &str = ".pipewright/c";

const CASES: [(&str, &str); 6] = [
    (
        "cases/table.yaml",
        include_str!("templates/cases/table.yaml"),
    ),
    (
        "cases/trims_and_lowers/case.yaml",
        include_str!("templates/cases/case.yaml"),
    ),
    (
        "cases/trims_and_lowers/rows.jsonl",
        include_str!("templates/cases/rows.jsonl"),
    ),
    (
        "cases/trims_and_lowers/expected.jsonl",
        include_str!("templates/cases/expected.jsonl"),
    ),
    (
        "cases/refuses_a_number/case.yaml",
        "config: { columns: [age] }\n",
    ),
    (
        "cases/refuses_a_number/expected-error.txt",
        include_str!("templates/cases/expected-error.txt"),
    ),
];

const RUST: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("templates/rust/Cargo.toml.txt")),
    ("src/lib.rs", include_str!("templates/rust/lib.rs")),
    ("README.md", include_str!("templates/rust/README.md")),
    (".gitignore", "/target\n/pipewright-state\n"),
];

const PYTHON: [(&str, &str); 3] = [
    (
        "transform.py",
        include_str!("../../../plugins/examples/python/transform.py"),
    ),
    ("README.md", include_str!("templates/python/README.md")),
    (".gitignore", "/target\n/pipewright-state\n__pycache__\n"),
];

const JAVASCRIPT: [(&str, &str); 3] = [
    (
        "transform.js",
        include_str!("../../../plugins/examples/javascript/transform.js"),
    ),
    ("README.md", include_str!("templates/javascript/README.md")),
    (".gitignore", "/target\n/pipewright-state\n"),
];

const C: [(&str, &str); 3] = [
    (
        "transform.c",
        include_str!("../../../plugins/examples/c/transform.c"),
    ),
    ("README.md", include_str!("templates/c/README.md")),
    (".gitignore", "/target\n/pipewright-state\n"),
];

/// A plugin that reads columns and changes nothing.
const NOTHING: [(&str, &str); 2] = [
    ("Cargo.toml", include_str!("templates/rust/Cargo.toml.txt")),
    (
        "src/lib.rs",
        include_str!("../../../tests/guests/nothing/src/lib.rs"),
    ),
];

/// Writes a new plugin into `folder`, which must be empty or absent. Its last part is the plugin's name.
///
/// # Errors
/// [`ErrorKind::Config`] for a name that is none, or a folder that holds something.
pub fn scaffold(folder: &Path, language: Language) -> Result<()> {
    let name = folder
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    ensure_name(&name)?;
    let is_empty = |mut entries: std::fs::ReadDir| entries.next().is_none();
    let what = match std::fs::read_dir(folder) {
        _ if !folder.exists() => None,
        Ok(entries) => (!is_empty(entries)).then_some("is not empty"),
        Err(_) => Some("is no folder that can be read"),
    };
    if let Some(what) = what {
        return Err(
            Error::new(ErrorKind::Config, format!("`{}` {what}", folder.display()))
                .with_hint("name a folder that does not exist yet"),
        );
    }
    let own: &[(&str, &str)] = match language {
        Language::Rust => &RUST,
        Language::Python => &PYTHON,
        Language::Javascript => &JAVASCRIPT,
        Language::C => &C,
    };
    write(folder, &name, own)?;
    write(folder, &name, &CASES)?;
    write(
        folder,
        &name,
        &[("cases/refuses_a_number/rows.jsonl", CASES[2].1)],
    )?;
    if matches!(language, Language::Python | Language::Javascript) {
        // An interpreter needs more than a plugin of a few hundred kilobytes.
        for case in ["trims_and_lowers", "refuses_a_number"] {
            let path = folder.join("cases").join(case).join("case.yaml");
            let limits = "limits: { memory: 256MiB, time: 30s }\n";
            let text = std::fs::read_to_string(&path).unwrap_or_default() + limits;
            std::fs::write(&path, text).map_err(|error| unwritten(&path, error))?;
        }
    }
    let parts: &[&str] = match language {
        Language::Rust => &["sdk/", "wit/"],
        Language::C => &["c/", "wit/"],
        Language::Python | Language::Javascript => &["wit/"],
    };
    write_embedded(&folder.join(FOLDER), parts)
}

/// Writes the crate of a plugin that does nothing, for the bench.
pub(super) fn scaffold_nothing(folder: &Path) -> Result<()> {
    write(folder, "nothing", &NOTHING)?;
    write_embedded(&folder.join(FOLDER), &["sdk/", "wit/"])
}

/// Of all that [`scaffold_nothing`] writes: the contract may change before it is released, and with it the plugin.
pub(super) fn digest_of_nothing() -> String {
    let mut digest = Sha256::new();
    let own = NOTHING.iter().map(|(path, text)| (*path, text.as_bytes()));
    for (path, bytes) in EMBEDDED.iter().copied().chain(own) {
        digest.update(path);
        digest.update(bytes.len().to_le_bytes());
        digest.update(bytes);
    }
    format!("{:x}", digest.finalize())[..16].to_owned()
}

/// Writes what a plugin in C is compiled with.
pub(super) fn write_bindings(folder: &Path) -> Result<()> {
    for (path, bytes) in EMBEDDED {
        if let Some(name) = path.strip_prefix("c/") {
            put(&folder.join(name), bytes)?;
        }
    }
    Ok(())
}

fn write_embedded(folder: &Path, parts: &[&str]) -> Result<()> {
    let chosen = EMBEDDED
        .iter()
        .filter(|(path, _)| parts.iter().any(|part| path.starts_with(part)));
    for (path, bytes) in chosen {
        put(&folder.join(path), bytes)?;
    }
    Ok(())
}

fn write(folder: &Path, name: &str, files: &[(&str, &str)]) -> Result<()> {
    for (path, text) in files {
        let text = text.replace("PLUGIN_NAME", name);
        put(&folder.join(path), text.as_bytes())?;
    }
    Ok(())
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(path, bytes))
        .map_err(|error| unwritten(path, error))
}

fn unwritten(path: &Path, error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::State,
        format!("`{}` cannot be written", path.display()),
    )
    .with_source(error)
}

/// Names that Rust has given away, and those of the crates that a new plugin needs.
const TAKEN: [&str; 10] = [
    "test",
    "core",
    "std",
    "alloc",
    "self",
    "super",
    "crate",
    "serde",
    "pipewright-sdk",
    "pipewright_sdk",
];

/// What cargo, a file system and a pipe file all take.
fn ensure_name(name: &str) -> Result<()> {
    let letters = |letter: char| {
        letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_-".contains(letter)
    };
    let sound = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= 64
        && name.chars().all(letters)
        && !TAKEN.contains(&name);
    if sound {
        return Ok(());
    }
    if TAKEN.contains(&name) {
        return Err(Error::new(
            ErrorKind::Config,
            format!("`{name}` is the name of something that every plugin needs"),
        )
        .with_hint(format!("take another: pipewright plugin new my-{name}")));
    }
    Err(Error::new(ErrorKind::Config, format!("`{name}` is no name for a plugin"))
        .with_hint("take lower-case letters, digits, `_` and `-`, a letter first: pipewright plugin new mask-phone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_stands_alone() {
        let manifest = EMBEDDED
            .iter()
            .find(|(path, _)| *path == "sdk/Cargo.toml")
            .expect("a manifest")
            .1;
        let manifest = std::str::from_utf8(manifest).expect("text");
        assert!(!manifest.contains("workspace"), "{manifest}");
        assert!(manifest.contains("wit-bindgen = { version ="), "{manifest}");
        let optional = "schemars = { version = \"1.2\", optional = true }";
        assert!(manifest.contains(optional), "{manifest}");
        assert!(
            EMBEDDED
                .iter()
                .any(|(path, _)| *path == "wit/transform.wit")
        );
        assert!(EMBEDDED.iter().any(|(path, _)| *path == "sdk/src/lib.rs"));
    }

    #[test]
    fn the_plugin_that_does_nothing_is_the_one_of_the_tests() {
        let of_tests = include_str!("../../../tests/guests/nothing/src/lib.rs");
        assert_eq!(NOTHING[1].1, of_tests);
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let plugin = folder.path().join("tidy");
        scaffold(&plugin, Language::Python).expect("a plugin");
        assert!(plugin.join(".pipewright/wit/transform.wit").is_file());
        assert!(!plugin.join(".pipewright/sdk").exists());
        let error = scaffold(&plugin, Language::Python).expect_err("it is there");
        assert!(error.message().ends_with("is not empty"));
        let file = folder.path().join("file");
        std::fs::write(&file, "kept").expect("a file");
        let error = scaffold(&file, Language::Rust).expect_err("a file");
        assert!(error.message().ends_with("is no folder that can be read"));
        assert_eq!(std::fs::read_to_string(&file).expect("a file"), "kept");
        for name in ["Tidy", "1st", "a b", "", "std", "pipewright-sdk", "serde"] {
            assert!(
                scaffold(&folder.path().join(name), Language::Rust).is_err(),
                "{name}"
            );
        }
    }
}
