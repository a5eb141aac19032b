//! Puts the SDK and the contract into the binary, from which `pipewright plugin new` writes them into an author's folder.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let runtime = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = runtime
        .parent()
        .expect("runtime/ is a folder of the workspace");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let manifest = out.join("sdk-Cargo.toml");
    fs::write(&manifest, stand_alone(workspace)).expect("OUT_DIR can be written");
    let mut files = vec![("sdk/Cargo.toml".to_owned(), manifest)];
    for folder in ["sdk/src", "wit"] {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(folder).display()
        );
        collect(workspace, &workspace.join(folder), &mut files);
    }
    files.sort();
    let mut code = String::from("&[\n");
    for (name, path) in files {
        writeln!(code, "    ({name:?}, include_str!({path:?})),").expect("a string grows");
    }
    code.push_str("]\n");
    fs::write(out.join("embedded.rs"), code).expect("OUT_DIR can be written");
}

fn collect(workspace: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            collect(workspace, &path, files);
        } else if path
            .extension()
            .is_some_and(|ending| ending == "rs" || ending == "wit")
        {
            let name = path.strip_prefix(workspace).expect("below the workspace");
            files.push((name.display().to_string(), path));
        }
    }
}

/// The SDK's manifest with what it takes from the workspace written out, so that it stands in any folder.
fn stand_alone(workspace: &Path) -> String {
    let read = |path: &str| {
        let path = workspace.join(path);
        println!("cargo::rerun-if-changed={}", path.display());
        fs::read_to_string(path).expect("a manifest of the workspace")
    };
    let shared = read("Cargo.toml");
    let definition = |key: &str| {
        let start = format!("{key} = ");
        let line = shared.lines().find(|line| line.starts_with(&start));
        line.unwrap_or_else(|| panic!("the workspace defines `{key}`"))
            .to_owned()
    };
    let mut manifest = String::new();
    for line in read("sdk/Cargo.toml").lines() {
        if line == "[lints]" {
            break;
        }
        match line.strip_suffix(".workspace = true") {
            Some(key) => manifest.push_str(&definition(key)),
            None => manifest.push_str(line),
        }
        manifest.push('\n');
    }
    manifest
}
