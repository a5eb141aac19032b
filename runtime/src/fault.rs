//! Places at which tests end the process, to see that the next start goes on from there.
//!
//! Without the feature `faults`, which the testbed alone asks for, nothing of this is compiled in. With it, the variable
//! `PIPEWRIGHT_KILL_AT` names one point, and the process that comes to it is gone in that instant: no destructor runs
//! and nothing is flushed, as with `kill -9`. With `#2` behind the name it is gone when it comes there for the second time.

/// The variable that names the point.
#[cfg(feature = "faults")]
pub const VARIABLE: &str = "PIPEWRIGHT_KILL_AT";

/// Every point, in the order in which work comes to them. The tests kill at each.
#[cfg(feature = "faults")]
pub const POINTS: [&str; 27] = [
    // A change of tables has been asked for: the state is Modifying; what it needs is known; the pipe has stopped.
    "modify:1",
    "modify:2",
    "change:1",
    "change:2", // A resync's checks are made.
    "resync:1",
    // A load: its table exists; it is cut; a partition is done; its end place is taken; all have passed it; the state is
    // the next one.
    "load:1",
    "load:2",
    "load:3",
    "load:4",
    "load:5",
    "load:6",
    // An exchange: the stream stands; the identities are known, recorded; the tables are exchanged; the view is renewed;
    // the old table is gone; the table's record says so; the state is the next one.
    "swap:1",
    "swap:2",
    "swap:3",
    "swap:4",
    "swap:5",
    "swap:6",
    "swap:7",
    "swap:8",
    // An alteration in place: it is marked; the target has the new form; the view too, and nothing is compared.
    "alter:1",
    "alter:2",
    "alter:3",    // A TRUNCATE: every row has its tombstone, and no checkpoint is past it.
    "truncate:1", // A term: its claim is at the destination, and not yet in the state.
    "term:1",     // A flush: its rows are at the destination, and it has no checkpoint.
    "flush:1",
    // A changed pipe file: all of it but new tables is recorded; these are in the pipe, and the file is not remembered.
    "file:1",
    "file:2",
];

/// Ends the process when it was asked to end here.
#[cfg(feature = "faults")]
pub(crate) fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static CAME: AtomicU32 = AtomicU32::new(0);
    debug_assert!(POINTS.contains(&name), "{name} is not listed");
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var(VARIABLE).ok()?;
        Some(match text.split_once('#') {
            Some((name, time)) => (name.to_owned(), time.parse().ok()?),
            None => (text, 1),
        })
    });
    if let Some((wanted, time)) = wanted
        && wanted == name
        && CAME.fetch_add(1, Ordering::SeqCst) + 1 == *time
    {
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) fn point(_name: &str) {}
