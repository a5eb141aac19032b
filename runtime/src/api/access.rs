//! Who may ask for what: bearer tokens with a role, and whether the request was meant for us at all.
//!
//! Of the tokens only SHA-256 digests are kept, and one that is presented is compared with all of them in a time that
//! does not depend on how far they agree. The file is read again whenever it changes; while it cannot be read no token
//! is valid, so that taking one out always takes effect.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::Problem;
use crate::config::{Stamp, stamp};
use crate::error::{Error, ErrorKind, Result};

/// Shorter ones can be guessed over a network.
const TOKEN_CHARACTERS_MIN: usize = 16;

/// Paths that answer without a token: whoever restarts processes asks there, and learns nothing else.
const OPEN: [&str; 2] = ["/livez", "/readyz"];

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looking: every GET.
    Read,
    /// Everything.
    Admin,
}

/// The tokens of a file with a line `read TOKEN` or `admin TOKEN` each; in the place of a token may stand
/// `sha256:` and the digest in hexadecimal. Empty lines and lines that begin with `#` are passed over.
#[derive(Debug)]
pub struct Tokens {
    file: PathBuf,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    stamp: Stamp,
    entries: Vec<(Role, TokenDigest)>,
}

type TokenDigest = [u8; 32];

fn digested(token: &str) -> TokenDigest {
    Sha256::digest(token.as_bytes()).into()
}

impl Tokens {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// `Config`, naming the line, without the token.
    pub fn open(file: &Path) -> Result<Self> {
        let stamp = stamp(file);
        let entries = read(file)?;
        Ok(Self {
            file: file.to_owned(),
            loaded: Mutex::new(Loaded { stamp, entries }),
        })
    }

    /// What the token with this digest allows; none for a wrong one.
    fn role_of(&self, digest: &TokenDigest) -> Option<Role> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.file);
        if stamp.is_none() || stamp != loaded.stamp {
            loaded.entries = read(&self.file).unwrap_or_else(|error| {
                tracing::error!("no access token is valid: {}", error.chain());
                Vec::new()
            });
            loaded.stamp = stamp;
        }
        let mut role = None;
        for (known, entry) in &loaded.entries {
            if bool::from(entry.ct_eq(digest)) {
                role = role.max(Some(*known));
            }
        }
        role
    }
}

fn read(file: &Path) -> Result<Vec<(Role, TokenDigest)>> {
    let wrong = |what: String| {
        Error::new(ErrorKind::Config, format!("token file `{}`{what}", file.display())).with_hint(
            "write a line `read TOKEN` or `admin TOKEN` each; `openssl rand -hex 32` makes a token; `sha256:` and its \
             digest may stand for it",
        )
    };
    let text = std::fs::read_to_string(file)
        .map_err(|error| wrong(" cannot be read".to_owned()).with_source(error))?;
    let mut entries = Vec::new();
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = |what: &str| wrong(format!(", line {}: {what}", index + 1));
        let (role, token) = line
            .split_once(char::is_whitespace)
            .ok_or_else(|| at("no role before the token"))?;
        let role = match role {
            "read" => Role::Read,
            "admin" => Role::Admin,
            _ => return Err(at("the role is neither `read` nor `admin`")),
        };
        let token = token.trim_start();
        let digest = match token.strip_prefix("sha256:") {
            Some(hex) => {
                digest_of(hex).ok_or_else(|| at("`sha256:` without 64 hexadecimal digits"))?
            }
            None if token.len() < TOKEN_CHARACTERS_MIN || token.contains(char::is_whitespace) => {
                return Err(at(
                    "a token of fewer than 16 characters, or with a space in it",
                ));
            }
            None => digested(token),
        };
        entries.push((role, digest));
    }
    if entries.is_empty() {
        return Err(wrong(" holds no token".to_owned()));
    }
    Ok(entries)
}

fn digest_of(hex: &str) -> Option<TokenDigest> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(digest)
}

/// What stands before every route.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) tokens: Option<Tokens>,
    /// Whether only this machine can reach us.
    pub(super) loopback: bool,
}

/// By what a request was let through. An answer that goes on asks whether it still would be.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    gate: Arc<Gate>,
    /// None where no token was needed.
    presented: Option<TokenDigest>,
}

impl Pass {
    /// Whether the token has been taken out of the file since.
    pub(super) fn is_revoked(&self) -> bool {
        match (&self.gate.tokens, &self.presented) {
            (Some(tokens), Some(presented)) => tokens.role_of(presented).is_none(),
            _ => false,
        }
    }
}

