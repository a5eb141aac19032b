//! `source` and `destination`: the two ends of a pipe.

use std::net::IpAddr;

use super::field::Field;
use super::{
    DestinationConfig, Durability, HostPort, PositionMode, Secret, Secrets, SourceConfig,
    SourceType, TlsConfig, TlsMode,
};

/// MySQL's and MariaDB's own port.
pub(super) const SOURCE_PORT: u16 = 3306;
/// ClickHouse's own database and account.
pub(super) const CLICKHOUSE_DEFAULT: &str = "default";

/// Reads `source`.
pub(super) fn source(field: &Field<'_>, secrets: Secrets) -> Option<SourceConfig> {
    let mut section = field.section()?;
    let source_type = section
        .required(
            "type",
            "`mysql` or `mariadb`",
            "add `type: mysql` or `type: mariadb`",
        )
        .and_then(|field| {
            field.choice(
                &[
                    ("mysql", SourceType::Mysql),
                    ("mariadb", SourceType::Mariadb),
                ],
                &[],
            )
        });
    let host = section
        .required("host", "a name or an address", "add `host:`")
        .and_then(|field| host(&field));
    let port = section.or("port", SOURCE_PORT, |field| port(&field));
    let user = section
        .required("user", "the account's name", "add `user:`")
        .and_then(|field| field.text());
    let password = section.or("password", Secret::default(), |field| password(&field));
    let tls = match section.get("tls") {
        Some(field) => tls(&field, secrets),
        // The first server's; the others have no settings of their own.
        None => Some(TlsConfig {
            mode: host.map_or(TlsMode::VerifyIdentity, default_tls_mode),
            ca: None,
        }),
    };
    let position = section.or("position", PositionMode::Auto, |field| {
        field.choice(
            &[
                ("auto", PositionMode::Auto),
                ("gtid", PositionMode::Gtid),
                ("file", PositionMode::File),
            ],
            &[],
        )
    });
    let server_id = section.maybe("server_id", |field| field.positive());
    let hosts = match (section.get("hosts"), port) {
        (Some(field), Some(port)) => hosts(&field, port, position),
        _ => Some(Vec::new()),
    };
    section.finish();
    Some(SourceConfig {
        source_type: source_type?,
        host: host?.to_owned(),
        port: port?,
        hosts: hosts?,
        user: user?.to_owned(),
        password: password?,
        tls: tls?,
        position: position?,
        server_id: server_id?,
    })
}

/// Reads a change of `source`: how the same server is reached, or another with the same data. A key that is left out keeps
/// its value in `base`.
pub(super) fn source_over(
    field: &Field<'_>,
    secrets: Secrets,
    base: &SourceConfig,
) -> Option<SourceConfig> {
    let mut section = field.section()?;
    for key in ["type", "position", "server_id"] {
        section.fixed(key);
    }
    let host_field = section.get("host");
    let host = match &host_field {
        Some(field) => host(field).map(str::to_owned),
        None => Some(base.host.clone()),
    };
    let port = section.or("port", base.port, |field| port(&field));
    let user = section.or("user", base.user.clone(), |field| {
        field.text().map(str::to_owned)
    });
    let password = section.or("password", base.password.clone(), |field| password(&field));
    let tls_field = section.get("tls");
    let tls = match &tls_field {
        Some(field) => tls(field, secrets),
        None => Some(base.tls.clone()),
    };
    let hosts = match (section.get("hosts"), port) {
        (Some(field), Some(port)) => hosts(&field, port, Some(base.position)),
        _ => Some(base.hosts.clone()),
    };
    section.finish();
    // Nobody may have said that the former host was to be reached in plain text: on this machine it is the default.
    if let (Some(field), None, Some(host)) = (&host_field, &tls_field, &host)
        && base.tls.mode == TlsMode::Disabled
        && default_tls_mode(host) != TlsMode::Disabled
    {
        field.problem(
            "another host for a pipe that is connected without encryption",
            "`tls` beside `host`",
            "say `tls: {mode: verify_identity}`, or `tls: {mode: disabled}` where plain text is meant",
        );
        return None;
    }
    Some(SourceConfig {
        source_type: base.source_type,
        host: host?,
        port: port?,
        hosts: hosts?,
        user: user?,
        password: password?,
        tls: tls?,
        position: base.position,
        server_id: base.server_id,
    })
}

