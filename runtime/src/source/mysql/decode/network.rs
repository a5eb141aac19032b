//! MariaDB's UUID, INET4 and INET6: text in packets; in row images bytes in the order in which people write them,
//! whatever order the version of a UUID has in the table itself, with the zeros at the end cut off (pitfall 33; seen on
//! MariaDB 10.11 and 11.8 with versions 1 to 8).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::DecodeError;

/// The text of a row image's value, as `data_type` is written; none for another type.
pub(super) fn text(data_type: &str, bytes: &[u8]) -> Result<Option<String>, DecodeError> {
    Ok(Some(match data_type {
        "uuid" => uuid_text(u128::from_be_bytes(padded(bytes)?)),
        "inet4" => Ipv4Addr::from(padded::<4>(bytes)?).to_string(),
        "inet6" => Ipv6Addr::from(padded::<16>(bytes)?).to_string(),
        _ => return Ok(None),
    }))
}

/// A UUID's text.
pub(in crate::source::mysql) fn uuid_text(uuid: u128) -> String {
    let mut text = format!("{uuid:032x}");
    for hyphen in [20, 16, 12, 8] {
        text.insert(hyphen, '-');
    }
    text
}

/// A UUID from its 36 characters.
pub(super) fn uuid_from_text(text: &[u8]) -> Result<[u8; 16], DecodeError> {
    const BAD: DecodeError = DecodeError::BadValue("UUID");
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    if text.len() != 36 || HYPHENS.iter().any(|place| text.get(*place) != Some(&b'-')) {
        return Err(BAD);
    }
    let mut digits = text.iter().filter(|byte| **byte != b'-').map(|byte| {
        let digit = char::from(*byte).to_digit(16).ok_or(BAD)?;
        u8::try_from(digit).map_err(|_| BAD)
    });
    let mut uuid = [0; 16];
    for byte in &mut uuid {
        let (high, low) = (digits.next().ok_or(BAD)??, digits.next().ok_or(BAD)??);
        *byte = high << 4 | low;
    }
    match digits.next() {
        None => Ok(uuid),
        Some(_) => Err(BAD),
    }
}

/// An INET4 from its text, as a number whose high byte comes first in the text.
pub(super) fn inet4_from_text(text: &[u8]) -> Result<u32, DecodeError> {
    let address: Option<Ipv4Addr> = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok());
    address.map(u32::from).ok_or(DecodeError::BadValue("INET4"))
}

/// An INET6 from its text.
pub(super) fn inet6_from_text(text: &[u8]) -> Result<[u8; 16], DecodeError> {
    let address: Option<Ipv6Addr> = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok());
    address
        .map(|address| address.octets())
        .ok_or(DecodeError::BadValue("INET6"))
}

/// The bytes of a row image, with the zeros back that it leaves out.
pub(super) fn padded<const N: usize>(bytes: &[u8]) -> Result<[u8; N], DecodeError> {
    let mut whole = [0; N];
    whole
        .get_mut(..bytes.len())
        .ok_or(DecodeError::BadLength)?
        .copy_from_slice(bytes);
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_bytes_in_the_order_of_the_text() {
        let uuid = uuid_from_text(b"a0eebc99-9c0b-11ee-8000-0242ac120002").expect("a UUID");
        assert_eq!(uuid[..4], [0xa0, 0xee, 0xbc, 0x99]);
        assert_eq!(uuid[14..], [0, 2]);
        assert_eq!(inet4_from_text(b"1.2.3.4"), Ok(0x0102_0304));
        let mapped = inet6_from_text(b"::ffff:1.2.3.4").expect("an address");
        assert_eq!(mapped[10..], [0xff, 0xff, 1, 2, 3, 4]);
    }

    #[test]
    fn texts_that_are_none_are_refused() {
        for text in [
            "",
            "a0eebc99-9c0b-11ee-8000-0242ac12000",
            "a0eebc999c0b-11ee-8000-0242ac120002-",
            "a0eebc99-9c0b-11ee-8000-0242ac12000g",
            "-0eebc99-9c0b-11ee-8000-0242ac120002",
            "a0eebc99-9c0b-11ee-8000-0242ac1200021",
        ] {
            assert!(uuid_from_text(text.as_bytes()).is_err(), "{text}");
        }
        assert!(inet4_from_text(b"1.2.3").is_err() && inet4_from_text(b"\xff").is_err());
        assert!(inet6_from_text(b"1.2.3.4").is_err());
    }

    #[test]
    fn bytes_become_the_text_that_they_came_from() {
        let uuid = "a0eebc99-9c0b-11ee-8000-0242ac120002";
        let bytes = uuid_from_text(uuid.as_bytes()).expect("a UUID");
        assert_eq!(text("uuid", &bytes), Ok(Some(uuid.to_owned())));
        assert_eq!(text("inet4", &[10]), Ok(Some("10.0.0.0".to_owned())));
        assert_eq!(text("inet6", &[]), Ok(Some("::".to_owned())));
        assert_eq!(text("binary", &[1]), Ok(None));
        assert!(text("inet4", &[1; 5]).is_err());
    }

    #[test]
    fn an_image_gets_its_zeros_back_and_is_never_too_long() {
        assert_eq!(padded::<4>(&[10]), Ok([10, 0, 0, 0]));
        assert_eq!(padded::<4>(&[]), Ok([0; 4]));
        assert_eq!(padded::<4>(&[1; 5]), Err(DecodeError::BadLength));
    }
}
