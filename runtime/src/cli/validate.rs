//! `validate` and `plan`: looking without touching.

use serde_json::json;

use super::arguments::{Plan, Validate};
use super::exit::Exit;
use super::output::{self, Failure, Result, count};
use crate::config::{PipeConfig, Secrets};
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
    let pipes = super::load(&options.paths, Secrets::Resolve)?;
    let plans = super::block_on(async {
        let mut plans = Vec::new();
        for config in &pipes {
            plans.push(pipe::plan(config).await?);
        }
        Ok(plans)
    })?;
    if as_json {
        output::data(&json!({ "plans": plans }));
    } else {
        for plan in &plans {
            output::text(&format!("{plan}\n"));
        }
    }
    Ok(Exit::Done)
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
