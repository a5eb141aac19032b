//! Loads of the lineitem table: Pipewright's with both durabilities and through plugins, and ClickHouse's own.
//!
//! Contestants take turns, each into a fresh target that is dropped afterwards. A load's time is that of the state Snapshot:
//! choosing the start place and the partitions, reading, inserting, and passing the end place; what comes before it (process,
//! connections, Setup) is shown beside it.

use std::collections::BTreeMap;
use std::env;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use testbed::harness::{Launch, Pipe, Stage, build_guest, usage_of, workspace_folder};

use super::lineitem;
use super::report::{median, print, thousands};

/// How often the pipe is asked whether it is done. An answer costs both sides processor time that the load lacks; the wait
/// is at most half a percent of a load.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

const LOAD_TIMEOUT: Duration = Duration::from_secs(600);

/// One run of one contestant.
#[derive(Clone, Copy, Debug)]
struct Run {
    seconds: f64,
    start_up: f64,
    processor_seconds: f64,
    peak_bytes: f64,
}

/// A contestant that is a pipe.
struct Contestant {
    name: &'static str,
    durability: &'static str,
    transform: Option<Value>,
}

/// Figures of the load beside ClickHouse's own.
pub(super) async fn snapshot(stage: &Stage, row_count: u64, rounds: u32) -> Result<Value> {
    lineitem::fill(&stage.source, row_count).await?;
    let contestants = [
        Contestant {
            name: "pipewright, answered",
            durability: "answered",
            transform: None,
        },
        Contestant {
            name: "pipewright, fsync",
            durability: "fsync",
            transform: None,
        },
    ];
    let mut runs = BTreeMap::<&str, Vec<Run>>::new();
    const PEER: &str = "INSERT ... SELECT FROM mysql()";
    for round in 0..=rounds {
        let peer = peer(stage, row_count).await?;
        // The first round warms the source's memory and counts for nobody.
        let mut keep = |name, run| {
            if round > 0 {
                runs.entry(name).or_default().push(run)
            }
        };
        keep(PEER, peer);
        for contestant in &contestants {
            let run = load(stage, contestant, row_count, round).await?;
            keep(contestant.name, run);
        }
        eprint!(".");
    }
    eprintln!();
    Ok(report(&runs, PEER, row_count))
}

/// Figures of the load through plugins beside the load without.
pub(super) async fn plugin(stage: &Stage, row_count: u64, rounds: u32) -> Result<Value> {
    let program = env::current_exe()?;
    let nothing = build_guest(&program, &workspace_folder().join("tests/guests/nothing")).await?;
    let mask = build_guest(&program, &workspace_folder().join("plugins/mask")).await?;
    lineitem::fill(&stage.source, row_count).await?;
    let masked = json!({ "columns": ["l_comment"], "method": "sha256", "salt": "bench" });
    let contestants = [
        Contestant {
            name: "no plugin",
            durability: "answered",
            transform: None,
        },
        Contestant {
            name: "a plugin that does nothing",
            durability: "answered",
            transform: Some(json!({ "plugin": nothing, "config": { "columns": ["l_comment"] } })),
        },
        Contestant {
            name: "mask on l_comment",
            durability: "answered",
            transform: Some(json!({ "plugin": mask, "config": masked })),
        },
    ];
    let mut runs = BTreeMap::<&str, Vec<Run>>::new();
    for round in 0..=rounds {
        for contestant in &contestants {
            let run = load(stage, contestant, row_count, round).await?;
            if round > 0 {
                runs.entry(contestant.name).or_default().push(run);
            }
        }
        eprint!(".");
    }
    eprintln!();
    Ok(report(&runs, "no plugin", row_count))
}

async fn peer(stage: &Stage, row_count: u64) -> Result<Run> {
    let clickhouse = &stage.clickhouse;
    clickhouse
        .query("CREATE DATABASE IF NOT EXISTS peer ENGINE = Atomic")
        .await?;
    clickhouse
        .query(&format!(
            "CREATE TABLE peer.lineitem {}",
            lineitem::CREATE_PEER
        ))
        .await?;
    let sql = format!(
        "INSERT INTO peer.lineitem SELECT * FROM mysql('127.0.0.1:{}', '{}', 'lineitem', 'pipewright', 'pipewright')",
        stage.source_server.port(),
        stage.database
    );
    let started = Instant::now();
    clickhouse.query(&sql).await?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(
        clickhouse
            .number("SELECT count() FROM peer.lineitem")
            .await?
            == row_count,
        "the peer has lost rows"
    );
    clickhouse.query("DROP TABLE peer.lineitem SYNC").await?;
    Ok(Run {
        seconds,
        start_up: 0.0,
        processor_seconds: f64::NAN,
        peak_bytes: f64::NAN,
    })
}

