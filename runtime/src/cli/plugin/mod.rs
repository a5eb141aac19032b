//! `pipewright plugin`: the author's verbs.

pub(super) mod arguments;
mod keys;
mod look;
mod show;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use self::arguments::{Bench, Build, Cases, New, Plugin, Test, Which};
use super::exit::Exit;
use super::output::{self, Failure, Result, count};
use crate::author::{self, Case, Project, Report};
use crate::error::{Error, ErrorKind};
use crate::fetch::cache;
use crate::transform::{Built, Engine};

pub(super) fn plugin(verb: &Plugin, as_json: bool) -> Result<Exit> {
    match verb {
        Plugin::New(options) => new(options, as_json),
        Plugin::Build(options) => build(options, as_json),
        Plugin::Inspect(options) => look::inspect(options, as_json),
        Plugin::Test(options) => test(options, as_json),
        Plugin::Bench(options) => bench(options, as_json),
        Plugin::Run(options) => look::run(options, as_json),
    }
}

fn new(options: &New, as_json: bool) -> Result<Exit> {
    author::scaffold(&options.folder, options.lang).map_err(|error| {
        let exit = match error.kind() {
            ErrorKind::Config => Exit::Usage,
            other => Exit::over(other),
        };
        Failure::Error { exit, error }
    })?;
    let folder = options.folder.display().to_string();
    if as_json {
        output::data(&json!({ "folder": folder }));
    } else {
        let quoted = quoted(&folder);
        output::text(&format!(
            "{folder}: a plugin that trims text; begin with\n  cd {quoted}\n  pipewright plugin build\n  pipewright plugin test\n"
        ));
    }
    Ok(Exit::Done)
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-~+@:".contains(c);
    match path.chars().all(plain) {
        true => path.to_owned(),
        false => format!("'{}'", path.replace('\'', r"'\''")),
    }
}

fn build(options: &Build, as_json: bool) -> Result<Exit> {
    let built = build_project(&options.dir, options.out.as_deref(), options.fetch)?;
    if as_json {
        output::data(&json!({
            "component": built.path,
            "bytes": built.size,
            "sha256": built.digest,
        }));
    } else {
        output::text(&format!("{}\n", built.path.display()));
        output::note(&format!(
            "{}, sha256 {}\n",
            show::bytes(built.size),
            built.digest
        ));
    }
    Ok(Exit::Done)
}

fn build_project(dir: &Path, out: Option<&Path>, fetch: bool) -> Result<Built> {
    let project = Project::open(dir)?;
    let toolchain = if fetch {
        author::fetch_toolchain(project.language, dir)?
    } else {
        author::find_toolchain(project.language, dir)?
    };
    Ok(project.build(out, &toolchain)?)
}

/// A component with the name that messages call it by, and its folder when it was built from one.
struct Component {
    name: String,
    path: PathBuf,
    folder: Option<PathBuf>,
}

impl Which {
    fn component(&self) -> Result<Component> {
        if self.path.is_dir() {
            let built = build_project(&self.path, None, self.fetch)?;
            return Ok(Component {
                name: Project::open(&self.path)?.name(),
                path: built.path,
                folder: Some(self.path.clone()),
            });
        }
        if !self.path.exists() {
            return Err(usage(
                &format!("`{}` does not exist", self.path.display()),
                "name a component's file or a plugin's folder",
            ));
        }
        let name = self
            .path
            .file_stem()
            .map(|name| name.to_string_lossy().into_owned());
        Ok(Component {
            name: name.unwrap_or_else(|| "plugin".to_owned()),
            path: self.path.clone(),
            folder: None,
        })
    }
}

impl Cases {
    /// The component, and its cases that are asked for.
    fn read(&self) -> Result<(Component, Vec<Case>)> {
        let component = self.which.component()?;
        let cases = component.cases(self.cases.as_deref(), self.only.as_deref())?;
        Ok((component, cases))
    }
}

impl Component {
    /// That it is a component at all: what a case is told of one that is none is nothing to be expected.
    async fn ensure_one(&self, engine: &Arc<Engine>) -> Result<()> {
        engine.inspect(&self.path).await?;
        Ok(())
    }

    /// The cases of a folder, or of the plugin's own.
    fn cases(&self, folder: Option<&Path>, only: Option<&str>) -> Result<Vec<Case>> {
        let own = self.folder.as_ref().map(|folder| folder.join("cases"));
        let folder = folder.map(Path::to_owned).or(own).ok_or_else(|| {
            usage(
                "a component's file has no cases beside it",
                "name their folder with --cases, or the plugin's folder in place of the file",
            )
        })?;
        let mut cases = author::read_cases(&folder)?;
        if let Some(only) = only {
            cases.retain(|case| case.name.contains(only));
            if cases.is_empty() {
                return Err(usage(
                    &format!("no case of `{}` has `{only}` in its name", folder.display()),
                    "give a part of a name",
                ));
            }
        }
        Ok(cases)
    }
}

fn usage(what: &str, hint: &str) -> Failure {
    Failure::Error {
        exit: Exit::Usage,
        error: Error::new(ErrorKind::Config, what).with_hint(hint),
    }
}

fn engine() -> Result<Arc<Engine>> {
    super::quiet_log();
    // An interpreter takes ten seconds to compile; where there is no cache folder, each time.
    let cache = cache::cache_folder().ok();
    Ok(Engine::new(cache.map(|folder| folder.join("compiled")))?)
}

fn test(options: &Test, as_json: bool) -> Result<Exit> {
    let (component, cases) = options.of.read()?;
    let engine = engine()?;
    let reports = super::block_on(async {
        component.ensure_one(&engine).await?;
        let mut reports: Vec<Report> = Vec::with_capacity(cases.len());
        for case in &cases {
            let report = author::check(
                &engine,
                &component.name,
                &component.path,
                case,
                options.update,
            )
            .await?;
            if !as_json {
                output::text(&show::report(&report));
            }
            reports.push(report);
        }
        Ok(reports)
    })?;
    let failed = reports
        .iter()
        .filter(|report| !report.differences.is_empty())
        .count();
    if as_json {
        output::data(
            &json!({ "passed": reports.len() - failed, "failed": failed, "cases": reports }),
        );
    } else {
        output::text(&format!(
            "\n{}: {failed} failed\n",
            count(reports.len(), "case")
        ));
    }
    Ok(if failed == 0 {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn bench(options: &Bench, as_json: bool) -> Result<Exit> {
    let (component, mut cases) = options.of.read()?;
    cases.retain(Case::gives_rows);
    if cases.is_empty() {
        return Err(usage(
            "no case gives rows that could be measured",
            "add one with rows, and an expected.jsonl",
        ));
    }
    let engine = engine()?;
    let rows = options.rows as usize;
    let figures = super::block_on(async {
        component.ensure_one(&engine).await?;
        let mut all = Vec::with_capacity(cases.len());
        for case in &cases {
            let figures =
                author::bench(&engine, &component.name, &component.path, case, rows).await?;
            if !as_json {
                output::text(&show::figures(&figures));
            }
            all.push(figures);
        }
        Ok(all)
    })?;
    if as_json {
        output::data(&json!({ "figures": figures }));
    }
    Ok(Exit::Done)
}
