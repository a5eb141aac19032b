//! From a file to a component that this host can run, or to the one sentence that says why not.

use std::path::Path;

use wasmparser::{Parser, Payload};
use wasmtime::component::Component;

use super::limits::{
    FUNCTION_BYTES, FUNCTION_BYTES_BY_LOCALS, LOOKUP_FILE_BYTES, PLUGIN_FILE_BYTES,
};
use super::version::{
    ALLOWED_IMPORTS, LOOKUP_INTERFACE, PLUGIN_INTERFACE, SUPPORTED, gives_nothing,
};
use crate::error::{Error, ErrorKind, Result};

pub(super) const BUILD_HINT: &str =
    "build the plugin with `pipewright plugin build DIR` and name the file that it prints";

/// A granted file.
pub(super) async fn read_lookup(name: &str, lookup: &str, path: &Path) -> Result<Vec<u8>> {
    let unreadable = |error: std::io::Error| {
        refused(
            name,
            format!(
                "file `{}`, granted as `{lookup}`, cannot be read",
                path.display()
            ),
        )
        .with_hint(format!("edit `transforms.{name}.grants.lookup.{lookup}`"))
        .with_source(error)
    };
    let size = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
    if size > LOOKUP_FILE_BYTES {
        let what = format!(
            "file `{}`, granted as `{lookup}`, has {size} bytes, and a lookup file at most {LOOKUP_FILE_BYTES}",
            path.display()
        );
        return Err(refused(name, what));
    }
    tokio::fs::read(path).await.map_err(unreadable)
}

/// The file's bytes, if it is small enough to be a plugin.
pub(super) async fn read(name: &str, path: &Path) -> Result<Vec<u8>> {
    let unreadable = |error: std::io::Error| {
        refused(name, format!("file `{}` cannot be read", path.display()))
            .with_hint(BUILD_HINT)
            .with_source(error)
    };
    let size = tokio::fs::metadata(path).await.map_err(unreadable)?.len();
    if size > PLUGIN_FILE_BYTES {
        return Err(refused(
            name,
            format!(
                "file `{}` has {size} bytes, and a plugin at most {PLUGIN_FILE_BYTES}",
                path.display()
            ),
        ));
    }
    let bytes = tokio::fs::read(path).await.map_err(unreadable)?;
    ensure_component(name, path, &bytes)?;
    Ok(bytes)
}

/// Tells a component from what people name by mistake.
fn ensure_component(name: &str, path: &Path, bytes: &[u8]) -> Result<()> {
    let path = path.display();
    let what = match bytes.get(..8) {
        Some([0, b'a', b's', b'm', 0x0d, 0, 1, 0]) => return Ok(()),
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => {
            format!("file `{path}` is a WebAssembly module, not a component")
        }
        Some([0, b'a', b's', b'm', ..]) => {
            format!("file `{path}` is WebAssembly of a form that this host does not know")
        }
        _ => format!("file `{path}` is no WebAssembly component"),
    };
    Err(refused(name, what).with_hint(BUILD_HINT))
}

/// Refuses what would keep the compiler busy for minutes, or have it take gigabytes: its time grows with the square of a
/// function's blocks, its memory with blocks times locals. Bytes bound the blocks.
pub(super) fn ensure_compiles_soon(bytes: &[u8]) -> std::result::Result<(), String> {
    for payload in Parser::new(0).parse_all(bytes) {
        // What cannot be read is told by the compiler.
        let Ok(Payload::CodeSectionEntry(body)) = payload else {
            continue;
        };
        let range = body.range();
        let size = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let groups = body.get_locals_reader().into_iter().flatten();
        let locals = groups
            .filter_map(|group| Some(group.ok()?.0 as usize))
            .fold(0, usize::saturating_add);
        if size > FUNCTION_BYTES || size.saturating_mul(locals) > FUNCTION_BYTES_BY_LOCALS {
            return Err(format!(
                "one of its functions has {size} bytes and {locals} locals; a function may have {FUNCTION_BYTES} bytes, and \
                 bytes times locals may be {FUNCTION_BYTES_BY_LOCALS}"
            ));
        }
    }
    Ok(())
}

/// Checks the contract's version and the imports before linking would fail with a text for compiler builders.
pub(super) fn ensure_contract(
    name: &str,
    engine: &wasmtime::Engine,
    component: &Component,
    may_look_up: bool,
) -> Result<()> {
    let component_type = component.component_type();
    let versions: Vec<_> = component_type
        .exports(engine)
        .filter_map(|(export, _)| export.strip_prefix(PLUGIN_INTERFACE).map(str::to_owned))
        .collect();
    if versions.is_empty() {
        return Err(refused(
            name,
            format!("the component does not export `{PLUGIN_INTERFACE}{SUPPORTED}`"),
        )
        .with_hint("write it with the crate `pipewright-sdk`, or against the world `transform` of wit/transform.wit"));
    }
    if !versions.iter().any(|version| is_supported(version)) {
        return Err(refused(
            name,
            format!(
                "it was built for contract {}, this host supports {SUPPORTED}",
                versions.join(", ")
            ),
        )
        .with_hint("build it with the SDK of this release, or run the release of pipewright that it was built for"));
    }
    ensure_imports(name, engine, &component_type, may_look_up)
}

