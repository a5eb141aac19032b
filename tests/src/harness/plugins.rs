//! First-party plugins and test guests, built once a process by Pipewright's own `plugin build`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::OnceCell;

use super::process::run_to_end;

/// Two cores, a cold cache and other builds at the same time.
const BUILD_TIMEOUT: Duration = Duration::from_secs(600);

/// The components of `plugins/`.
#[derive(Clone, Debug)]
pub struct Plugins {
    folder: PathBuf,
}

impl Plugins {
    /// Builds what stands in `plugins/`; the first caller of the process builds, the others wait.
    pub async fn built(program: &Path) -> Result<&'static Plugins> {
        static BUILT: OnceCell<Plugins> = OnceCell::const_new();
        BUILT
            .get_or_try_init(|| async {
                let sources = workspace_folder().join("plugins");
                for name in Self::names()? {
                    build_guest(program, &sources.join(&name)).await?;
                }
                Ok(Plugins {
                    folder: output_folder()?,
                })
            })
            .await
    }

    /// The folders of `plugins/` that make a component; what they share is a library.
    pub fn names() -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(workspace_folder().join("plugins"))? {
            let entry = entry?;
            let manifest = fs::read_to_string(entry.path().join("Cargo.toml"));
            if manifest.is_ok_and(|manifest| manifest.contains("cdylib")) {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// A plugin's component, as a pipe file names it.
    pub fn path(&self, name: &str) -> String {
        self.folder
            .join(format!("{name}.wasm"))
            .display()
            .to_string()
    }
}

/// Builds the plugin in `folder` and answers its component.
pub async fn build_guest(program: &Path, folder: &Path) -> Result<PathBuf> {
    let name = folder
        .file_name()
        .context("a plugin folder has a name")?
        .to_string_lossy()
        .into_owned();
    let component = output_folder()?.join(format!("{name}.wasm"));
    let arguments = ["pipewright", "plugin", "build", "--fetch"].map(Into::into);
    let places = [
        folder.as_os_str().to_owned(),
        "--out".into(),
        component.clone().into_os_string(),
    ];
    let finished = run_to_end(
        program,
        arguments.into_iter().chain(places),
        &[],
        BUILD_TIMEOUT,
    )
    .await?;
    if finished.code != 0 {
        bail!(
            "plugin `{name}` cannot be built ({}):\n{}",
            finished.code,
            finished.stderr
        );
    }
    Ok(component)
}

/// The root of the repository.
pub fn workspace_folder() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

fn output_folder() -> Result<PathBuf> {
    let folder = workspace_folder().join("target/testbed-plugins");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
