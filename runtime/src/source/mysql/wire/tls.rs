//! TLS of the source connection, in the four grades of the pipe file.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::unavailable;
use crate::config::{SourceConfig, TlsConfig, TlsMode};
use crate::error::{Error, ErrorKind, Result};
use crate::tls::authorities;

/// Encrypts `stream` as the configuration asks.
pub(super) async fn encrypt(
    stream: TcpStream,
    config: &SourceConfig,
) -> Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(config.host.clone()).map_err(|error| {
        Error::new(
            ErrorKind::Config,
            format!("`{}` is no host name that TLS can check", config.host),
        )
        .with_source(error)
    })?;
    let connector = TlsConnector::from(Arc::new(client_config(&config.tls)?));
    connector.connect(name, stream).await.map_err(|error| {
        // rustls wraps its refusals in an io error; those will not go away by themselves.
        let refused = error
            .get_ref()
            .is_some_and(|inner| inner.is::<rustls::Error>());
        if refused {
            Error::new(
                ErrorKind::SourceSetting,
                format!("TLS with the source at {}:{} failed", config.host, config.port),
            )
            .with_hint(
                "give the authority that signed the server's certificate as `source.tls.ca`, or choose a lower \
                 `source.tls.mode`",
            )
            .with_source(error)
        } else {
            unavailable(
                format!(
                    "the TLS handshake with {}:{} broke",
                    config.host, config.port
                ),
                error,
            )
        }
    })
}

fn client_config(tls: &TlsConfig) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(authorities(tls.ca.as_deref(), "source.tls.ca")?);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(tls_error)?;
    let config = match tls.mode {
        TlsMode::VerifyIdentity => builder.with_root_certificates(roots).with_no_client_auth(),
        TlsMode::VerifyCa | TlsMode::Required | TlsMode::Disabled => {
            let chain = if tls.mode == TlsMode::VerifyCa {
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                        .build()
                        .map_err(tls_error)?;
                Some(verifier)
            } else {
                None
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Lenient { chain, provider }))
                .with_no_client_auth()
        }
    };
    Ok(config)
}

fn tls_error(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Config, "TLS cannot be set up as configured").with_source(error)
}

/// Checks the chain but no name (`verify_ca`), or neither (`required`). Signatures are always checked, so that the
/// other end does own the certificate it shows.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: where only it does not fit, the chain does.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
