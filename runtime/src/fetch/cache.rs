//! The cache folder: everything fetched, compiled or initialised, each item made once and never changed.
//!
//! An item is a folder `name@version`. It is built aside and renamed into place, so a folder under its final name is
//! whole, whatever was killed while it was built. One lock file a name lets concurrent test processes share the work
//! instead of repeating it. The kernel drops the lock of a killed process.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};

/// The folder named by `PIPEWRIGHT_CACHE`, else `pipewright` in the user's cache folder.
pub fn cache_folder() -> Result<PathBuf> {
    let named = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let folder = named("PIPEWRIGHT_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|folder| folder.join("pipewright")))
        .or_else(|| named("HOME").map(|folder| folder.join(".cache/pipewright")))
        .ok_or_else(|| anyhow!("no place for the cache: set PIPEWRIGHT_CACHE to a folder"))?;
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create the cache folder {}", folder.display()))?;
    Ok(fs::canonicalize(folder)?)
}

/// The newest finished item of this name, whatever its version; built when there is none.
///
/// `build` fills the folder that it is given and answers the version. It must not record that folder's path in what it
/// leaves there, because the folder is renamed.
pub fn newest(name: &str, build: impl FnOnce(&Path) -> Result<String>) -> Result<PathBuf> {
    let root = cache_folder()?;
    if let Some(found) = find_newest(&root, name)? {
        return Ok(found);
    }
    let _lock = lock(&root, name)?;
    if let Some(found) = find_newest(&root, name)? {
        return Ok(found);
    }
    build_aside(&root, name, build)
}

/// The newest finished item of this name; nothing is built.
///
/// # Errors
/// When the cache folder cannot be read.
pub fn find(name: &str) -> Result<Option<PathBuf>> {
    find_newest(&cache_folder()?, name)
}

/// The item of exactly this version; nothing is built.
///
/// # Errors
/// When the cache folder cannot be made.
pub fn find_exact(name: &str, version: &str) -> Result<Option<PathBuf>> {
    let item = cache_folder()?.join(item_name(name, version));
    Ok(item.is_dir().then_some(item))
}

/// The item of exactly this version, built when absent.
pub fn exact(
    name: &str,
    version: &str,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let root = cache_folder()?;
    let item = root.join(item_name(name, version));
    if item.is_dir() {
        return Ok(item);
    }
    let _lock = lock(&root, name)?;
    if item.is_dir() {
        return Ok(item);
    }
    build_aside(&root, name, |folder| {
        build(folder).map(|()| version.to_owned())
    })
}

fn build_aside(
    root: &Path,
    name: &str,
    build: impl FnOnce(&Path) -> Result<String>,
) -> Result<PathBuf> {
    let aside = root.join(format!("{name}.partial"));
    if aside.exists() {
        fs::remove_dir_all(&aside).with_context(|| format!("cannot remove {}", aside.display()))?;
    }
    fs::create_dir_all(&aside)?;
    let version = build(&aside)?;
    let item = root.join(item_name(name, &version));
    fs::rename(&aside, &item)
        .with_context(|| format!("cannot rename {} into place", aside.display()))?;
    Ok(item)
}

fn lock(root: &Path, name: &str) -> Result<File> {
    let path = root.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

fn find_newest(root: &Path, name: &str) -> Result<Option<PathBuf>> {
    let prefix = item_name(name, "");
    let mut newest: Option<(SystemTime, PathBuf)> = None;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let modified = entry.metadata()?.modified()?;
            if newest.as_ref().is_none_or(|(latest, _)| modified > *latest) {
                newest = Some((modified, entry.path()));
            }
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// Debian versions carry colons and tildes; a colon would split a `--library-path`.
fn item_name(name: &str, version: &str) -> String {
    let plain = |letter: char| {
        if letter.is_ascii_alphanumeric() || "+-.".contains(letter) {
            letter
        } else {
            '-'
        }
    };
    format!("{name}@{}", version.chars().map(plain).collect::<String>())
}
