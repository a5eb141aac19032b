//! SHA-256 (FIPS 180-4) of many short values behind one beginning.
//!
//! A hasher that takes any number of parts is copied with its buffer for each value. Here the block is filled in place:
//! a salted e-mail address with its padding is one, compressed at once.

use sha2::block_api::compress256;

const BLOCK: usize = 64;

/// The state before the first block: the fractions of the square roots of the first eight primes (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// A hash that has taken its beginning: a salt, or the block that an HMAC makes of its key.
#[derive(Clone, Debug)]
pub struct Begun {
    state: [u32; 8],
    /// What fills no whole block yet, and its length.
    block: [u8; BLOCK],
    filled: usize,
    /// Bytes of the beginning.
    length: u64,
}

impl Begun {
    pub(crate) fn new(beginning: &[u8]) -> Self {
        let mut begun = Self {
            state: INITIAL,
            block: [0; BLOCK],
            filled: 0,
            length: 0,
        };
        begun.take(beginning);
        begun
    }

    /// The hash of the beginning and the parts behind it.
    pub(crate) fn hash<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
        let mut all = self.clone();
        parts.into_iter().for_each(|part| all.take(part));
        all.finish()
    }

    fn take(&mut self, mut part: &[u8]) {
        self.length += part.len() as u64;
        while part.len() >= BLOCK - self.filled {
            let (now, later) = part.split_at(BLOCK - self.filled);
            self.block[self.filled..].copy_from_slice(now);
            self.compress();
            self.filled = 0;
            part = later;
        }
        self.block[self.filled..][..part.len()].copy_from_slice(part);
        self.filled += part.len();
    }

    fn finish(mut self) -> [u8; 32] {
        const LENGTH: usize = size_of::<u64>();
        self.block[self.filled] = 0x80;
        self.block[self.filled + 1..].fill(0);
        if self.filled >= BLOCK - LENGTH {
            self.compress();
            self.block.fill(0);
        }
        self.block[BLOCK - LENGTH..].copy_from_slice(&(8 * self.length).to_be_bytes());
        self.compress();
        let mut hash = [0; 32];
        for (bytes, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        hash
    }

    fn compress(&mut self) {
        compress256(&mut self.state, &[self.block]);
    }
}

/// Appends a hash in hexadecimal digits, eight of them at a time.
pub(crate) fn write_hex(hash: &[u8; 32], out: &mut Vec<u8>) {
    let mut digits = [0; 64];
    for (eight, four) in digits
        .as_chunks_mut::<8>()
        .0
        .iter_mut()
        .zip(hash.as_chunks::<4>().0)
    {
        *eight = hex(*four);
    }
    out.extend_from_slice(&digits);
}

/// Each half of a byte in a byte of its own, made a digit.
fn hex(bytes: [u8; 4]) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut halves = u64::from(u32::from_be_bytes(bytes));
    halves = (halves | halves << 16) & 0x0000_ffff_0000_ffff;
    halves = (halves | halves << 8) & 0x00ff_00ff_00ff_00ff;
    halves = (halves | halves << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // Six more carries a half above nine into the fifth bit.
    let letters = (halves + 6 * ONES) >> 4 & ONES;
    let digits = halves + u64::from(b'0') * ONES + u64::from(b'a' - b'0' - 10) * letters;
    digits.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn every_length_of_beginning_and_value_is_hashed_as_the_library_does() {
        let bytes: Vec<u8> = (0..=255).collect();
        for beginning in (0..=150).map(|length| &bytes[..length]) {
            let begun = Begun::new(beginning);
            for value in (0..=150).map(|length| &bytes[100..100 + length]) {
                let expected: [u8; 32] = Sha256::new()
                    .chain_update(beginning)
                    .chain_update(value)
                    .finalize()
                    .into();
                assert_eq!(begun.hash([value]), expected);
                let (left, right) = value.split_at(value.len() / 3);
                assert_eq!(begun.hash([left, right]), expected);
            }
        }
    }

    #[test]
    fn every_byte_has_its_two_digits() {
        for first in (0..=252).step_by(4) {
            let four = [first, first + 1, first + 2, first + 3];
            let expected: String = four.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex(four), expected.as_bytes());
        }
    }
}
