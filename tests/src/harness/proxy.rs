//! A TCP proxy before a server: it can lose ClickHouse's answers, deliver an insert late, keep a table's inserts waiting,
//! let any server's connections die unseen or be slow, and let nobody in.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const BUFFER_BYTES: usize = 64 << 10;

/// A running proxy; dropping it ends all of its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    server: u16,
    losses: Arc<Losses>,
    _task: JoinSet<()>,
}

/// How many answers of inserts are still to be lost, and how many were; who is to lose everything; whether whoever
/// comes is left waiting, or does not get in; whether the next insert is held, and the one that is; whose inserts wait, and whether one does.
#[derive(Debug, Default)]
struct Losses {
    wanted: AtomicU32,
    done: AtomicU32,
    stalls: watch::Sender<()>,
    /// Bytes a second of what a server says on each connection; 0 for all that come.
    pace: AtomicU64,
    hangs: AtomicBool,
    shut: AtomicBool,
    holds: AtomicBool,
    held: Mutex<Option<Vec<u8>>>,
    gate: watch::Sender<Option<Gate>>,
    gated: AtomicBool,
}

/// Inserts into this table wait, but for so many that still pass.
#[derive(Debug)]
struct Gate {
    table: String,
    passing: u32,
}

impl Proxy {
    /// Listens on a free port for whoever should reach `port` of this machine.
    pub async fn before(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let own = listener.local_addr()?.port();
        let losses = Arc::new(Losses::default());
        let mut task = JoinSet::new();
        task.spawn(accept(listener, port, Arc::clone(&losses)));
        Ok(Self {
            port: own,
            server: port,
            losses,
            _task: task,
        })
    }

    /// The port on which it answers.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing crosses the connections that are open, and neither end is told: as behind a router that has
    /// forgotten them. New ones are carried.
    pub fn stall(&self) {
        self.losses.stalls.send_replace(());
    }

    /// From now on each connection carries so many bytes a second of what the server says.
    pub fn slow_down(&self, bytes_per_second: u64) {
        self.losses.pace.store(bytes_per_second, Ordering::SeqCst);
    }

    /// From now on nothing crosses any connection, and new ones are taken all the same.
    pub fn hang(&self) {
        self.losses.hangs.store(true, Ordering::SeqCst);
        self.stall();
    }

    /// Whether new connections end at once; those that are open go on.
    pub fn set_shut(&self, shut: bool) {
        self.losses.shut.store(shut, Ordering::SeqCst);
    }

    /// Where the proxy answers.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next `count` inserts are carried out, and their connections end in place of an answer.
    pub fn lose_answers(&self, count: u32) {
        self.losses.wanted.fetch_add(count, Ordering::SeqCst);
    }

    /// The next insert into an append table stays here whole, and its sender waits.
    pub fn hold(&self) {
        self.losses.holds.store(true, Ordering::SeqCst);
    }

    /// Waits until one stays here.
    pub async fn wait_held(&self, deadline: Duration) -> Result<()> {
        wait_until(deadline, || self.losses.held().is_some()).await
    }

