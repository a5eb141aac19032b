//! One attempt for each kind of thing that WASI could give.

use wasip2::cli::{
    environment, exit, stderr, stdin, stdout, terminal_stderr, terminal_stdin, terminal_stdout,
};
use wasip2::clocks::{monotonic_clock, wall_clock};
use wasip2::filesystem::preopens;
use wasip2::filesystem::types::Descriptor;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, OutgoingRequest};
use wasip2::io::poll::poll;
use wasip2::random::{insecure, insecure_seed, random};
use wasip2::sockets::network::IpAddressFamily;
use wasip2::sockets::{instance_network, ip_name_lookup, tcp_create_socket, udp_create_socket};

use crate::What;

/// Asks, and tells what came of it.
pub(crate) fn attempt(what: What) -> String {
    match what {
        What::Environment => environment(),
        What::Files => format!("{} folders", preopens::get_directories().len()),
        What::Clocks => clocks(),
        What::Sleep => sleep(),
        What::Random => random_numbers(),
        What::Streams => streams(),
        What::Network => network(),
        What::Http => http(),
        What::Exit => {
            exit::exit(Ok(()));
            "still there".to_owned()
        }
        What::Forged => forged(),
        What::Greed => format!("{} bytes", random::get_random_bytes(1 << 31).len()),
        What::Handles => handles(),
    }
}

fn environment() -> String {
    format!(
        "{} variables, {} arguments, folder {:?}, terminals {:?}",
        environment::get_environment().len(),
        environment::get_arguments().len(),
        environment::initial_cwd(),
        [
            terminal_stdin::get_terminal_stdin().is_some(),
            terminal_stdout::get_terminal_stdout().is_some(),
            terminal_stderr::get_terminal_stderr().is_some(),
        ],
    )
}

fn clocks() -> String {
    let wall = || {
        let now = wall_clock::now();
        (now.seconds, now.nanoseconds)
    };
    let times = [monotonic_clock::now(), monotonic_clock::now()];
    format!("{times:?} {:?} {:?}", wall(), wall())
}

fn sleep() -> String {
    let hour = monotonic_clock::subscribe_duration(3_600_000_000_000);
    hour.block();
    format!("ready {:?}", poll(&[&hour]))
}

fn random_numbers() -> String {
    let twice = |get: &dyn Fn() -> Vec<u8>| get() == get();
    let same = [
        twice(&|| random::get_random_bytes(32)),
        twice(&|| random::get_random_u64().to_le_bytes().to_vec()),
        twice(&|| insecure::get_insecure_random_bytes(32)),
        twice(&|| insecure::get_insecure_random_u64().to_le_bytes().to_vec()),
        twice(&|| insecure_seed::insecure_seed().0.to_le_bytes().to_vec()),
    ];
    format!("the same {same:?}")
}

fn streams() -> String {
    let read = stdin::get_stdin().blocking_read(10);
    let out = stdout::get_stdout().blocking_write_and_flush(b"a guest was here");
    let err = stderr::get_stderr().blocking_write_and_flush(b"a guest was here");
    format!(
        "read {}, written {} and {}",
        read.map_or_else(|_| "nothing".to_owned(), |bytes| format!("{bytes:?}")),
        out.is_ok(),
        err.is_ok()
    )
}

fn network() -> String {
    let network = instance_network::instance_network();
    let address = ip_name_lookup::resolve_addresses(&network, "localhost");
    let tcp = tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4);
    let udp = udp_create_socket::create_udp_socket(IpAddressFamily::Ipv6);
    format!(
        "address {}, sockets {} and {}",
        address.is_ok(),
        tcp.is_ok(),
        udp.is_ok()
    )
}

fn http() -> String {
    let request = OutgoingRequest::new(Fields::new());
    let sent = outgoing_handler::handle(request, None);
    format!("sent {}", sent.is_ok())
}

#[expect(
    unsafe_code,
    reason = "the handle is made up: the host has to see that there is none"
)]
fn forged() -> String {
    // SAFETY: a handle is a number to the guest; nothing here is reached by it.
    let file = unsafe { Descriptor::from_handle(7) };
    format!("read {}", file.read(10, 0).is_ok())
}

fn handles() -> String {
    let mut held = Vec::new();
    loop {
        held.push(monotonic_clock::subscribe_duration(1));
    }
}
