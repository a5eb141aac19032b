//! Authentication: what the server asks for, as far as it can be answered without giving the password away.
//!
//! caching_sha2_password goes by its cache where the server knows the account already; else the password crosses inside
//! TLS, or encrypted with the server's RSA key on a plain connection (pitfall 135). A request to send the password in
//! clear text is refused: any server in between could make it.

use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest};

use super::super::connection::denied;
use super::channel::Channel;
use super::error::{ServerError, corrupt};
use crate::config::SourceConfig;
use crate::error::{Error, ErrorKind, Result};

const OK: u8 = 0x00;
const MORE_DATA: u8 = 0x01;
const SWITCH: u8 = 0xfe;
const ERR: u8 = 0xff;

/// Of caching_sha2_password: the server knew the account from its cache.
const FAST_SUCCESS: u8 = 0x03;
/// Of caching_sha2_password: the server needs the password itself.
const FULL_WANTED: u8 = 0x04;
/// Of caching_sha2_password: ask for the RSA key.
const WANT_PUBLIC_KEY: &[u8] = &[0x02];

/// Of MariaDB's ed25519: what it has signed.
const ED25519_NONCE_BYTES: usize = 32;

/// What the server and we are agreeing on.
pub(super) struct Challenge {
    pub(super) plugin: AuthPlugin<'static>,
    pub(super) nonce: Vec<u8>,
}

impl Challenge {
    /// The answer that proves the password without holding it; empty for an empty password.
    pub(super) fn answer(&self, password: &str) -> Result<Vec<u8>> {
        match self.plugin {
            AuthPlugin::MysqlNativePassword
            | AuthPlugin::CachingSha2Password
            | AuthPlugin::Ed25519 => Ok(self
                .plugin
                .gen_data(Some(password), &self.nonce)
                .map(|data| data.to_vec())
                .unwrap_or_default()),
            _ => Err(self.unanswered()),
        }
    }

    fn unanswered(&self) -> Error {
        let method = String::from_utf8_lossy(self.plugin.as_bytes());
        let message = format!("the source asks for authentication by `{method}`");
        let hint = "give the account another method: ALTER USER ... IDENTIFIED WITH caching_sha2_password BY '...' on MySQL, \
                    ALTER USER ... IDENTIFIED VIA mysql_native_password USING PASSWORD('...') on MariaDB";
        // MySQL asks an account that it does not have by any of its methods, so that nobody learns which there are.
        match method.as_ref() {
            "sha256_password" => Error::new(
                ErrorKind::SourceDenied,
                format!("{message}, or does not know the account"),
            )
            .with_hint(format!("see that the account exists; if so, {hint}")),
            _ => Error::new(ErrorKind::Unsupported, message).with_hint(hint),
        }
    }

    /// Whether [`Challenge::answer`] has one; where it has not, the server is asked to switch.
    pub(super) fn is_known(&self) -> bool {
        matches!(
            self.plugin,
            AuthPlugin::MysqlNativePassword | AuthPlugin::CachingSha2Password | AuthPlugin::Ed25519
        )
    }
}

/// Goes on after the handshake response until the server lets us in.
pub(super) async fn finish(
    channel: &mut Channel,
    config: &SourceConfig,
    mut challenge: Challenge,
) -> Result<()> {
    let mut switched = false;
    loop {
        let packet = channel.receive().await?;
        match *packet {
            [OK, ..] => return Ok(()),
            [ERR, ..] => return Err(refused(config, ServerError::parse(packet))),
            [SWITCH, _, ..] if !switched => {
                switched = true;
                let request: AuthSwitchRequest<'_> =
                    ParseBuf(packet).parse(()).map_err(|error| {
                        corrupt("unreadable request to switch authentication").with_source(error)
                    })?;
                challenge = Challenge {
                    plugin: request.auth_plugin().into_owned(),
                    nonce: request.plugin_data().to_vec(),
                };
                if matches!(challenge.plugin, AuthPlugin::Ed25519) {
                    // The library takes a last byte of 0 for a terminator, which this method has not.
                    challenge.nonce.resize(ED25519_NONCE_BYTES, 0);
                }
                let answer = challenge.answer(config.password.expose())?;
                channel.send(&answer).await?;
            }
            [MORE_DATA, FAST_SUCCESS] if is_sha2(&challenge) => {}
            [MORE_DATA, FULL_WANTED] if is_sha2(&challenge) => {
                send_password(channel, config, &challenge.nonce).await?;
            }
            _ => return Err(corrupt("unexpected packet during authentication")),
        }
    }
}

fn is_sha2(challenge: &Challenge) -> bool {
    matches!(challenge.plugin, AuthPlugin::CachingSha2Password)
}

async fn send_password(channel: &mut Channel, config: &SourceConfig, nonce: &[u8]) -> Result<()> {
    let mut password = config.password.expose().as_bytes().to_vec();
    password.push(0);
    if channel.is_encrypted() {
        return channel.send(&password).await;
    }
    channel.send(WANT_PUBLIC_KEY).await?;
    let packet = channel.receive().await?;
    let key = match packet {
        [MORE_DATA, key @ ..] => key.to_vec(),
        [ERR, ..] => return Err(refused(config, ServerError::parse(packet))),
        _ => return Err(corrupt("unexpected packet in place of a public key")),
    };
    for (byte, mask) in password.iter_mut().zip(nonce.iter().cycle()) {
        *byte ^= mask;
    }
    // The library panics on a key that is none; on a thread of its own that becomes an error.
    let encrypted =
        tokio::task::spawn_blocking(move || mysql_common::crypto::encrypt(&password, &key))
            .await
            .map_err(|error| {
                corrupt("the source's public key cannot be used").with_source(error)
            })?;
    channel.send(&encrypted).await
}

/// The error of a connection that the server does not let in.
pub(super) fn refused(config: &SourceConfig, error: ServerError) -> Error {
    let error = Error::from(error);
    if error.kind() == ErrorKind::SourceDenied {
        return denied(config, error);
    }
    let place = format!("{}:{}", config.host, config.port);
    Error::new(
        error.kind(),
        format!("the source at {place} refused the connection"),
    )
    .with_source(error)
}
