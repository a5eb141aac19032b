//! `validate` and `plan`: looking without touching.

use serde_json::{Value, json};

use super::arguments::{Plan, Validate};
use super::connection::Connection;
use super::exit::Exit;
use super::output::{self, Failure, Result, count};
use crate::config::{self, Difference, PipeConfig, Secrets};
use crate::error::{Finding, Severity};
use crate::pipe;

pub(super) fn validate(options: &Validate, as_json: bool) -> Result<Exit> {
    let secrets = if options.online {
        Secrets::Resolve
    } else {
        Secrets::Offline
    };
    let pipes = super::load(&options.paths, secrets)?;
    let findings = if options.online {
        super::block_on(preflight(&pipes))?
    } else {
        Vec::new()
    };
    if findings
        .iter()
        .any(|(_, finding)| finding.severity == Severity::Error)
    {
        return Err(Failure::Findings(findings));
    }
    if as_json {
        let names: Vec<&str> = pipes.iter().map(|pipe| pipe.pipe.as_str()).collect();
        output::data(&json!({
            "valid": true,
            "online": options.online,
            "pipes": names,
            "findings": output::findings_json(&findings),
        }));
    } else {
        output::note(&output::findings_text(&findings));
        let seen = if options.online {
            "the servers are ready"
        } else {
            "the files are right; --online asks the servers too"
        };
        output::text(&format!("{}: {seen}\n", count(pipes.len(), "pipe")));
    }
    Ok(Exit::Done)
}

async fn preflight(pipes: &[PipeConfig]) -> Result<Vec<(String, Finding)>> {
    let mut findings = Vec::new();
    for config in pipes {
        let found = pipe::validate_online(config).await?;
        findings.extend(
            found
                .into_iter()
                .map(|finding| (config.pipe.clone(), finding)),
        );
    }
    Ok(findings)
}

pub(super) fn plan(options: &Plan, as_json: bool) -> Result<Exit> {
    if let Some(statement) = &options.ddl {
        return forecast(
            &super::load(&options.paths, Secrets::Offline)?,
            statement,
            as_json,
        );
    }
    let files = config::load_files(&options.paths, &config::environment, Secrets::Resolve)
        .map_err(Failure::Problems)?;
    let plans = super::block_on(async {
        let connection = Connection::new(&options.server)?;
        let mut plans = Vec::new();
        for file in &files {
            let running = running(&connection, &file.config.pipe).await?;
            plans.push((pipe::plan(&file.config).await?, running));
        }
        Ok(plans)
    })?;
    let plans: Vec<(pipe::Plan, Option<Vec<Difference>>)> = plans
        .into_iter()
        .zip(&files)
        .map(|((plan, running), file)| {
            let told = |running| config::compare(&running, &config::shown(&file.document));
            (plan, running.map(told))
        })
        .collect();
    let changes = plans.iter().any(|(plan, differences)| match differences {
        Some(differences) => !differences.is_empty(),
        None => plan.tables.iter().any(|table| !table.statements.is_empty()),
    });
    if as_json {
        let plans: Vec<_> = plans.iter().map(plan_json).collect();
        output::data(&json!({ "plans": plans }));
    } else {
        for (plan, differences) in &plans {
            let differences = differences.iter().flatten().map(difference_line);
            output::text(&format!("{plan}{}\n", differences.collect::<String>()));
        }
    }
    Ok(match options.detailed_exitcode && changes {
        true => Exit::Changes,
        false => Exit::Done,
    })
}

/// What the process at hand runs a pipe by; none where there is no process, or it does not have the pipe.
async fn running(connection: &Connection, pipe: &str) -> Result<Option<Value>> {
    match connection.get(&format!("/v1/pipes/{pipe}/file")).await {
        Ok(document) => Ok(Some(document)),
        Err(failure) if failure.exit() == Exit::Unavailable => Ok(None),
        // It has no such pipe, or does not say.
        Err(Failure::Refused(refusal))
            if matches!(refusal.code.as_str(), "unknown_pipe" | "unauthorized") =>
        {
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

fn plan_json((plan, differences): &(pipe::Plan, Option<Vec<Difference>>)) -> Value {
    let mut value = json!(plan);
    if let Some(differences) = differences {
        let differences = differences.iter().map(|difference| {
            json!({ "key": difference.key, "running": difference.before, "file": difference.after })
        });
        value["differences"] = differences.collect();
    }
    value
}

fn difference_line(difference: &Difference) -> String {
    let said = |value: &Option<Value>| {
        value
            .as_ref()
            .map_or("nothing".to_owned(), Value::to_string)
    };
    format!(
        "\n{}: the file says {}, the pipe runs with {}\n",
        difference.key,
        said(&difference.after),
        said(&difference.before)
    )
}

fn forecast(pipes: &[PipeConfig], statement: &str, as_json: bool) -> Result<Exit> {
    let forecasts: Vec<_> = pipes
        .iter()
        .map(|config| (config.pipe.as_str(), pipe::forecast(config, statement)))
        .collect();
    if as_json {
        let listed = forecasts
            .iter()
            .map(|(pipe, effects)| json!({ "pipe": pipe, "effects": effects }));
        output::data(&json!({ "ddl": listed.collect::<Vec<_>>() }));
        return Ok(Exit::Done);
    }
    for (pipe, effects) in &forecasts {
        output::text(&format!("pipe {pipe}\n"));
        if effects.is_empty() {
            output::text("  nothing: the statement changes no table of this pipe\n");
        }
        for effect in effects {
            output::text(&format!("  {effect}\n"));
        }
    }
    Ok(Exit::Done)
}
