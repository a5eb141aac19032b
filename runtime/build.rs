//! Puts the SDK and the contract into the binary, from which `pipewright plugin new` writes them into an author's folder.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

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
    collect(&out, &c_bindings(&workspace.join("wit"), &out), &mut files);
    files.sort();
    let mut code = String::from("&[\n");
    for (name, path) in files {
        writeln!(code, "    ({name:?}, include_bytes!({path:?})),").expect("a string grows");
    }
    code.push_str("]\n");
    fs::write(out.join("embedded.rs"), code).expect("OUT_DIR can be written");
}

/// What a plugin in C is compiled with, made of the contract.
fn c_bindings(contract: &Path, out: &Path) -> PathBuf {
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_path(contract)
        .expect("the contract can be read");
    let world = resolve
        .select_world(&[package], Some("transform"))
        .expect("the contract has a world");
    let options = wit_bindgen_c::Opts {
        rename_world: Some("pipewright".to_owned()),
        ..Default::default()
    };
    let mut files = Files::default();
    options
        .build()
        .generate(&mut resolve, world, &mut files)
        .expect("the contract has bindings in C");
    let folder = out.join("c");
    fs::create_dir_all(&folder).expect("OUT_DIR can be written");
    for (name, bytes) in files.iter() {
        fs::write(folder.join(name), bytes).expect("OUT_DIR can be written");
    }
    folder
}

fn collect(workspace: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace") {
        let path = entry.expect("an entry can be read").path();
        // Texts that were released: an author builds against the present one.
        let released = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("since-"));
        if path.is_dir() && !released {
            collect(workspace, &path, files);
        } else if path
            .extension()
            .and_then(|ending| ending.to_str())
            .is_some_and(|ending| ["rs", "wit", "h", "c", "o"].contains(&ending))
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
        if let Some(key) = line.strip_suffix(".workspace = true") {
            manifest.push_str(&definition(key));
        } else if let Some((key, own)) = line.split_once(" = { workspace = true, ") {
            let shared = definition(key);
            let version = shared.rsplit(" = ").next().unwrap_or_default();
            assert!(version.starts_with('"'), "`{key}` is a version alone");
            write!(manifest, "{key} = {{ version = {version}, {own}").expect("a string grows");
        } else {
            manifest.push_str(line);
        }
        manifest.push('\n');
    }
    manifest
}
