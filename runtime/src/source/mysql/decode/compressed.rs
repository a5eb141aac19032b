//! MariaDB's COMPRESSED columns in row images (pitfall 34); the load gets their values plain.
//!
//! A value that is not empty begins with a byte: 0 before a value that was left as it is, else `0x80` for zlib, `0x08`
//! where the stream is raw deflate (`column_compression_zlib_wrap=OFF`, the default), and in the low bits how many
//! bytes of plain length follow, high byte first.

use flate2::{Decompress, FlushDecompress, Status};

use super::DecodeError;
use super::cursor::{take_be, take_u8};

const ZLIB: u8 = 0x80;
const RAW: u8 = 0x08;
const LENGTH: u8 = 0x07;

/// Deflate makes no byte into more than 1032, so a longer claim is a lie, and no room is made for it.
const EXPANSION_MAX: usize = 1032;

/// Fills `room` with the plain value behind its length in four bytes, low byte first: the form of a LONGBLOB.
pub(super) fn expand(stored: &[u8], room: &mut Vec<u8>) -> Result<(), DecodeError> {
    room.clear();
    room.extend_from_slice(&[0; 4]);
    let mut stream = stored;
    let head = match stream {
        [] => 0,
        _ => take_u8(&mut stream)?,
    };
    if head == 0 {
        room.extend_from_slice(stream);
    } else if head & !(RAW | LENGTH) == ZLIB {
        let plain_length = take_be(&mut stream, usize::from(head & LENGTH))?;
        inflate(head & RAW == 0, stream, plain_length, room)?;
    } else {
        return Err(DecodeError::BadValue("compression"));
    }
    let length = u32::try_from(room.len() - 4).map_err(|_| DecodeError::BadLength)?;
    if let Some(place) = room.first_chunk_mut() {
        *place = length.to_le_bytes();
    }
    Ok(())
}

fn inflate(
    wrapped: bool,
    stream: &[u8],
    plain_length: u64,
    room: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    const BROKEN: DecodeError = DecodeError::BadValue("compressed value");
    let wanted = usize::try_from(plain_length).map_err(|_| BROKEN)?;
    if wanted / EXPANSION_MAX > stream.len() {
        return Err(BROKEN);
    }
    // A byte more than it should take, so that a longer value is noticed.
    room.reserve(wanted + 1);
    let mut inflater = Decompress::new(wrapped);
    let status = inflater
        .decompress_vec(stream, room, FlushDecompress::Finish)
        .map_err(|_| BROKEN)?;
    let whole = inflater.total_in() == stream.len() as u64;
    if status == Status::StreamEnd && whole && room.len() - 4 == wanted {
        Ok(())
    } else {
        Err(BROKEN)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn plain(stored: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut room = vec![9; 100];
        expand(stored, &mut room)?;
        assert_eq!(
            room[..4],
            u32::try_from(room.len() - 4).expect("short").to_le_bytes()
        );
        Ok(room[4..].to_vec())
    }

    fn packed(value: &[u8], head: u8) -> Vec<u8> {
        let length = u16::try_from(value.len()).expect("short").to_be_bytes();
        let level = flate2::Compression::default();
        let stream = if head & RAW == 0 {
            let mut encoder = flate2::write::ZlibEncoder::new(vec![], level);
            encoder.write_all(value).expect("in memory");
            encoder.finish().expect("in memory")
        } else {
            let mut encoder = flate2::write::DeflateEncoder::new(vec![], level);
            encoder.write_all(value).expect("in memory");
            encoder.finish().expect("in memory")
        };
        [vec![head | 2], length.to_vec(), stream].concat()
    }

    /// `REPEAT('a', 100)` and `REPEAT('c', 300)` as MariaDB 10.11 logged them.
    #[test]
    fn values_that_the_server_compressed_come_back() {
        assert_eq!(
            plain(&[0x89, 0x64, 0x4b, 0x4c, 0xa4, 0x3d, 0, 0]),
            Ok(vec![b'a'; 100])
        );
        assert_eq!(
            plain(&[0x8a, 0x01, 0x2c, 0x4b, 0x4e, 0x1e, 0x05, 0xc4, 0x02, 0x00]),
            Ok(vec![b'c'; 300])
        );
        assert_eq!(plain(b"\0short"), Ok(b"short".to_vec()));
        assert_eq!(plain(b""), Ok(vec![]));
    }

    #[test]
    fn both_kinds_of_stream_are_read() {
        let value: Vec<u8> = (0..2000u32).flat_map(|n| (n * 7).to_le_bytes()).collect();
        assert_eq!(plain(&packed(&value, ZLIB | RAW)), Ok(value.clone()));
        assert_eq!(plain(&packed(&value, ZLIB)), Ok(value));
    }

    #[test]
    fn a_value_comes_back_whole_or_not_at_all() {
        let whole = packed(&[7; 1000], ZLIB | RAW);
        for length in 1..whole.len() {
            assert!(plain(&whole[..length]).is_err(), "cut at {length}");
        }
        let mut lying = whole.clone();
        for length in [0u16, 999, 1001, u16::MAX] {
            lying[1..3].copy_from_slice(&length.to_be_bytes());
            assert!(plain(&lying).is_err(), "{length}");
        }
        assert!(plain(&[whole.as_slice(), &[0]].concat()).is_err());
        // Four gigabytes of nothing, another algorithm, a length of seven bytes.
        assert!(plain(&[0x8c, 255, 255, 255, 255, 3, 0]).is_err());
        assert!(plain(&[0x99, 0x64, 0x4b, 0x4c, 0xa4, 0x3d, 0, 0]).is_err());
        assert!(plain(&[0x8f, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
