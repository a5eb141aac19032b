//! Certificates out of PEM files, for whichever end of a connection needs them.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::error::{Error, ErrorKind, Result};

/// The authorities that a client believes: those of the file, or else the public ones; never both. `setting` is what
/// names the file.
///
/// # Errors
/// `Config` when the file holds no certificate.
pub(crate) fn authorities(file: Option<&Path>, setting: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(path) = file else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(roots);
    };
    for certificate in certificates(path, setting)? {
        roots
            .add(certificate)
            .map_err(|error| unreadable(path, setting).with_source(error))?;
    }
    Ok(roots)
}

/// A client that checks chain and name.
///
/// # Errors
/// As [`authorities`].
pub(crate) fn client(ca: Option<&Path>, setting: &str) -> Result<ClientConfig> {
    let roots = authorities(ca, setting)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| cannot(setting).with_source(error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A server that shows the certificate chain of one file, with the private key of another.
///
/// # Errors
/// `Config`, naming the file and the setting.
pub(crate) fn server(chain: &Path, key: &Path) -> Result<ServerConfig> {
    let certificates = certificates(chain, "--tls-cert")?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| {
        let message = format!("`{}` holds no readable private key", key.display());
        Error::new(ErrorKind::Config, message)
            .with_hint("`--tls-key` names a PEM file with the key of the certificate")
            .with_source(error)
    })?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| cannot("--tls-cert").with_source(error))?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .map_err(|error| {
            Error::new(
                ErrorKind::Config,
                "certificate and private key do not fit together",
            )
            .with_hint("`--tls-key` must be the key of the first certificate in `--tls-cert`")
            .with_source(error)
        })
}

fn certificates(path: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
    let found = read.map_err(|error| unreadable(path, setting).with_source(error))?;
    if found.is_empty() {
        return Err(unreadable(path, setting));
    }
    Ok(found)
}

fn unreadable(path: &Path, setting: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("`{}` holds no readable certificate", path.display()),
    )
    .with_hint(format!("`{setting}` names a PEM file of certificates"))
}

fn cannot(setting: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("TLS cannot be set up as `{setting}` says"),
    )
}
