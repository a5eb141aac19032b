//! A Galera cluster of two MariaDB nodes.
//!
//! A node that joins needs what it lacks. Here it begins with the other's data folder, so increments suffice, and the
//! program that both call for a whole copy only tells where these end: no rsync and no backup tool are needed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{MariaDbExtras, SourceKind, SourceOptions, SourceServer, command, port};

/// A node has nothing to do but to shake hands.
const JOIN_TIMEOUT: Duration = Duration::from_secs(120);

/// A node's log says so once it takes part.
const SYNCED: &str = "Synchronized with group, ready for connections";

/// What the server calls with `--role donor --gtid PLACE` at the node that gives, and `--role joiner` at the one that
/// gets and waits for that place.
const TRANSFER: &str = r#"#!/bin/sh
role= gtid= bypass=
while [ $# -gt 0 ]; do
    case $1 in
        --role) role=$2; shift ;;
        --gtid) gtid=$2; shift ;;
        --bypass) bypass=1 ;;
        --mysqld-args) break ;;
    esac
    shift
done
if [ "$role" = donor ]; then
    [ -n "$bypass" ] || exit 22
    echo "$gtid" > "$place.new" && mv "$place.new" "$place"
    echo "done $gtid"
else
    rm -f "$place"
    echo "ready 127.0.0.1:1/increments"
    until [ -s "$place" ]; do sleep 0.1; done
    cat "$place"
fi
"#;

/// Two nodes, each with what the other writes in its own binlog, under the same GTIDs.
#[derive(Debug)]
pub struct Galera {
    /// The one that began the cluster.
    pub first: SourceServer,
    /// The one that joined it.
    pub second: SourceServer,
    /// What both need for as long as they run.
    pub folder: TempDir,
}

impl Galera {
    /// Starts both.
    ///
    /// # Errors
    /// When a node does not start or does not join.
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let extras = MariaDbExtras::find()?;
        let programs = folder.path().join("programs");
        fs::create_dir(&programs)?;
        let transfer = programs.join("wsrep_sst_increments");
        let place = folder.path().join("place");
        let text = TRANSFER.replacen('\n', &format!("\nplace={}\n", place.display()), 1);
        fs::write(&transfer, text)?;
        fs::set_permissions(&transfer, fs::Permissions::from_mode(0o755))?;

        let [one, other] = [port::free_port()?, port::free_port()?];
        let node = |name: &str, group: u16| -> Result<SourceOptions> {
            let increments = port::free_port()?;
            let mut options = SourceOptions::new(SourceKind::MariaDb);
            options.data_dir = Some(folder.path().join(name));
            options.programs = Some(programs.clone());
            options.extra_args = vec![
                // The same on all nodes, or each gives a transaction a GTID of its own.
                "--server-id=9".to_owned(),
                "--log-slave-updates=ON".to_owned(),
                "--wsrep-gtid-mode=ON".to_owned(),
                "--wsrep-gtid-domain-id=7".to_owned(),
                "--wsrep-on=ON".to_owned(),
                "--innodb-autoinc-lock-mode=2".to_owned(),
                format!("--wsrep-provider={}", extras.galera.display()),
                "--wsrep-cluster-name=pipewright".to_owned(),
                "--wsrep-node-address=127.0.0.1".to_owned(),
                format!("--wsrep-node-name={name}"),
                "--wsrep-sst-method=increments".to_owned(),
                format!(
                    "--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:{group};ist.recv_addr=127.0.0.1:{increments};gcache.size=8M"
                ),
            ];
            Ok(options)
        };
        let first = SourceServer::start(node("first", one)?.arg(address(None)))?;
        wait_joined(&first, 1)?;
        first.stop()?;
        copy(first.data_dir(), &folder.path().join("second"))?;
        first.start_again()?;
        wait_joined(&first, 2)?;
        let second = SourceServer::start(node("second", other)?.arg(address(Some(one))))?;
        wait_joined(&second, 1)?;
        Ok(Self {
            first,
            second,
            folder,
        })
    }
}

/// With no other node to call, a node begins a cluster.
fn address(of: Option<u16>) -> String {
    let of = of.map(|port| format!("127.0.0.1:{port}"));
    format!("--wsrep-cluster-address=gcomm://{}", of.unwrap_or_default())
}

/// How often the node has joined since its log begins.
fn joined(node: &SourceServer) -> usize {
    node.log().matches(SYNCED).count()
}

fn wait_joined(node: &SourceServer, times: usize) -> Result<()> {
    let deadline = Instant::now() + JOIN_TIMEOUT;
    while joined(node) < times {
        ensure!(
            Instant::now() < deadline,
            "a node does not join; the end of its log:\n{}",
            command::tail(&node.log())
        );
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    copy.args(["-a", "--reflink=auto"]).arg(from).arg(to);
    command::run(&mut copy)
        .with_context(|| format!("cannot copy {}", from.display()))
        .map(drop)
}
