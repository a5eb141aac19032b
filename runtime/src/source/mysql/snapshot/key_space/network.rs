//! MariaDB's UUIDs and addresses as numbers in the order in which the server sorts them.
//!
//! An INET4 or INET6 sorts as it is written. A UUID of version 6 or later does too; others sort by their last group first,
//! so that those of one machine stand together and in the order of their time (seen on MariaDB 10.11 and 11.8).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::super::decode::uuid_text;
use super::super::super::sql::quote_string;
use super::number_between;

/// What a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Network {
    Uuid,
    Inet4,
    Inet6,
}

/// The bytes of a UUID in the order in which those before version 6 are compared.
const SORTED: [usize; 16] = [10, 11, 12, 13, 14, 15, 8, 9, 6, 7, 4, 5, 0, 1, 2, 3];

impl Network {
    /// A value that the server sent, as a literal; none for what is no such value.
    pub(super) fn literal(self, raw: &[u8]) -> Option<String> {
        let number = self.number(raw)?;
        Some(quote_string(&self.text(number)))
    }

    /// As [`Space::between`](super::Space::between).
    pub(super) fn between(
        self,
        first: &[u8],
        last: &[u8],
        part: u32,
        parts: u32,
    ) -> Option<String> {
        let (first, last) = (self.number(first)?, self.number(last)?);
        let sorted = self == Network::Uuid && !(is_time_ordered(first) && is_time_ordered(last));
        let ranked = |number: u128| if sorted { to_sorted(number) } else { number };
        let aim = number_between(signed(ranked(first)), signed(ranked(last)), part, parts)?;
        let aim = unsigned(aim);
        let aim = if sorted { from_sorted(aim) } else { aim };
        let aim = match self {
            // Of another version it would stand somewhere else.
            Network::Uuid => aim & !VERSION_AND_VARIANT | first & VERSION_AND_VARIANT,
            Network::Inet4 | Network::Inet6 => aim,
        };
        Some(quote_string(&self.text(aim)))
    }

    fn number(self, raw: &[u8]) -> Option<u128> {
        let text = std::str::from_utf8(raw).ok()?;
        match self {
            Network::Uuid => {
                let digits: String = text.chars().filter(|digit| *digit != '-').collect();
                let whole =
                    digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                whole.then(|| u128::from_str_radix(&digits, 16).ok())?
            }
            Network::Inet4 => text
                .parse::<Ipv4Addr>()
                .ok()
                .map(|address| u32::from(address).into()),
            Network::Inet6 => text.parse::<Ipv6Addr>().ok().map(u128::from),
        }
    }

    fn text(self, number: u128) -> String {
        match self {
            Network::Uuid => uuid_text(number),
            Network::Inet4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).to_string(),
            Network::Inet6 => Ipv6Addr::from(number).to_string(),
        }
    }
}

const VERSION_AND_VARIANT: u128 = 0xf000_c000_0000_0000_0000;

/// Whether a UUID is of version 6 or later and of the variant that has versions.
fn is_time_ordered(uuid: u128) -> bool {
    let bytes = uuid.to_be_bytes();
    bytes[6] >> 4 >= 6 && bytes[8] & 0x80 != 0
}

fn to_sorted(uuid: u128) -> u128 {
    let bytes = uuid.to_be_bytes();
    u128::from_be_bytes(SORTED.map(|place| bytes[place]))
}

fn from_sorted(sorted: u128) -> u128 {
    let mut bytes = [0; 16];
    for (place, byte) in SORTED.into_iter().zip(sorted.to_be_bytes()) {
        bytes[place] = byte;
    }
    u128::from_be_bytes(bytes)
}

/// The same order in a signed number.
fn signed(number: u128) -> i128 {
    (number ^ 1 << 127).cast_signed()
}

fn unsigned(number: i128) -> u128 {
    number.cast_unsigned() ^ 1 << 127
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_middle_from_end_to_end() {
        let middle = Network::Inet4.between(b"0.0.0.0", b"255.255.255.255", 1, 2);
        assert_eq!(middle.as_deref(), Some("'127.255.255.255'"));
        let middle =
            Network::Inet6.between(b"::", b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1, 2);
        assert_eq!(
            middle.as_deref(),
            Some("'7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'")
        );
        assert_eq!(Network::Inet4.between(b"1.2.3.4", b"1.2.3.4", 1, 2), None);
    }

    #[test]
    fn uuids_of_an_old_version_have_their_middle_by_the_last_group() {
        let first = b"ffffffff-ffff-4fff-bfff-000000000000";
        let last = b"00000000-0000-4000-8000-800000000000";
        let middle = Network::Uuid.between(first, last, 1, 2).unwrap();
        assert!(
            middle.ends_with("-400000000000'") || middle.ends_with("-3fffffffffff'"),
            "{middle}"
        );
        assert_eq!(middle.as_bytes()[15], b'4', "{middle}");
    }

    #[test]
    fn uuids_of_a_new_version_have_their_middle_by_the_first_group() {
        let first = b"01800000-0000-7000-8000-000000000000";
        let last = b"01a00000-0000-7000-8000-000000000000";
        let middle = Network::Uuid.between(first, last, 1, 2).unwrap();
        assert_eq!(middle, "'01900000-0000-7000-8000-000000000000'");
    }

    #[test]
    fn the_sorted_form_goes_back() {
        let uuid = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff;
        assert_eq!(to_sorted(uuid), 0xaabb_ccdd_eeff_8899_6677_4455_0011_2233);
        assert_eq!(from_sorted(to_sorted(uuid)), uuid);
    }

    #[test]
    fn what_is_no_address_never_becomes_a_literal() {
        assert_eq!(Network::Inet4.literal(b"1.2.3.4' OR 1"), None);
        assert_eq!(
            Network::Uuid.literal(b"+0eebc99-9c0b-11ee-8000-0242ac120002"),
            None
        );
        assert_eq!(Network::Inet6.literal(b"::1").as_deref(), Some("'::1'"));
    }
}
