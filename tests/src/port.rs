//! Free TCP ports for servers.
//!
//! Ports are taken below the range from which the kernel serves outgoing connections (32768 and up on Linux): a server
//! that comes back after a stop must find its port again, and an outgoing connection of a test must not have it.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

const START_TRIES: u32 = 5;

/// A port that nobody listens on now. Another process may still take it first, so callers start again on a clash.
pub(crate) fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Concurrent test processes begin at different places, or they would meet at every port.
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .subsec_nanos();
    let offset = process::id().wrapping_mul(7919).wrapping_add(clock / 1000);
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + u16::try_from(offset.wrapping_add(step) % u32::from(COUNT))?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

/// Has `start` begin a server on these ports, or else on free ones, which others may take between choosing and binding:
/// then on other ones. `was_taken` tells whether that is why it did not start.
pub(crate) fn start_on<S, const COUNT: usize>(
    server: &mut S,
    fixed: Option<[u16; COUNT]>,
    start: impl Fn(&mut S, [u16; COUNT]) -> Result<()>,
    was_taken: impl Fn(&S) -> bool,
) -> Result<()> {
    if let Some(ports) = fixed {
        return start(server, ports);
    }
    let mut attempt = 1;
    loop {
        let mut ports = [0; COUNT];
        for port in &mut ports {
            *port = free_port()?;
        }
        match start(server, ports) {
            Err(_) if attempt < START_TRIES && was_taken(server) => attempt += 1,
            done => return done,
        }
    }
}

/// A connection to a local server with time limits, for the polling of readiness.
pub(crate) fn connect(port: u16) -> std::io::Result<TcpStream> {
    let limit = Duration::from_secs(5);
    let stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}
