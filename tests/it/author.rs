//! The author's path: what `plugin new`, `build`, `inspect`, `test`, `bench` and `run` do, and what sdk/README.md promises.

mod cases;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testbed::SourceKind;
use testbed::harness::{Comparison, Finished, Plugins, Stage, run_to_end, workspace_folder};

use crate::support::{ensure_fits, once, plugins, program};

once! {
    a_new_author_gets_from_nothing_to_a_pipe_by_the_steps_of_the_sdks_readme: 1200,
    first_party_plugins_pass_their_own_cases: 900,
    build_and_inspect_say_what_a_component_is_and_what_it_does_to_a_table: 900,
    build_without_a_compiler_ends_with_the_command_that_gets_one: 60,
    run_shows_rows_before_and_after_and_writes_nothing: 600,
}

/// Building takes most of it: two cores, and other builds at the same time.
const BUILD: Duration = Duration::from_secs(900);

pub(crate) async fn plugin(arguments: &[&str]) -> Result<Finished> {
    let line = [&["pipewright", "plugin"], arguments].concat();
    run_to_end(program(), line, &[], BUILD).await
}

/// What an author's own commands may take by the clock, and of a processor, from `plugin new` to rows in a pipe; downloads
/// count. On two cores with a load of ten to fifteen they took 111 and 129 seconds by the clock.
const AUTHORS_TIME: Duration = Duration::from_secs(300);

/// The fenced blocks of a document that begin with this word.
fn blocks(text: &str, kind: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == format!("```{kind}") {
            let block: Vec<&str> = lines
                .by_ref()
                .take_while(|line| line.trim() != "```")
                .collect();
            blocks.push(block.join("\n"));
        }
    }
    blocks
}

/// A folder with a program `pipewright` in it, as an author has one on the PATH.
fn installed(folder: &Path) -> Result<String> {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("bin/pipewright");
    fs::create_dir_all(folder.join("bin"))?;
    let script = format!(
        "#!/bin/sh\nexec '{}' pipewright \"$@\"\n",
        program().display()
    );
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let others = std::env::var("PATH").unwrap_or_default();
    Ok(format!("{}:{others}", folder.join("bin").display()))
}

async fn a_new_author_gets_from_nothing_to_a_pipe_by_the_steps_of_the_sdks_readme() -> Result<()> {
    let readme = fs::read_to_string(workspace_folder().join("sdk/README.md"))?;
    let folder = tempfile::tempdir()?;
    let stage = Stage::shared(SourceKind::MySql).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE customers (id INT PRIMARY KEY, email VARCHAR(100) NULL)",
            "INSERT INTO customers VALUES (1, ' Ann@Example.com '), (2, NULL)",
        ])
        .await?;
    let mut envs = vec![("PATH".to_owned(), installed(folder.path())?)];
    // The pipe file of the README names its servers by variables.
    let file = stage.pipe_file(&["customers"]);
    for (name, value) in [
        ("SOURCE_HOST", &file["source"]["host"]),
        ("SOURCE_PORT", &file["source"]["port"]),
        ("SOURCE_USER", &file["source"]["user"]),
        ("SOURCE_PASSWORD", &file["source"]["password"]),
        ("SOURCE_DATABASE", &json!(stage.database)),
        ("CLICKHOUSE_URL", &file["destination"]["url"]),
        ("CLICKHOUSE_USER", &file["destination"]["user"]),
        ("CLICKHOUSE_PASSWORD", &file["destination"]["password"]),
    ] {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        envs.push((
            name.to_owned(),
            if value == "null" {
                String::new()
            } else {
                value
            },
        ));
    }
    let pipe = blocks(&readme, "yaml")
        .into_iter()
        .find(|block| block.contains("pipe: customers"));
    let pipe = pipe.context("sdk/README.md shows a pipe file")?;
    let mut steps = blocks(&readme, "sh").into_iter();
    let first = steps
        .next()
        .context("sdk/README.md begins with `plugin new`")?;
    ensure!(first.contains("plugin new"), "{first}");
    let name = first
        .lines()
        .find_map(|line| line.strip_prefix("cd "))
        .context("sdk/README.md goes into the new folder")?;
    let new = folder.path().join(name.trim());
    let began = Instant::now();
    let (mut printed, mut spent) = shell(&first, folder.path(), &envs).await?;
    fs::write(new.join("pipe.yaml"), pipe)?;
    for step in steps {
        let (more, took) = shell(&step, &new, &envs).await?;
        printed += &more;
        spent += took;
    }
    let elapsed = began.elapsed();
    eprintln!("from nothing to a pipe in {elapsed:.1?}, {spent:.1?} of a processor");
    ensure!(
        elapsed < AUTHORS_TIME && spent < AUTHORS_TIME,
        "{elapsed:?} by the clock, {spent:?} of a processor"
    );
    ensure!(printed.contains("2 cases: 0 failed"), "{printed}");
    ensure!(
        printed.contains("ann@example.com"),
        "`plugin run` shows the row:\n{printed}"
    );
    let comparison = Comparison::of("customers").text_is("email", "LOWER(TRIM(email))");
    stage.assert(comparison).await?;
    its_own_test_passes_natively(&new, &envs).await
}

