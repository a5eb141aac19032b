//! What Setup would find and make, without making it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::session::Session;
use super::setup::{self, Prepared};
use crate::config::PipeConfig;
use crate::destination::clickhouse::Owner;
use crate::error::{Finding, Result, Retry};
use crate::transform::{Engine, StepDescription};

/// The tables, columns, DDL and plugin bindings of a pipe, and what stands against it.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The pipe's name.
    pub pipe: String,
    /// One entry a table.
    pub tables: Vec<TablePlan>,
    /// Everything that preflight found.
    pub findings: Vec<Finding>,
}

/// One table of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct TablePlan {
    /// The source table.
    pub source: String,
    /// The target table.
    pub target: String,
    /// Source column, source type and ClickHouse type of every column.
    pub columns: Vec<ColumnPlan>,
    /// What each plugin reads and writes.
    pub transforms: Vec<StepDescription>,
    /// The statements that Setup would run.
    pub statements: Vec<String>,
}

/// One column of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct ColumnPlan {
    /// The name at both ends.
    pub name: String,
    /// The source's type.
    pub source_type: String,
    /// The target's type.
    pub target_type: String,
}

/// Finds out what Setup would do; touches nothing at either end.
///
/// # Errors
/// When a server cannot be reached or a plugin not loaded.
pub async fn plan(config: &PipeConfig) -> Result<Plan> {
    let prepared = prepare(config, &Engine::new(None)?, &nobody(config)).await?;
    let tables = prepared
        .tables
        .iter()
        .map(|table| TablePlan {
            source: table.source.name().to_string(),
            target: table.target.name().to_owned(),
            columns: table
                .chain
                .output()
                .columns
                .iter()
                .zip(table.target.columns())
                .map(|(source, target)| ColumnPlan {
                    name: source.name.clone(),
                    source_type: source.source_type.clone(),
                    target_type: target.sql_type.clone(),
                })
                .collect(),
            transforms: table.chain.describe(),
            statements: table.target.create_statements(),
        })
        .collect();
    Ok(Plan {
        pipe: config.pipe.clone(),
        tables,
        findings: prepared.findings,
    })
}

/// The findings of Setup's preflight.
///
/// # Errors
/// As [`plan`].
pub async fn validate_online(config: &PipeConfig) -> Result<Vec<Finding>> {
    findings_with(config, &Engine::new(None)?, &nobody(config)).await
}

/// The same, with plugins that may be compiled already, for whoever may own the targets.
///
/// # Errors
/// As [`plan`].
pub(super) async fn findings_with(
    config: &PipeConfig,
    engine: &Arc<Engine>,
    owner: &Owner,
) -> Result<Vec<Finding>> {
    Ok(prepare(config, engine, owner).await?.findings)
}

/// A plan has no token of its own: a target with rows is somebody else's.
fn nobody(config: &PipeConfig) -> Owner {
    Owner::new(config.pipe.clone(), String::new())
}

async fn prepare(config: &PipeConfig, engine: &Arc<Engine>, owner: &Owner) -> Result<Prepared> {
    let session = match Session::connect(Arc::new(config.clone()), engine, None).await {
        Ok(session) => session,
        Err(error) if error.kind().retry() == Retry::Backoff => return Err(error),
        Err(_) => {
            return Ok(Prepared {
                tables: Vec::new(),
                findings: Session::obstacles(config, engine).await?,
            });
        }
    };
    setup::prepare(&session, owner).await
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pipe {}", self.pipe)?;
        for table in &self.tables {
            writeln!(f, "\n{} -> {}", table.source, table.target)?;
            let width = table
                .columns
                .iter()
                .map(|column| column.name.len())
                .max()
                .unwrap_or(0);
            let types = table
                .columns
                .iter()
                .map(|column| column.source_type.len())
                .max()
                .unwrap_or(0)
                .min(40);
            for column in &table.columns {
                writeln!(
                    f,
                    "  {:width$}  {:types$}  {}",
                    column.name, column.source_type, column.target_type
                )?;
            }
            for transform in &table.transforms {
                let dropped = if transform.may_drop {
                    ", may drop rows"
                } else {
                    ""
                };
                writeln!(
                    f,
                    "  transform {}: reads {}; writes {}{dropped}",
                    transform.plugin,
                    transform.reads.join(", "),
                    transform.writes.join(", ")
                )?;
            }
            for statement in &table.statements {
                writeln!(f, "\n{statement};")?;
            }
        }
        for finding in &self.findings {
            writeln!(
                f,
                "\n{:?} {}: found {}; needed {}\n  {}",
                finding.severity, finding.check, finding.found, finding.needed, finding.remedy
            )?;
        }
        Ok(())
    }
}