fn ensure_imports(
    name: &str,
    engine: &wasmtime::Engine,
    component_type: &wasmtime::component::types::Component,
    may_look_up: bool,
) -> Result<()> {
    let imports = component_type.imports(engine).map(|(import, _)| import);
    let (lookups, forbidden): (Vec<_>, Vec<_>) = imports
        .filter(|import| !is_allowed_import(import))
        .partition(|import| is_of(LOOKUP_INTERFACE, import));
    if !forbidden.is_empty() {
        let forbidden: Vec<_> = forbidden
            .iter()
            .map(|import| format!("`{import}`"))
            .collect();
        let what = format!(
            "it imports {}, which no plugin is given",
            forbidden.join(", ")
        );
        return Err(refused(name, what).with_hint(
            "build it without what needs these; a plugin has the log, granted files, and WASI 0.2 that gives nothing",
        ));
    }
    match lookups.first() {
        Some(import) if !may_look_up => Err(refused(
            name,
            format!("it imports `{import}`, and no file is granted to it"),
        )
        .with_hint(format!(
            "name the files that it may read: `transforms.{name}.grants: {{ lookup: {{ NAME: PATH }} }}`"
        ))),
        _ => Ok(()),
    }
}

fn is_allowed_import(import: &str) -> bool {
    gives_nothing(import) || ALLOWED_IMPORTS.iter().any(|allowed| is_of(allowed, import))
}

fn is_of(interface: &str, import: &str) -> bool {
    import.strip_prefix(interface).is_some_and(is_supported)
}

/// Before 1.0 versions are compatible when their first two numbers are the same.
fn is_supported(version: &str) -> bool {
    version
        .strip_prefix(SUPPORTED)
        .is_some_and(|patch| patch.is_empty() || patch.starts_with('.'))
}

pub(super) fn refused(name: &str, what: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::PluginRefused,
        format!("plugin `{name}` cannot be used: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component with one module, whose only function has so many locals and bytes of code.
    fn component_of(locals: usize, code_bytes: usize) -> Vec<u8> {
        fn number(mut value: usize, out: &mut Vec<u8>) {
            while value > 0x7f {
                out.push(value.to_le_bytes()[0] | 0x80);
                value >>= 7;
            }
            out.push(value.to_le_bytes()[0]);
        }
        let section = |id: u8, content: &[u8], out: &mut Vec<u8>| {
            out.push(id);
            number(content.len(), out);
            out.extend_from_slice(content);
        };
        const I32: u8 = 0x7f;
        const NOP: u8 = 0x01;
        const END: u8 = 0x0b;
        let mut body = vec![1];
        number(locals, &mut body);
        body.push(I32);
        body.resize(code_bytes - 1, NOP);
        body.push(END);
        let mut bodies = vec![1];
        number(body.len(), &mut bodies);
        bodies.extend_from_slice(&body);
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        section(1, &[1, 0x60, 0, 0], &mut module);
        section(3, &[1, 0], &mut module);
        section(10, &bodies, &mut module);
        let mut component = b"\0asm\x0d\0\x01\0".to_vec();
        section(1, &module, &mut component);
        component
    }

    #[test]
    fn a_function_that_would_keep_the_compiler_busy_for_long_is_refused() {
        let refusal = |locals, bytes| ensure_compiles_soon(&component_of(locals, bytes)).err();
        assert_eq!(refusal(100, 300_000), None);
        let large = refusal(1, FUNCTION_BYTES + 1).expect("too large");
        assert!(large.contains("655361 bytes"), "{large}");
        let wide = refusal(50_000, 1_000).expect("too many locals");
        assert!(wide.contains("50000 locals"), "{wide}");
    }

    #[test]
    fn versions_of_another_minor_number_are_not_supported() {
        assert!(is_supported("0.1.0"));
        assert!(is_supported("0.1.7"));
        assert!(!is_supported("0.10.0"));
        assert!(!is_supported("0.2.0"));
        assert!(!is_supported("1.0.0"));
    }

    #[test]
    fn what_is_not_a_component_is_told_apart() {
        let text = |bytes: &[u8]| {
            let error = ensure_component("p", Path::new("p.wasm"), bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PluginRefused);
            error.to_string()
        };
        assert!(text(b"").contains("is no WebAssembly component"));
        assert!(text(b"SELECT 1;").contains("is no WebAssembly component"));
        assert!(text(b"\0asm\x01\0\0\0").contains("a WebAssembly module, not a component"));
        assert!(text(b"\0asm\x01\0\x07\0").contains("a form that this host does not know"));
    }
}
