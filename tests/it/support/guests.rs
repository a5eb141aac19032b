//! Plugins of the tests' own.

use std::path::PathBuf;

use anyhow::Result;
use testbed::harness::{build_guest, workspace_folder};
use tokio::sync::OnceCell;

use super::program;

/// The component that does as its configuration says: traps, loops, lies. Built once.
pub(crate) async fn hostile_guest() -> Result<&'static PathBuf> {
    static GUEST: OnceCell<PathBuf> = OnceCell::const_new();
    built(&GUEST, "hostile").await
}

/// The component that asks WASI for what it may not have. Built once.
pub(crate) async fn wasi_guest() -> Result<&'static PathBuf> {
    static GUEST: OnceCell<PathBuf> = OnceCell::const_new();
    built(&GUEST, "wasi").await
}

async fn built(guest: &'static OnceCell<PathBuf>, name: &str) -> Result<&'static PathBuf> {
    let source = workspace_folder().join("tests/guests").join(name);
    guest
        .get_or_try_init(|| build_guest(program(), &source))
        .await
}
