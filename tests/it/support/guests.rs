//! Plugins of the tests' own.

use std::path::PathBuf;

use anyhow::Result;
use testbed::harness::{build_guest, workspace_folder};
use tokio::sync::OnceCell;

use super::program;

/// The component that does as its configuration says: traps, loops, lies. Built once.
pub(crate) async fn hostile_guest() -> Result<&'static PathBuf> {
    static GUEST: OnceCell<PathBuf> = OnceCell::const_new();
    let source = workspace_folder().join("tests/guests/hostile");
    GUEST
        .get_or_try_init(|| build_guest(program(), &source))
        .await
}