/// As the README says of `cargo test`, which is no step of the five minutes.
async fn its_own_test_passes_natively(new: &Path, envs: &[(String, String)]) -> Result<()> {
    let (printed, _) = shell("cargo test", new, envs).await?;
    let passed = "text_is_trimmed_and_lower_case_and_null_stays_null ... ok";
    ensure!(printed.contains(passed), "no `{passed}` in:\n{printed}");
    Ok(())
}

/// What the commands print, and the processor time of all of them.
async fn shell(step: &str, folder: &Path, envs: &[(String, String)]) -> Result<(String, Duration)> {
    let folder = folder.display();
    let script = format!("set -eu\ncd '{folder}'\n{step}\ntimes\n");
    let finished = run_to_end(Path::new("/bin/sh"), vec!["-c", &script], envs, BUILD).await?;
    ensure!(
        finished.code == 0,
        "{step}\n{}\n{}",
        finished.stdout,
        finished.stderr
    );
    // `times` writes two lines, `0m0.010s 0m0.000s` each: the shell's own, and those of all that it waited for.
    let lines: Vec<&str> = finished.stdout.lines().collect();
    let (printed, times) = lines.split_at(lines.len().saturating_sub(2));
    let words = times.iter().flat_map(|line| line.split_whitespace());
    let seconds = words.map(|word| {
        let (minutes, seconds) = word.trim_end_matches('s').split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
    });
    let seconds: Option<f64> = seconds.sum();
    let seconds = seconds.context("`times` prints minutes and seconds")?;
    Ok((printed.join("\n"), Duration::from_secs_f64(seconds)))
}

async fn first_party_plugins_pass_their_own_cases() -> Result<()> {
    let built = plugins().await?;
    for name in Plugins::names()? {
        let folder = workspace_folder().join("plugins").join(&name);
        let cases = folder.join("cases").display().to_string();
        let tested = plugin(&["test", &built.path(&name), "--cases", &cases]).await?;
        ensure!(
            tested.code == 0,
            "{name}:\n{}{}",
            tested.stdout,
            tested.stderr
        );
        let inspected = plugin(&["inspect", &built.path(&name), "--json"]).await?;
        let document: Value = serde_json::from_str(&inspected.stdout)?;
        ensure!(document["inspection"]["refusal"].is_null(), "{document:#}");
        let schema = document["inspection"]["config_schema"].as_str();
        let schema = schema.with_context(|| format!("{name} gives no schema"))?;
        ensure_documented(&serde_json::from_str(schema)?, &folder)?;
        ensure!(
            folder.join("README.md").is_file(),
            "{name} has no README.md"
        );
    }
    let inspected = plugin(&["inspect", &built.path("mask")]).await?;
    ensure!(
        inspected
            .stdout
            .contains("columns: list of string, needed. The columns to hide."),
        "{}",
        inspected.stdout
    );
    Ok(())
}