async fn load(stage: &Stage, contestant: &Contestant, row_count: u64, round: u32) -> Result<Run> {
    let mut file = stage.pipe_file_of(Vec::new());
    let entry = json!({ "source": format!("{}.lineitem", stage.database) });
    file["tables"] = json!([entry]);
    let database = format!("load_{round}");
    file["mode"] = json!("snapshot");
    file["destination"]["database"] = json!(database);
    file["destination"]["durability"] = json!(contestant.durability);
    if let Some(transform) = &contestant.transform {
        file["tables"][0]["transforms"] = json!(["it"]);
        file["transforms"] = json!({ "it": transform });
    }
    let started = Instant::now();
    let mut pipe = Pipe::start(Launch::new(&env::current_exe()?, &file))?;
    let pid = pipe.pid().unwrap_or_default();
    let mut loading_since = None;
    let (seconds, start_up) = loop {
        if let Some(code) = pipe.exited()? {
            bail!("the pipe ended with {code}:\n{}", pipe.log().tail());
        }
        let status = pipe.status().await.unwrap_or_default();
        match status["state"].as_str() {
            Some("Snapshot") => drop(loading_since.get_or_insert_with(Instant::now)),
            Some("Completed") => {
                let since = loading_since.unwrap_or(started);
                break (
                    since.elapsed().as_secs_f64(),
                    since.duration_since(started).as_secs_f64(),
                );
            }
            Some("Failed") => bail!("the pipe has failed: {status:#}"),
            _ => {}
        }
        ensure!(
            started.elapsed() < LOAD_TIMEOUT,
            "the load is not done in time: {status:#}"
        );
        tokio::time::sleep(POLL_INTERVAL).await;
    };
    let (processor_seconds, peak_bytes) = usage_of(pid)?;
    ensure!(pipe.stop().await? == 0, "the pipe did not drain");
    let count = stage
        .clickhouse
        .number(&format!("SELECT count() FROM {database}.lineitem_current"))
        .await?;
    ensure!(
        count == row_count,
        "{count} rows of {row_count} have arrived"
    );
    stage
        .clickhouse
        .query(&format!("DROP DATABASE {database} SYNC"))
        .await?;
    Ok(Run {
        seconds,
        start_up,
        processor_seconds,
        peak_bytes: peak_bytes as f64,
    })
}

fn report(runs: &BTreeMap<&str, Vec<Run>>, base: &str, row_count: u64) -> Value {
    let rows = row_count as f64;
    let of = |name: &str, figure: fn(&Run) -> f64| {
        median(&runs[name].iter().map(figure).collect::<Vec<_>>())
    };
    let base_rate = rows / of(base, |run| run.seconds);
    let head = [
        "",
        "rows/s",
        "ratio",
        "seconds",
        "start-up s",
        "CPU s/M rows",
        "peak MiB",
    ];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    let mut figures = Vec::new();
    for name in runs.keys() {
        let seconds = of(name, |run| run.seconds);
        let rate = rows / seconds;
        let processor = of(name, |run| run.processor_seconds) / (rows / 1e6);
        let peak = of(name, |run| run.peak_bytes) / f64::from(1 << 20);
        let start_up = of(name, |run| run.start_up);
        let or_dash = |value: f64, text: String| if value.is_nan() { "-".to_owned() } else { text };
        table.push(vec![
            (*name).to_owned(),
            thousands(rate),
            format!("{:.2}", rate / base_rate),
            format!("{seconds:.2}"),
            format!("{start_up:.2}"),
            or_dash(processor, format!("{processor:.2}")),
            or_dash(peak, format!("{peak:.0}")),
        ]);
        figures.push(json!({
            "name": name,
            "rows_per_second": rate.round(),
            "ratio": rate / base_rate,
            "seconds": runs[name].iter().map(|run| run.seconds).collect::<Vec<_>>(),
            "start_up_seconds": start_up,
            "cpu_seconds_per_million_rows": if processor.is_nan() { Value::Null } else { json!(processor) },
            "peak_mib": if peak.is_nan() { Value::Null } else { json!(peak) },
        }));
    }
    print(&table);
    json!({ "rows": row_count, "base": base, "contestants": figures })
}
