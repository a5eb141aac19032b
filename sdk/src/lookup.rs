//! Files that the pipe file grants by name, read-only. A plugin that calls this asks for the grant; without it the pipe
//! is refused at setup. Natively files are registered by a test.
//!
//! ```
//! pipewright_sdk::lookup::provide("countries", b"DE,Germany\n".to_vec());
//! assert_eq!(pipewright_sdk::lookup::read("countries"), Ok(b"DE,Germany\n".to_vec()));
//! assert!(pipewright_sdk::lookup::read("cities").is_err());
//! ```

/// The whole of the file that is granted under that name. Read it once, in [`crate::Transform::new`].
///
/// ```
/// # pipewright_sdk::lookup::provide("rates", b"EUR,1\n".to_vec());
/// use pipewright_sdk::{Problem, lookup};
/// let rates = lookup::read("rates").map_err(|message| vec![Problem::at("/file", message)]);
/// assert_eq!(rates, Ok(b"EUR,1\n".to_vec()));
/// assert!(lookup::read("prices").unwrap_err().contains("`prices`"));
/// ```
///
/// # Errors
/// Why there is none, for [`crate::Problem`].
pub fn read(name: &str) -> Result<Vec<u8>, String> {
    granted(name)
}

#[cfg(target_arch = "wasm32")]
fn granted(name: &str) -> Result<Vec<u8>, String> {
    crate::guest::bindings::pipewright::transform::lookup::read(name)
}

#[cfg(not(target_arch = "wasm32"))]
thread_local! {
    static FILES: std::cell::RefCell<std::collections::BTreeMap<String, Vec<u8>>> =
        const { std::cell::RefCell::new(std::collections::BTreeMap::new()) };
}

#[cfg(not(target_arch = "wasm32"))]
fn granted(name: &str) -> Result<Vec<u8>, String> {
    let found = FILES.with_borrow(|files| files.get(name).cloned());
    found.ok_or_else(|| format!("no file is granted as `{name}`"))
}

/// Grants a file to the native plugins of this thread, for tests.
///
/// ```
/// use pipewright_sdk::lookup;
/// lookup::provide("words", b"old".to_vec());
/// lookup::provide("words", b"new".to_vec());
/// assert_eq!(lookup::read("words"), Ok(b"new".to_vec()));
/// ```
#[cfg(not(target_arch = "wasm32"))]
pub fn provide(name: &str, bytes: Vec<u8>) {
    FILES.with_borrow_mut(|files| files.insert(name.to_owned(), bytes));
}
