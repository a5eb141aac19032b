//! What Setup would find and make, without making it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::plugin_files::PluginFiles;
use super::session::{LiveTable, Session};
use super::setup::{self, Prepared};
use crate::config::PipeConfig;
use crate::destination::clickhouse::{Owner, TargetTable};
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
    /// Further targets, which a plugin sends rows to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routed: Vec<RoutedPlan>,
    /// What each plugin reads and writes.
    pub transforms: Vec<StepDescription>,
    /// The statements that Setup would run.
    pub statements: Vec<String>,
}

/// A target that a plugin sends rows to, beside the first.
#[derive(Clone, Debug, Serialize)]
pub struct RoutedPlan {
    /// The target table.
    pub target: String,
    /// Source column, source type and ClickHouse type of every column.
    pub columns: Vec<ColumnPlan>,
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
    let deciding = Finding::deciding(&prepared.findings);
    if deciding.is_some_and(|finding| finding.kind.retry() == Retry::Backoff) {
        setup::refuse(&prepared.findings)?;
    }
    let tables = prepared
        .tables
        .iter()
        .map(|table| TablePlan {
            source: table.source.name().to_string(),
            target: table.target.name().to_owned(),
            columns: columns(table, 0),
            routed: table
                .routed
                .iter()
                .enumerate()
                .map(|(place, target)| RoutedPlan {
                    target: target.name().to_owned(),
                    columns: columns(table, place + 1),
                })
                .collect(),
            transforms: table.chain.describe(),
            statements: table
                .targets()
                .flat_map(TargetTable::create_statements)
                .collect(),
        })
        .collect();
    Ok(Plan {
        pipe: config.pipe.clone(),
        tables,
        findings: prepared.findings,
    })
}

/// The columns of one of a table's targets.
fn columns(table: &LiveTable, output: usize) -> Vec<ColumnPlan> {
    let made = table.chain.outputs().iter().zip(table.targets());
    let columns = made.skip(output).take(1).flat_map(|(output, target)| {
        let columns = output.schema.columns.iter().zip(target.columns());
        columns.map(|(source, target)| ColumnPlan {
            name: source.name.clone(),
            source_type: source.source_type.clone(),
            target_type: target.sql_type.clone(),
        })
    });
    columns.collect()
}

/// The findings of Setup's preflight; a server that cannot be reached is one of them.
///
/// # Errors
/// When a server goes away while it is asked.
pub async fn validate_online(config: &PipeConfig) -> Result<Vec<Finding>> {
    findings_with(config, &Engine::new(None)?, &nobody(config)).await
}

/// The same, with plugins that may be compiled already, for whoever may own the targets.
///
/// # Errors
/// As [`validate_online`].
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
    match Session::connect_or_tell(Arc::new(config.clone()), engine, &PluginFiles::default()).await
    {
        Ok(session) => setup::prepare(&session, owner).await,
        Err(obstacles) => Ok(Prepared {
            tables: Vec::new(),
            findings: obstacles.findings,
        }),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pipe {}", self.pipe)?;
        for table in &self.tables {
            writeln!(f, "\n{} -> {}", table.source, table.target)?;
            show_columns(f, &table.columns)?;
            for routed in &table.routed {
                writeln!(f, "\n{} -> {}", table.source, routed.target)?;
                show_columns(f, &routed.columns)?;
            }
            for transform in &table.transforms {
                let targets = transform.targets.len();
                let dropped = match (targets, transform.may_drop) {
                    (0, false) => String::new(),
                    (0, true) => ", may drop rows".to_owned(),
                    (targets, _) => format!(", sends rows to {targets} targets"),
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

fn show_columns(f: &mut fmt::Formatter<'_>, columns: &[ColumnPlan]) -> fmt::Result {
    let longest = |length: fn(&ColumnPlan) -> usize| columns.iter().map(length).max().unwrap_or(0);
    let width = longest(|column| column.name.len());
    let types = longest(|column| column.source_type.len()).min(40);
    for column in columns {
        writeln!(
            f,
            "  {:width$}  {:types$}  {}",
            column.name, column.source_type, column.target_type
        )?;
    }
    Ok(())
}
