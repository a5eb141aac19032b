//! Lines for the operator's log; natively they go to standard error.
//!
//! ```
//! pipewright_sdk::log::info("a table with 3 text columns");
//! ```

/// For the plugin's author.
///
/// ```
/// pipewright_sdk::log::debug("configured with 3 columns");
/// ```
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// For the curious.
///
/// ```
/// pipewright_sdk::log::info("bound to a table with 3 text columns");
/// ```
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Something should be looked at.
///
/// ```
/// pipewright_sdk::log::warn("the table has no text column");
/// ```
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Something went wrong. The last such line before a trap is kept as its reason, with the rows that are dead letters.
///
/// ```
/// pipewright_sdk::log::error("the lookup file is empty");
/// ```
pub fn error(message: &str) {
    write(Level::Error, message);
}

enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

#[cfg(target_arch = "wasm32")]
fn write(level: Level, message: &str) {
    use crate::guest::bindings::pipewright::transform::log;
    let level = match level {
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    };
    log::write(level, message);
}

#[cfg(not(target_arch = "wasm32"))]
fn write(level: Level, message: &str) {
    let level = match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    eprintln!("{level}: {message}");
}
