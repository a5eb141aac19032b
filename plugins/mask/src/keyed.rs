//! What needs a key: HMAC-SHA-256 (RFC 2104), and tokens that keep a value's form.
//!
//! A token is made by a Feistel network over the value's ASCII letters and digits: each round adds, place by place and
//! within the place's own alphabet, what HMAC makes of the other half and of the form. Every round can be undone, so two
//! values of one form never get one token, and joins and counts of distinct values stay what they were. It is the
//! construction of format-preserving encryption, not one of its standards: it hides, it is no vault.

use crate::hash::Begun;

/// A key, ready for messages: the states after its two blocks.
#[derive(Clone, Debug)]
pub struct Keyed {
    inner: Begun,
    outer: Begun,
}

const BLOCK: usize = 64;

impl Keyed {
    pub(crate) fn new(key: &[u8]) -> Self {
        let mut block = [0; BLOCK];
        if key.len() > BLOCK {
            block[..32].copy_from_slice(&Begun::new(key).hash([]));
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        Self {
            inner: Begun::new(&block.map(|byte| byte ^ 0x36)),
            outer: Begun::new(&block.map(|byte| byte ^ 0x5c)),
        }
    }

    /// HMAC of the parts, one after the other.
    pub(crate) fn hash<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
        self.outer.hash([&self.inner.hash(parts)[..]])
    }
}

/// Rounds of the network; four would do for secrecy, eight leave room.
const ROUNDS: u8 = 8;

/// Room that is used again for each value.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    /// The value with a sign of its alphabet in each place that is replaced.
    form: Vec<u8>,
    /// Where the letters and digits stand.
    places: Vec<usize>,
    /// Each as a number within its alphabet.
    numbers: Vec<u8>,
}

/// The first sign of a place's alphabet, and how many it has; none: the place is kept.
fn alphabet(byte: u8) -> Option<(u8, u16)> {
    match byte {
        b'0'..=b'9' => Some((b'0', 10)),
        b'a'..=b'z' => Some((b'a', 26)),
        b'A'..=b'Z' => Some((b'A', 26)),
        _ => None,
    }
}

impl Tokens {
    /// Appends the token of `value`: a digit for a digit, a small letter for a small letter, all else as it is.
    pub(crate) fn write_token(&mut self, key: &Keyed, value: &[u8], out: &mut Vec<u8>) {
        self.form.clear();
        self.places.clear();
        self.numbers.clear();
        for (place, byte) in value.iter().enumerate() {
            match alphabet(*byte) {
                Some((first, _)) => {
                    self.form.push(first);
                    self.places.push(place);
                    self.numbers.push(byte - first);
                }
                None => self.form.push(*byte),
            }
        }
        let half = self.places.len() / 2;
        for round in 0..ROUNDS {
            let (left, right) = self.numbers.split_at_mut(half);
            let (changed, other, first) = if round % 2 == 0 {
                (right, &*left, half)
            } else {
                (left, &*right, 0)
            };
            let places = &self.places[first..first + changed.len()];
            // Of the whole once a round, so that the work grows as the value does.
            let seed = key.hash([&[round, 0, 0][..], &self.form, b"\0", other]);
            let chunks = changed.chunks_mut(16).zip(places.chunks(16));
            for (chunk, (numbers, places)) in (0_u32..).zip(chunks) {
                let stream = match chunk {
                    0 => seed,
                    _ => key.hash([&[round, 1][..], &chunk.to_le_bytes(), &seed]),
                };
                let pairs = stream.as_chunks::<2>().0;
                for ((number, place), pair) in numbers.iter_mut().zip(places).zip(pairs) {
                    let (_, radix) = alphabet(self.form[*place]).unwrap_or((0, 1));
                    let sum = u32::from(*number) + u32::from(u16::from_le_bytes(*pair));
                    *number = (sum % u32::from(radix)).to_le_bytes()[0];
                }
            }
        }
        let start = out.len();
        out.extend_from_slice(&self.form);
        for (place, number) in self.places.iter().zip(&self.numbers) {
            out[start + place] += number;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn token(key: &str, value: &str) -> String {
        let mut out = Vec::new();
        Tokens::default().write_token(&Keyed::new(key.as_bytes()), value.as_bytes(), &mut out);
        String::from_utf8(out).expect("letters and digits stay such")
    }

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let hash = Keyed::new(b"Jefe").hash([&b"what do ya want "[..], b"for nothing?"]);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let hash = Keyed::new(&[0xaa; 131])
            .hash([&b"Test Using Larger Than Block-Size Key - Hash Key First"[..]]);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn a_token_has_the_form_of_its_value_and_depends_on_the_key() {
        let value = "Zoë-4929 1234/x@example.com";
        let first = token("0123456789abcdef", value);
        assert_eq!(first, token("0123456789abcdef", value));
        assert_ne!(first, token("0123456789abcdeg", value));
        assert_ne!(first, value);
        let form = |text: &str| -> Vec<u8> {
            text.bytes()
                .map(|byte| alphabet(byte).map_or(byte, |(first, _)| first))
                .collect()
        };
        assert_eq!(form(&first), form(value));
        assert_eq!(token("0123456789abcdef", ""), "");
    }

    #[test]
    fn no_two_values_of_one_form_share_a_token() {
        let tokens: HashSet<String> = (0..10_000)
            .map(|number| token("0123456789abcdef", &format!("{number:04}")))
            .collect();
        assert_eq!(tokens.len(), 10_000);
        let long: HashSet<String> = (0..100)
            .map(|number| token("0123456789abcdef", &format!("{number:080}")))
            .collect();
        assert_eq!(long.len(), 100);
    }
}
