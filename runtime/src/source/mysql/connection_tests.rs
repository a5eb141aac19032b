//! What keeps a pipe out before it is in, told by a server of a few bytes: the methods are plugins which MariaDB's own
//! packages bring along, and not all of them.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::config::{PositionMode, Secret, TlsConfig};

/// CLIENT_LONG_PASSWORD, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION; PLUGIN_AUTH and CONNECT_ATTRS. No CLIENT_SSL.
const CAPABILITIES: (u16, u16) = (0xa201, 0x0018);

/// What MariaDB says first.
fn greeting() -> Vec<u8> {
    let mut packet = vec![10];
    packet.extend(b"11.8.9-MariaDB\0");
    packet.extend(7_u32.to_le_bytes());
    packet.extend([0x21; 8]);
    packet.push(0);
    packet.extend(CAPABILITIES.0.to_le_bytes());
    packet.push(45);
    packet.extend(2_u16.to_le_bytes());
    packet.extend(CAPABILITIES.1.to_le_bytes());
    packet.push(21);
    packet.extend([0; 10]);
    packet.extend([0x22; 12]);
    packet.push(0);
    packet.extend(b"mysql_native_password\0");
    packet
}

/// What it says to an account that was made with another method.
fn switch_to(method: &str) -> Vec<u8> {
    let mut packet = vec![0xfe];
    packet.extend(method.as_bytes());
    packet.push(0);
    packet.extend([0x23; 32]);
    packet
}

async fn send(stream: &mut TcpStream, sequence: u8, packet: &[u8]) {
    let length = u32::try_from(packet.len()).unwrap().to_le_bytes();
    let mut bytes = vec![length[0], length[1], length[2], sequence];
    bytes.extend(packet);
    stream.write_all(&bytes).await.unwrap();
}

/// Serves every connection in this way, and hands on how many bytes the client answered the greeting with.
async fn server(method: &'static str) -> (u16, mpsc::UnboundedReceiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (answers, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            send(&mut stream, 0, &greeting()).await;
            let mut answer = vec![0; 4096];
            let length = stream.read(&mut answer).await.unwrap_or(0);
            answers.send(length).ok();
            if length > 0 {
                send(&mut stream, 2, &switch_to(method)).await;
                // The client goes; what it says before that matters to nobody.
                tokio::io::copy(&mut stream, &mut tokio::io::sink())
                    .await
                    .ok();
            }
        }
    });
    (port, received)
}

fn config(port: u16, mode: TlsMode) -> SourceConfig {
    SourceConfig {
        source_type: SourceType::Mariadb,
        host: "127.0.0.1".into(),
        port,
        hosts: vec![],
        user: "pipewright".into(),
        password: Secret::default(),
        tls: TlsConfig { mode, ca: None },
        position: PositionMode::Auto,
        server_id: None,
    }
}

/// pitfall 92: neither a panic nor a server that is waited for, but an account that a person must change.
#[tokio::test]
async fn a_method_of_authentication_that_is_not_known_is_refused_by_name() {
    let (port, _answers) = server("parsec").await;
    let refused = Source::connect(&config(port, TlsMode::Disabled), None).await;
    let error = refused.expect_err("nobody was let in");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", error.chain());
    assert!(error.message().contains("parsec"), "{}", error.chain());
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("IDENTIFIED VIA"), "{hint}");
}

/// pitfall 135: where the pipe file asks for TLS, nothing at all is said to a server that has none.
#[tokio::test]
async fn a_server_without_tls_hears_nothing_where_the_pipe_file_asks_for_it() {
    for mode in [
        TlsMode::Required,
        TlsMode::VerifyCa,
        TlsMode::VerifyIdentity,
    ] {
        let (port, mut answers) = server("mysql_native_password").await;
        let refused = Source::connect(&config(port, mode), None).await;
        let error = refused.expect_err("nobody was let in");
        assert_eq!(error.kind(), ErrorKind::SourceSetting, "{}", error.chain());
        assert!(error.message().contains("TLS"), "{}", error.chain());
        assert_eq!(answers.recv().await, Some(0), "something was sent");
    }
}
