//! MariaDB's compressed events (pitfall 84): which part is compressed, and how to get it back.
//!
//! Only the rows of a rows event and the text of a QUERY event are compressed; what stands before them is plain. The
//! compressed part begins with `0x80 | algorithm << 4 | n` and the plain length in `n` big-endian bytes, so a rows
//! event of a table that is not ours can be counted without inflating it.

use std::io::Read;

use flate2::read::ZlibDecoder;

use super::event::{Fields, truncated};
use crate::error::{Error, ErrorKind, Result};

/// The longest plain event taken; the server's own limit is 1 GiB.
const PLAIN_BYTES_MAX: usize = 1 << 30;

/// A compressed part: its plain length, and the zlib stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compressed<'a> {
    /// Bytes once inflated.
    pub(super) plain_length: usize,
    stream: &'a [u8],
}

impl<'a> Compressed<'a> {
    /// Reads the header of a compressed part.
    ///
    /// # Errors
    /// `SourceCorrupt`; `Unsupported` for an algorithm other than zlib.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut fields = Fields::new("compressed", bytes);
        let head = fields.u8()?;
        let size = usize::from(head & 0x07);
        if head & 0x80 == 0 || size == 0 || size > 4 {
            return Err(truncated("compressed"));
        }
        if head & 0x70 != 0 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "a binlog event is compressed by algorithm {}",
                    head >> 4 & 7
                ),
            )
            .with_hint("SET GLOBAL log_bin_compress = OFF"));
        }
        let plain_length = fields
            .take(size)?
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte));
        if plain_length > PLAIN_BYTES_MAX {
            return Err(truncated("compressed"));
        }
        Ok(Self {
            plain_length,
            stream: fields.rest(),
        })
    }

    /// Inflates behind what `into` holds already.
    ///
    /// # Errors
    /// `SourceCorrupt` when the stream is broken or of another length than it says.
    pub(super) fn inflate(&self, into: &mut Vec<u8>) -> Result<()> {
        let before = into.len();
        let limit = u64::try_from(self.plain_length).unwrap_or(u64::MAX);
        into.reserve(self.plain_length);
        let read = ZlibDecoder::new(self.stream)
            .take(limit.saturating_add(1))
            .read_to_end(into);
        match read {
            Ok(_) if into.len() - before == self.plain_length => Ok(()),
            Ok(_) => Err(truncated("compressed")),
            Err(error) => Err(truncated("compressed").with_source(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(plain: &[u8]) -> Vec<u8> {
        let mut encoder =
            flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(plain).unwrap();
        let mut bytes = vec![0x82];
        bytes.extend(u16::try_from(plain.len()).unwrap().to_be_bytes());
        bytes.extend(encoder.finish().unwrap());
        bytes
    }

    #[test]
    fn a_compressed_part_comes_back_whole_or_not_at_all() {
        let plain = vec![7; 1000];
        let bytes = packed(&plain);
        let compressed = Compressed::parse(&bytes).unwrap();
        let mut out = b"head".to_vec();
        compressed.inflate(&mut out).unwrap();
        assert_eq!(out.len(), 1004);
        let mut lying = bytes.clone();
        lying[2] ^= 1;
        assert!(
            Compressed::parse(&lying)
                .unwrap()
                .inflate(&mut Vec::new())
                .is_err()
        );
        let cut = &bytes[..bytes.len() - 8];
        assert!(
            Compressed::parse(cut)
                .unwrap()
                .inflate(&mut Vec::new())
                .is_err()
        );
        assert!(Compressed::parse(&[0x02, 0, 0]).is_err());
    }
}