    /// Delivers it, whether or not its sender still is there; the server's answer.
    pub async fn release(&self) -> Result<String> {
        let held = self.losses.held().take().context("nothing is held")?;
        let mut server = TcpStream::connect(("127.0.0.1", self.server)).await?;
        server.write_all(&held).await?;
        server.shutdown().await?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Inserts into `table` wait once `passing` more have been carried, until [`Self::open_gate`]; those into other tables
    /// that waited before are carried.
    pub fn close_gate(&self, table: &str, passing: u32) {
        let table = table.to_owned();
        self.losses.gated.store(false, Ordering::SeqCst);
        self.losses.gate.send_replace(Some(Gate { table, passing }));
    }

    /// Waits until an insert waits at the gate.
    pub async fn wait_gated(&self, deadline: Duration) -> Result<()> {
        wait_until(deadline, || self.losses.gated.load(Ordering::SeqCst)).await
    }

    /// What waits is carried, and so is all that comes.
    pub fn open_gate(&self) {
        self.losses.gate.send_replace(None);
    }

    /// How many answers were lost.
    pub fn lost(&self) -> u32 {
        self.losses.done.load(Ordering::SeqCst)
    }
}

impl Losses {
    /// Waits where inserts like this one have to.
    async fn pass(&self, line: &str) {
        let mut waits = false;
        self.gate.send_if_modified(|gate| {
            let gate = gate.as_mut().filter(|gate| line.contains(&gate.table));
            if let Some(gate) = gate {
                waits = gate.passing == 0;
                gate.passing = gate.passing.saturating_sub(1);
            }
            false
        });
        if waits {
            self.gated.store(true, Ordering::SeqCst);
            let is_open = |gate: &Option<Gate>| {
                let mut gate = gate.iter();
                !gate.any(|gate| line.contains(&gate.table))
            };
            // The sender is in `self`, and cannot be gone.
            self.gate.subscribe().wait_for(is_open).await.ok();
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait_until(deadline: Duration, is_so: impl Fn() -> bool) -> Result<()> {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(deadline, waiting).await;
    waited.context("no insert came to be held up")
}

async fn accept(listener: TcpListener, port: u16, losses: Arc<Losses>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if losses.shut.load(Ordering::SeqCst) {
            continue;
        }
        let losses = Arc::clone(&losses);
        connections.spawn(async move {
            if losses.hangs.load(Ordering::SeqCst) {
                // With it the socket would close.
                let _client = client;
                return std::future::pending().await;
            }
            // Either end may go away at any moment; then so does the other.
            carry(client, port, losses).await.ok();
        });
    }
}

/// Reaches the server of that port for `client`; both, each as what it says and what it hears.
pub(super) async fn both_ends(
    client: TcpStream,
    port: u16,
) -> Result<[(OwnedReadHalf, OwnedWriteHalf); 2]> {
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    Ok([client.into_split(), server.into_split()])
}

async fn carry(client: TcpStream, port: u16, losses: Arc<Losses>) -> Result<()> {
    let [(from_client, to_client), (from_server, to_server)] = both_ends(client, port).await?;
    let inserting = Arc::new(AtomicU32::new(0));
    let mut stalls = losses.stalls.subscribe();
    let carried = async {
        tokio::select! {
            result = requests(from_client, to_server, Arc::clone(&inserting), &losses) => result,
            result = answers(from_server, to_client, Arc::clone(&inserting), &losses) => result,
        }
    };
    // Kept when it is given up, since with it the sockets would close.
    tokio::pin!(carried);
    tokio::select! {
        result = &mut carried => result,
        _ = stalls.changed() => std::future::pending().await,
    }
}

/// Carries requests, and takes note of those that insert: the statement is in the request's first line.
async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    inserting: Arc<AtomicU32>,
    losses: &Losses,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let head = &buffer[..read.min(4096)];
        if head.starts_with(b"POST ") {
            let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line).into_owned();
            let insert = line.contains("query=INSERT");
            inserting.store(u32::from(insert), Ordering::SeqCst);
            if insert {
                losses.pass(&line).await;
            }
            let appends = line.contains("insert_deduplication_token=");
            if appends && losses.holds.swap(false, Ordering::SeqCst) {
                let request = whole(&mut from, buffer[..read].to_vec()).await?;
                *losses.held() = Some(request);
                return std::future::pending().await;
            }
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// The rest of a request that comes in chunks.
async fn whole(from: &mut OwnedReadHalf, mut request: Vec<u8>) -> Result<Vec<u8>> {
    while !request.ends_with(b"\r\n0\r\n\r\n") {
        let read = from.read_buf(&mut request).await?;
        ensure!(read > 0, "a request broke off");
    }
    Ok(request)
}

/// Carries answers, but for those that are to be lost.
async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    inserting: Arc<AtomicU32>,
    losses: &Losses,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let is_insert = inserting.load(Ordering::SeqCst) == 1;
        let lost = is_insert
            && losses
                .wanted
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                })
                .is_ok();
        if lost {
            losses.done.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        }
        let pace = losses.pace.load(Ordering::SeqCst);
        if pace > 0 {
            tokio::time::sleep(Duration::from_secs_f64(read as f64 / pace as f64)).await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}
