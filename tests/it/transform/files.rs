//! Files: what is no plugin, what is granted, and what is kept compiled.

use std::path::Path;
use std::time::Instant;

use pipewright::error::ErrorKind;
use pipewright::transform::{Engine, build_plugin};
use serde_json::json;

use super::{apply, bind, config, engine, hostile, load, load_batch, mask, texts};

/// A component with other names as long as these in it.
fn swapped(component: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = component.to_owned();
    let mut place = 0;
    while let Some(found) = bytes[place..]
        .windows(from.len())
        .position(|window| window == from.as_bytes())
    {
        place += found;
        bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

#[tokio::test]
async fn a_component_built_for_a_later_patch_of_the_contract_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later.wasm");
    let good = std::fs::read(mask()).unwrap();
    let later = swapped(&good, "@0.1.0", "@0.1.9");
    assert_ne!(good, later);
    std::fs::write(&path, later).unwrap();
    let settings = json!({ "columns": ["email"], "method": "redact" });
    let chain = bind(&path, settings).await.unwrap();
    let after = apply(&chain, load_batch()).await.unwrap();
    assert_eq!(after.row_count, load_batch().row_count);
    assert_ne!(texts(&after, 1), texts(&load_batch(), 1));
}

#[tokio::test]
async fn a_file_that_is_no_plugin_for_this_host_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let good = std::fs::read(mask()).unwrap();
    let swap = |from: &str, to: &str| swapped(&good, from, to);
    for (bytes, words) in [
        (b"hello".to_vec(), "is no WebAssembly component"),
        (
            b"\0asm\x01\0\0\0".to_vec(),
            "a WebAssembly module, not a component",
        ),
        (
            b"\0asm\x0d\0\x01\0".to_vec(),
            "does not export `pipewright:transform/plugin@0.1`",
        ),
        (good[..good.len() / 2].to_vec(), "does not compile"),
        (
            swap("transform/plugin@0.1.0", "transform/plugin@0.2.0"),
            "built for contract 0.2.0, this host supports 0.1",
        ),
        (
            swap(
                "pipewright:transform/log@0.1.0",
                "acme:observability/spans@0.1.0",
            ),
            "imports `acme:observability/spans@0.1.0`",
        ),
    ] {
        let path = folder.path().join("p.wasm");
        std::fs::write(&path, bytes).unwrap();
        let settings = json!({ "columns": ["email"], "method": "redact" });
        let error = load(&path, settings).await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::PluginRefused,
            "{words}: {}",
            error.chain()
        );
        assert!(
            error.to_string().contains(words),
            "{words}: {}",
            error.chain()
        );
    }
    let mut without = config(hostile(), json!({ "crime": "none" }));
    without.lookups.clear();
    let error = engine().load("under_test", &without).await.unwrap_err();
    let words = "imports `pipewright:transform/lookup@0.1.0`, and no file is granted";
    assert!(error.to_string().contains(words), "{error}");
    assert!(
        error
            .hint()
            .unwrap()
            .contains("transforms.under_test.grants")
    );
    let error = load(&folder.path().join("absent.wasm"), json!({}))
        .await
        .unwrap_err();
    assert!(error.hint().unwrap().contains("pipewright plugin build"));
}

#[tokio::test]
async fn a_file_beyond_64_mib_is_refused_by_name_before_it_is_read() {
    const CAP: u64 = 64 << 20;
    let folder = tempfile::tempdir().unwrap();
    let sized = |name: &str, bytes: u64| {
        let path = folder.path().join(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(bytes).unwrap();
        path
    };
    let error = load(&sized("large.wasm", CAP + 1), json!({}))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PluginRefused);
    for words in [
        "under_test",
        "large.wasm",
        "has 67108865 bytes, and a plugin at most 67108864",
    ] {
        assert!(error.chain().contains(words), "{words}: {}", error.chain());
    }
    let error = load(&sized("full.wasm", CAP), json!({})).await.unwrap_err();
    let words = "is no WebAssembly component";
    assert!(error.chain().contains(words), "{}", error.chain());

    let mut granted = config(hostile(), json!({ "crime": "lookup" }));
    let large = sized("large.csv", CAP + 1);
    granted.lookups.insert("words".to_owned(), large);
    let error = engine().load("under_test", &granted).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PluginRefused);
    for words in [
        "under_test",
        "large.csv",
        "granted as `words`, has 67108865 bytes, and a lookup file at most 67108864",
    ] {
        assert!(error.chain().contains(words), "{words}: {}", error.chain());
    }
}

#[tokio::test]
async fn compiled_code_is_kept_and_a_damaged_file_of_it_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let start = async || {
        let engine = Engine::new(Some(folder.path().to_owned())).unwrap();
        let settings = json!({ "columns": ["email"], "method": "redact" });
        let begin = Instant::now();
        engine
            .load("under_test", &config(mask(), settings))
            .await
            .unwrap();
        begin.elapsed()
    };
    let cold = start().await;
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(files.len(), 1);
    let path = files[0].as_ref().unwrap().path();
    let compiled = std::fs::read(&path).unwrap();
    let warm = start().await;
    assert!(warm < cold / 2, "{warm:?} against {cold:?}");
    for damaged in [compiled[..compiled.len() / 2].to_vec(), vec![0; 10], {
        let mut flipped = compiled.clone();
        flipped[compiled.len() / 2] ^= 1;
        flipped
    }] {
        std::fs::write(&path, damaged).unwrap();
        start().await;
        assert!(
            std::fs::read(&path).unwrap() == compiled,
            "the file was not mended"
        );
    }
    // Sound code of another component under this one's name.
    let engine = Engine::new(Some(folder.path().to_owned())).unwrap();
    let other = config(hostile(), json!({ "crime": "none" }));
    engine.load("under_test", &other).await.unwrap();
    let files = std::fs::read_dir(folder.path()).unwrap();
    let foreign = files.map(|entry| entry.unwrap().path());
    let foreign: Vec<_> = foreign.filter(|found| *found != path).collect();
    assert_eq!(foreign.len(), 1);
    std::fs::copy(&foreign[0], &path).unwrap();
    start().await;
    assert!(
        std::fs::read(&path).unwrap() == compiled,
        "code of another component was loaded"
    );
}

#[test]
fn a_folder_that_is_no_plugin_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let error = build_plugin(folder.path(), folder.path(), &[]).unwrap_err();
    assert!(error.to_string().contains("holds no Cargo.toml"), "{error}");
}

#[test]
fn a_missing_target_is_told_with_the_command_that_installs_it() {
    let folder = tempfile::tempdir().unwrap();
    let rustc = folder.path().join("rustc");
    std::fs::write(&rustc, "#!/bin/sh\necho /nowhere\n").unwrap();
    std::process::Command::new("chmod")
        .arg("+x")
        .arg(&rustc)
        .status()
        .unwrap();
    let envs = [("RUSTC".to_owned(), rustc.to_str().unwrap().to_owned())];
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/mask");
    let error = build_plugin(&dir, folder.path(), &envs).unwrap_err();
    assert_eq!(
        error.hint(),
        Some("run: rustup target add wasm32-unknown-unknown")
    );
}
