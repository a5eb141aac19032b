//! The contract's text: released once, then never edited.

use std::fs;

use sha2::{Digest, Sha256};
use testbed::harness::workspace_folder;

/// Versions that were released, with the SHA-256 of their texts.
const RELEASED: [(&str, &str); 1] = [(
    "0.1.0",
    "120ac381ea79c4f44fc4f00511fe6269db5a63f7e9232f36043fc9ce39a2aaad",
)];

fn text(path: &str) -> String {
    let path = workspace_folder().join("wit").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The version that a text says it has.
fn version(text: &str) -> &str {
    let line = text.lines().find(|line| line.starts_with("package "));
    let version = line.and_then(|line| line.strip_prefix("package pipewright:transform@"));
    version
        .and_then(|version| version.strip_suffix(';'))
        .expect("the text names its package and version")
}

#[test]
fn a_released_text_is_never_edited() {
    for (released, digest) in RELEASED {
        let text = text(&format!("since-{released}/transform.wit"));
        assert_eq!(version(&text), released);
        let found: String = Sha256::digest(text.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(found, digest, "wit/since-{released} was edited");
    }
    let folders = fs::read_dir(workspace_folder().join("wit")).expect("wit/ can be read");
    let folders = folders.map(|entry| entry.expect("an entry").file_name());
    let since = folders.filter(|name| name.to_string_lossy().starts_with("since-"));
    assert_eq!(
        since.count(),
        RELEASED.len(),
        "a folder of wit/ is not in the list"
    );
}

#[test]
fn a_changed_text_needs_a_new_version() {
    let present = text("transform.wit");
    let version = version(&present);
    if RELEASED.iter().any(|(released, _)| *released == version) {
        let released = text(&format!("since-{version}/transform.wit"));
        assert!(
            present == released,
            "wit/transform.wit was changed: give it a version after {version}, and a line in wit/README.md"
        );
    }
    let table = text("README.md");
    assert!(
        table.contains(&format!("| {version} |")),
        "wit/README.md lacks {version}"
    );
}

#[test]
fn every_item_is_documented_and_says_since_when() {
    let present = text("transform.wit");
    let lines: Vec<&str> = present.lines().map(str::trim).collect();
    for (number, line) in lines.iter().enumerate() {
        let is_item = [
            "interface ",
            "record ",
            "variant ",
            "enum ",
            "resource ",
            "world ",
        ]
        .iter()
        .any(|word| line.starts_with(word))
            || line.contains(": func(");
        if is_item {
            assert!(lines[number - 1].starts_with("@since(version = "), "{line}");
            assert!(lines[number - 2].starts_with("///"), "{line}");
        }
    }
}