/// Lets a request through that is meant for us, and whose token allows it.
pub(super) async fn guard(
    State(gate): State<Arc<Gate>>,
    mut request: Request,
    next: Next,
) -> Response {
    let allowed = gate
        .ensure_addressed_to_us(&request)
        .and_then(|()| gate.ensure_allowed(&request));
    match allowed {
        Ok(presented) => {
            request.extensions_mut().insert(Pass { gate, presented });
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

impl Gate {
    /// Refuses requests that a page of another origin made a browser send. On loopback, where the page may have pointed
    /// its own name at 127.0.0.1 (DNS rebinding), the name must be loopback's own as well.
    fn ensure_addressed_to_us(&self, request: &Request) -> Result<(), Problem> {
        let headers = request.headers();
        let host = match request.uri().authority() {
            Some(authority) => Some(authority.as_str()),
            None => text(headers, header::HOST),
        };
        if self.loopback && !host.map(without_port).is_some_and(is_loopback) {
            return Err(Problem::new(
                StatusCode::MISDIRECTED_REQUEST,
                "host",
                "the request is addressed to another host",
            )
            .with_hint("address it to localhost, 127.0.0.1 or [::1]"));
        }
        if !headers.contains_key(header::ORIGIN) {
            return Ok(());
        }
        let origin = text(headers, header::ORIGIN).and_then(|origin| origin.split_once("://"));
        if origin.is_some_and(|(_, from)| Some(from) == host) {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "origin",
            "the request comes from a page of another origin",
        ))
    }

    /// The token that allows it; none where none is needed.
    fn ensure_allowed(&self, request: &Request) -> Result<Option<TokenDigest>, Problem> {
        let Some(tokens) = &self.tokens else {
            return Ok(None);
        };
        if OPEN.contains(&request.uri().path()) {
            return Ok(None);
        }
        let needed = match *request.method() {
            Method::GET | Method::HEAD if !shows_rows(request.uri().path()) => Role::Read,
            _ => Role::Admin,
        };
        let presented = text(request.headers(), header::AUTHORIZATION)
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| digested(token.trim()))
            .and_then(|digest| Some((digest, tokens.role_of(&digest)?)));
        match presented {
            None => Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "a valid access token is missing",
            )
            .with_hint("send `Authorization: Bearer TOKEN`; the command line takes it from PIPEWRIGHT_TOKEN")),
            Some((_, role)) if role < needed => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "the token's role is `read`, and this changes something or shows rows",
            )
            .with_hint("use a token with the role `admin`")),
            Some((digest, _)) => Ok(Some(digest)),
        }
    }
}

/// Whether the answer holds rows of a table, which nothing else here does.
fn shows_rows(path: &str) -> bool {
    path.ends_with("/dead-letters")
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADMIN: &str = "0123456789abcdef-admin";
    const READ: &str = "0123456789abcdef-read";

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokens");
        std::fs::write(&file, text).expect("a file");
        (folder, file)
    }

    #[test]
    fn only_loopback_names_are_ours() {
        for host in [
            "localhost",
            "LocalHost:8686",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:8686",
            "[::1]",
        ] {
            assert!(is_loopback(without_port(host)), "{host}");
        }
        for host in [
            "example.com",
            "localhost.example.com:80",
            "10.0.0.1",
            "",
            "127.0.0.1.example.com",
        ] {
            assert!(!is_loopback(without_port(host)), "{host}");
        }
    }

    #[test]
    fn a_token_has_the_role_of_its_line() {
        let hashed: String = Sha256::digest(READ)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let (_folder, file) = written(&format!(
            "# people\n\nadmin {ADMIN}\nread   sha256:{hashed}\n"
        ));
        let tokens = Tokens::open(&file).expect("a good file");
        assert_eq!(tokens.role_of(&digested(ADMIN)), Some(Role::Admin));
        assert_eq!(tokens.role_of(&digested(READ)), Some(Role::Read));
        assert_eq!(tokens.role_of(&digested("0123456789abcdef-other")), None);
        assert_eq!(
            tokens.role_of(&digested(&hashed)),
            None,
            "the digest is no token"
        );
        assert!(!format!("{tokens:?}").contains(ADMIN));
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_lets_nobody_in() {
        let (_folder, file) = written(&format!("admin {ADMIN}\n"));
        let tokens = Tokens::open(&file).expect("a good file");
        std::fs::write(&file, format!("admin {ADMIN}\nread {READ}\n")).expect("written");
        assert_eq!(tokens.role_of(&digested(READ)), Some(Role::Read));
        std::fs::write(&file, format!("adm1n {ADMIN}-or-so\n")).expect("written");
        assert_eq!(tokens.role_of(&digested(ADMIN)), None);
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(tokens.role_of(&digested(ADMIN)), None);
    }

    #[test]
    fn a_bad_line_is_named_without_its_token() {
        for (text, told) in [
            ("", "no token"),
            ("admin short", "line 1"),
            ("# x\nroot 0123456789abcdef-root", "line 2"),
            ("admin sha256:zz", "64 hexadecimal"),
            ("0123456789abcdef-alone", "no role"),
        ] {
            let (_folder, file) = written(text);
            let error = Tokens::open(&file).expect_err(text);
            assert!(error.message().contains(told), "{error:?}");
            assert!(!error.chain().contains("0123456789"), "{error:?}");
        }
    }
}