fn host<'a>(field: &Field<'a>) -> Option<&'a str> {
    address_where(
        field,
        is_host,
        "a name or an address, without port, scheme or path",
        "the port has a key of its own, `port`; sockets are not built yet, use 127.0.0.1",
    )
}

/// A string that `valid` accepts. One that is refused may be a whole address, with a password in it.
fn address_where<'a>(
    field: &Field<'a>,
    valid: fn(&str) -> bool,
    expected: &str,
    remedy: &str,
) -> Option<&'a str> {
    let text = field.text()?;
    if field.is_unresolved() || valid(text) {
        return Some(text);
    }
    field.problem(field.shown_address(), expected, remedy);
    None
}

fn port(field: &Field<'_>) -> Option<u16> {
    let port = field.integer(1..=65535)?;
    u16::try_from(port).ok()
}

/// Further servers, which only a place in GTIDs can be carried to.
fn hosts(field: &Field<'_>, port: u16, position: Option<PositionMode>) -> Option<Vec<HostPort>> {
    if position == Some(PositionMode::File) {
        field.problem(
            "further servers with `position: file`",
            "`position: auto` or `position: gtid`",
            "a file and an offset mean something on their own server only; remove `hosts`, or name places by GTIDs",
        );
        return None;
    }
    field
        .items()
        .into_iter()
        .map(|item| {
            let text = address_where(
                &item,
                |text| host_port(text, 1).is_some(),
                "a name or an address, followed by `:port` where that is not `source.port`",
                "write `db2`, `db2:3307`, `10.0.0.2` or `[2001:db8::2]:3307`",
            )?;
            host_port(text, port).or_else(|| {
                // A reference that is not resolved.
                Some(HostPort {
                    host: text.to_owned(),
                    port,
                })
            })
        })
        .collect()
}

fn host_port(text: &str, default: u16) -> Option<HostPort> {
    let bracketed = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map(|(host, rest)| (host, rest.strip_prefix(':')));
    let (host, port) = match bracketed {
        Some((host, port)) => (host, port),
        None if text.parse::<IpAddr>().is_ok() => (text, None),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        None => default,
    };
    (!host.is_empty() && is_host(host)).then(|| HostPort {
        host: host.to_owned(),
        port,
    })
}

fn tls(field: &Field<'_>, secrets: Secrets) -> Option<TlsConfig> {
    let mut section = field.section()?;
    let mode = section.or("mode", TlsMode::VerifyIdentity, |field| {
        field.choice(
            &[
                ("verify_identity", TlsMode::VerifyIdentity),
                ("verify_ca", TlsMode::VerifyCa),
                ("required", TlsMode::Required),
                ("disabled", TlsMode::Disabled),
            ],
            &[],
        )
    });
    let ca_field = section.get("ca");
    let ca = match &ca_field {
        Some(field) => field
            .text()
            .and_then(|text| field.file(text, secrets, "a PEM file of certificate authorities"))
            .map(Some),
        None => Some(None),
    };
    section.finish();
    if let (Some(field), Some(TlsMode::Disabled | TlsMode::Required)) = (&ca_field, mode) {
        field.problem(
            "`ca` with a mode that checks no certificate",
            "`mode: verify_ca` or `mode: verify_identity`",
            "change the mode, or remove `ca`",
        );
        return None;
    }
    Some(TlsConfig {
        mode: mode?,
        ca: ca?,
    })
}

