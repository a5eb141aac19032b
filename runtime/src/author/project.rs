//! An author's folder: which language it is in, and how a component is made of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use super::c;
use super::toolchain::Toolchain;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::command;
use crate::transform::{Built, build_plugin_to, finish_component, finish_module};

/// What a plugin is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// The SDK, and the fastest code.
    Rust,
    /// CPython in the component: 18 MB, and some hundred times slower.
    Python,
    /// SpiderMonkey in the component: 12 MB, and some ten times slower.
    Javascript,
    /// No SDK, a small component, and about Rust's speed.
    C,
}

impl Language {
    /// The file by which a folder is known to be of the language.
    fn marker(self) -> &'static str {
        match self {
            Language::Rust => "Cargo.toml",
            Language::Python => "transform.py",
            Language::Javascript => "transform.js",
            Language::C => "transform.c",
        }
    }
}

/// The folder of a plugin.
#[derive(Clone, Debug)]
pub struct Project {
    /// The folder.
    pub folder: PathBuf,
    /// What it is written in.
    pub language: Language,
}

/// What `.pipewright` in an author's folder holds, as far as builds need it.
const CONTRACT: &str = ".pipewright/wit";

impl Project {
    /// The plugin in `folder`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when there is none.
    pub fn open(folder: &Path) -> Result<Self> {
        let language = Language::value_variants()
            .iter()
            .copied()
            .find(|language| folder.join(language.marker()).is_file());
        let language = language.ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                format!("`{}` is no plugin's folder: it holds no Cargo.toml, transform.py, transform.js or transform.c", folder.display()),
            )
            .with_hint("name the folder of a plugin, or make one: pipewright plugin new NAME")
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            language,
        })
    }

    /// The folder's name, which is the component's.
    pub fn name(&self) -> String {
        let folder = std::fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        folder.file_name().map_or_else(
            || "plugin".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
    }

    /// Makes the component. Blocks for as long as the language's tools take.
    ///
    /// # Errors
    /// [`ErrorKind::PluginRefused`] with the tools' own last lines.
    pub fn build(&self, out: Option<&Path>, toolchain: &Toolchain) -> Result<Built> {
        match self.language {
            Language::Rust => build_plugin_to(&self.folder, out, &toolchain.envs()),
            Language::Python | Language::Javascript | Language::C => {
                let default = self
                    .folder
                    .join("target/plugins")
                    .join(self.name())
                    .with_extension("wasm");
                self.run_packaged(out.unwrap_or(&default), toolchain)
            }
        }
    }

    fn run_packaged(&self, out: &Path, toolchain: &Toolchain) -> Result<Built> {
        let refused = |what: String| Error::new(ErrorKind::PluginRefused, what);
        let packages = toolchain.packages.as_deref().ok_or_else(|| {
            refused(format!(
                "no packages are there that build {:?}",
                self.language
            ))
        })?;
        let folder = out.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|error| {
            refused(format!("`{}` cannot be made", folder.display())).with_source(error)
        })?;
        let aside = out.with_extension(format!("{}.part", std::process::id()));
        let aside = std::path::absolute(&aside).unwrap_or(aside);
        let mut command = match self.language {
            Language::Javascript => javascript(packages, &self.contract()?, &aside),
            Language::C => c::compiler(&self.folder, packages, &aside)?,
            Language::Rust | Language::Python => python(packages, &self.contract()?, &aside),
        };
        let finish = if self.language == Language::C {
            finish_module
        } else {
            finish_component
        };
        let ran = command::run(command.current_dir(&self.folder));
        let finished = ran
            .map_err(|error| refused(format!("`{}` cannot be built: {error:#}", self.name())))
            .and_then(|_| finish(&aside, out));
        std::fs::remove_file(&aside).ok();
        finished
    }

    /// The contract beside the plugin, or that of the repository it stands in.
    fn contract(&self) -> Result<PathBuf> {
        let folder = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let places = folder
            .ancestors()
            .flat_map(|place| [place.join(CONTRACT), place.join("wit")]);
        places
            .into_iter()
            .find(|place| place.join("transform.wit").is_file())
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Config,
                    format!("`{}` has no {CONTRACT}", self.folder.display()),
                )
                .with_hint("`pipewright plugin new` writes it; copy it from a new plugin")
            })
    }
}

/// The package has an entry point and no module of its own that Python would run.
fn python(packages: &Path, contract: &Path, out: &Path) -> Command {
    const ENTRY: &str = "import sys; from componentize_py import script; sys.exit(script())";
    let mut command = Command::new("python3");
    command.args(["-c", ENTRY, "--wit-path"]).arg(contract);
    command
        .args([
            "--world",
            "transform",
            "componentize",
            "transform",
            "--output",
        ])
        .arg(out);
    command
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// With the features off no clock, randomness or network is imported at all.
fn javascript(packages: &Path, contract: &Path, out: &Path) -> Command {
    // By its file: the package has an entry for `import` alone, which looks for it beside the program.
    const ENTRY: &str = "\
        import { pathToFileURL } from 'node:url';\
        import { writeFile } from 'node:fs/promises';\
        const [packages, witPath, out] = process.argv.slice(-3);\
        const entry = packages + '/node_modules/@bytecodealliance/componentize-js/src/componentize.js';\
        const { componentize } = await import(pathToFileURL(entry));\
        const { component } = await componentize({ sourcePath: 'transform.js', witPath, worldName: 'transform',\
          disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'] });\
        await writeFile(out, component);";
    let mut command = Command::new("node");
    command.args(["--input-type=module", "--eval", ENTRY, "--"]);
    command.arg(packages).arg(contract).arg(out);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_known_by_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Project::open(folder.path()).expect_err("an empty folder");
        assert_eq!(error.kind(), ErrorKind::Config);
        std::fs::write(folder.path().join("transform.js"), "").expect("a file");
        let project = Project::open(folder.path()).expect("a plugin");
        assert_eq!(project.language, Language::Javascript);
        assert!(project.contract().is_err());
    }
}