/// The plugin's schema takes every configuration that its cases and its README show, and none with a misspelt key.
fn ensure_documented(schema: &Value, folder: &Path) -> Result<()> {
    let mut shown = Vec::new();
    for entry in fs::read_dir(folder.join("cases"))? {
        let path = entry?.path().join("case.yaml");
        if path.is_file() {
            shown.push((path.clone(), yaml(&fs::read_to_string(path)?)?));
        }
    }
    let readme = folder.join("README.md");
    for block in blocks(&fs::read_to_string(&readme)?, "yaml") {
        let file = yaml(&block)?;
        let transforms = file["transforms"].as_object().into_iter().flatten();
        shown.extend(transforms.map(|(_, transform)| (readme.clone(), transform.clone())));
    }
    ensure!(shown.len() > 1, "`{}` shows nothing", folder.display());
    for (path, transform) in shown {
        let mut config = transform["config"].clone();
        ensure_fits(schema, &config).with_context(|| path.display().to_string())?;
        config["no_such_key"] = json!(1);
        ensure!(
            ensure_fits(schema, &config).is_err(),
            "the schema of `{}` takes any key",
            folder.display()
        );
    }
    Ok(())
}

/// As pipewright reads it: `n` and `007` are words.
fn yaml(text: &str) -> Result<Value> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
    };
    serde_saphyr::from_str_with_options(text, options).context("YAML")
}

/// A component that is built has the size and digest that are printed, and is bound to a table as `inspect` shows.
async fn build_and_inspect_say_what_a_component_is_and_what_it_does_to_a_table() -> Result<()> {
    let source = workspace_folder().join("plugins/lookup");
    let folder = tempfile::tempdir()?;
    let component = folder.path().join("lookup.wasm").display().to_string();
    let source_text = source.display().to_string();
    let built = plugin(&[
        "build",
        &source_text,
        "--fetch",
        "--out",
        &component,
        "--json",
    ])
    .await?;
    let built: Value = serde_json::from_str(&built.stdout).context(built.stderr)?;
    let bytes = fs::read(&component)?;
    let (size, digest) = (bytes.len(), format!("{:x}", Sha256::digest(&bytes)));
    let said = json!({ "component": component, "bytes": size, "sha256": digest });
    ensure!(built == said, "{built:#}");

    let table = source.join("cases/table.yaml").display().to_string();
    let config = fs::read_to_string(source.join("cases/joins/case.yaml"))?;
    let config = yaml(&config)?["config"].to_string();
    let bare = plugin(&["inspect", &component, "--json"]).await?;
    let bare: Value = serde_json::from_str(&bare.stdout).context(bare.stderr)?;
    ensure!(bare["bindings"] == json!([]), "{bare:#}");
    let inspection = &bare["inspection"];
    ensure!(
        inspection["size"] == size
            && inspection["digest"] == digest.as_str()
            && inspection["contract"] == json!(["0.1.0"])
            && inspection["name"] == "pipewright-plugin-lookup"
            && inspection["version"].is_string()
            && inspection["imports"]
                == json!([
                    "pipewright:transform/lookup@0.1.0",
                    "pipewright:transform/log@0.1.0",
                    "pipewright:transform/types@0.1.0"
                ]),
        "{bare:#}"
    );
    binding_is_shown(&component, &table, &config).await
}

/// `inspect` on a terminal, for a plugin that takes no grant: which columns it would read and write.
async fn binding_is_shown(lookup: &str, lookup_table: &str, lookup_config: &str) -> Result<()> {
    let built = plugins().await?;
    let table = workspace_folder().join("plugins/mask/cases/table.yaml");
    let config = json!({ "columns": ["email"], "method": "sha256", "salt": "s" }).to_string();
    let shown = plugin(&[
        "inspect",
        &built.path("mask"),
        "--table",
        &table.display().to_string(),
        "--config",
        &config,
    ])
    .await?;
    for line in [
        "  contract  0.1.0",
        "shop.customers",
        ": reads email; writes email",
        "    id  int64 not null",
        "    email  text",
        "    age  int32",
    ] {
        ensure!(
            shown.stdout.lines().any(|shown| shown.ends_with(line)),
            "no `{line}` in:\n{}\n{}",
            shown.stdout,
            shown.stderr
        );
    }
    // The file that it asks for is granted by a case, and by nothing here.
    let refused = plugin(&[
        "inspect",
        lookup,
        "--table",
        lookup_table,
        "--config",
        lookup_config,
    ])
    .await?;
    ensure!(
        refused.code != 0 && refused.stderr.contains("lookup"),
        "{refused:?}"
    );
    Ok(())
}