/// Reads `destination`.
pub(super) fn destination(field: &Field<'_>) -> Option<DestinationConfig> {
    let mut section = field.section()?;
    let url = section
        .required(
            "url",
            "ClickHouse's HTTP address",
            "add `url: http://127.0.0.1:8123`, or https:// for TLS",
        )
        .and_then(|field| url(&field));
    let database = section.or("database", CLICKHOUSE_DEFAULT, |field| {
        field.text_where(
            is_database,
            "a database's name",
            "write the name without quotes and without a table",
        )
    });
    let user = section.or("user", CLICKHOUSE_DEFAULT, |field| field.text());
    let password = section.or("password", Secret::default(), |field| password(&field));
    let durability = section.or("durability", Durability::Fsync, |field| {
        field.choice(
            &[
                ("fsync", Durability::Fsync),
                ("answered", Durability::Answered),
            ],
            &[],
        )
    });
    section.unbuilt(
        "cluster",
        "remove it, or write `cluster: null`; use one ClickHouse server",
    );
    section.finish();
    Some(DestinationConfig {
        url: url?,
        database: database?.to_owned(),
        user: user?.to_owned(),
        password: password?,
        durability: durability?,
    })
}

/// Reads a change of `destination`: how the same server is reached. A key that is left out keeps its value in `base`.
pub(super) fn destination_over(
    field: &Field<'_>,
    base: &DestinationConfig,
) -> Option<DestinationConfig> {
    let mut section = field.section()?;
    for key in ["database", "durability", "cluster"] {
        section.fixed(key);
    }
    let url = section.or("url", base.url.clone(), |field| url(&field));
    let user = section.or("user", base.user.clone(), |field| {
        field.text().map(str::to_owned)
    });
    let password = section.or("password", base.password.clone(), |field| password(&field));
    section.finish();
    Some(DestinationConfig {
        url: url?,
        database: base.database.clone(),
        user: user?,
        password: password?,
        durability: base.durability,
    })
}

/// Never shown, whatever is wrong with it; hence no [`Field::shown`] here.
fn password(field: &Field<'_>) -> Option<Secret> {
    field.text_or_empty().map(Secret::new)
}

/// An address without user information: that would end up in logs and error texts, and is not shown here
/// either.
fn url(field: &Field<'_>) -> Option<String> {
    const EXPECTED: &str = "`http://host:port` or `https://host:port`";
    let text = field.text()?;
    if field.is_unresolved() {
        return Some(text.to_owned());
    }
    let remedy = match reqwest::Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            "begin with http:// or https://; ClickHouse's native protocol is not spoken"
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "move the account to `destination.user` and `destination.password`"
        }
        Ok(url) if url.path() != "/" || url.query().is_some() || url.fragment().is_some() => {
            "end the address after the port; `database` has a key of its own"
        }
        Ok(url) if url.port() == Some(0) => "give ClickHouse's HTTP port, 8123 by default",
        Ok(_) => return Some(text.trim_end_matches('/').to_owned()),
        Err(_) => "write scheme, host and port, such as http://127.0.0.1:8123",
    };
    field.problem(field.shown_address(), EXPECTED, remedy);
    None
}

/// Plain text only where it cannot leave the machine.
fn default_tls_mode(host: &str) -> TlsMode {
    let loopback = host.eq_ignore_ascii_case("localhost")
        || host
            .trim_matches(['[', ']'])
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback());
    if loopback {
        TlsMode::Disabled
    } else {
        TlsMode::VerifyIdentity
    }
}

fn is_database(text: &str) -> bool {
    !text.contains(['`', '"', '\'']) && !text.chars().any(char::is_control)
}

fn is_host(text: &str) -> bool {
    let address: Result<IpAddr, _> = text.parse();
    address.is_ok()
        || !text.contains(['/', ':', '@', ' ', '[', ']']) && !text.chars().any(char::is_control)
}