/// Nothing is fetched that was not asked for.
async fn build_without_a_compiler_ends_with_the_command_that_gets_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cache = folder.path().join("cache");
    fs::create_dir(&cache)?;
    let component = folder.path().join("mask.wasm").display().to_string();
    let source = workspace_folder().join("plugins/mask");
    let source = source.display().to_string();
    let envs = [
        ("PIPEWRIGHT_GUEST_TOOLCHAIN".to_owned(), "cached".to_owned()),
        ("PIPEWRIGHT_CACHE".to_owned(), cache.display().to_string()),
    ];
    let line = [
        "pipewright",
        "plugin",
        "build",
        &source,
        "--out",
        &component,
    ];
    let refused = run_to_end(program(), line, &envs, BUILD).await?;
    ensure!(refused.code == 1, "{refused:?}");
    for words in [
        "no compiler for wasm32-unknown-unknown is there",
        "run: rustup target add wasm32-unknown-unknown",
        "--fetch",
    ] {
        ensure!(
            refused.stderr.contains(words),
            "no `{words}` in:\n{}",
            refused.stderr
        );
    }
    ensure!(!Path::new(&component).exists());
    let fetched = fs::read_dir(&cache)?.count();
    ensure!(fetched == 0, "{fetched} items are in the cache");
    Ok(())
}

async fn run_shows_rows_before_and_after_and_writes_nothing() -> Result<()> {
    let built = plugins().await?;
    let stage = Stage::shared(SourceKind::MariaDb).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE people (id INT PRIMARY KEY, email VARCHAR(100) NULL, age INT NULL)",
            "INSERT INTO people VALUES (1, 'ada@example.com', 36), (2, NULL, 7), (3, 'bob@example.com', 40)",
        ])
        .await?;
    let entry =
        json!({ "source": format!("{}.people", stage.database), "transforms": ["adults", "hide"] });
    let mut file = stage.pipe_file_of(vec![entry]);
    file["transforms"] = json!({
        "adults": { "plugin": built.path("filter"), "config": { "where": "age >= 18" } },
        "hide": { "plugin": built.path("mask"), "config": { "columns": ["email"], "method": "redact" } },
    });
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("pipe.yaml");
    fs::write(&path, format!("{file:#}"))?;
    let path = path.display().to_string();
    let shown = plugin(&["run", &path, "--json"]).await?;
    let document: Value = serde_json::from_str(&shown.stdout).context(shown.stderr)?;
    let rows = document["rows"].as_array().context("rows are shown")?;
    ensure!(rows.len() == 3, "{document:#}");
    ensure!(
        rows[0]["before"]["email"] == "ada@example.com",
        "{document:#}"
    );
    ensure!(rows[0]["after"][0]["email"] == "***", "{document:#}");
    ensure!(
        rows[1]["after"] == json!([]),
        "row 2 is dropped: {document:#}"
    );
    let text = plugin(&["run", &path, "--rows", "1"]).await?;
    ensure!(
        text.stdout.contains("->  \"***\"") && !text.stdout.contains("row 2"),
        "{}",
        text.stdout
    );
    let refused = plugin(&["run", &path, "--table", "shop.nothing"]).await?;
    ensure!(
        refused.code == 78 && refused.stderr.contains("means no table `shop.nothing`"),
        "{refused:?}"
    );
    let databases = format!(
        "SELECT count() FROM system.databases WHERE name = '{}'",
        stage.database
    );
    ensure!(
        stage.clickhouse.number(&databases).await? == 0,
        "`run` has made a database"
    );
    Ok(())
}
