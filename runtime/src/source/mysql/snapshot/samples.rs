//! Aims between texts whose order only the server knows.
//!
//! Collations of the East Asian charsets sort by pinyin, strokes or codes, those of single bytes by alphabet. So some
//! characters of the column's charset, behind what both ends of a range have in common, are sorted by the server in the
//! column's own collation, and the middle one is the aim. As every aim it costs balance where it misses, never rows.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::super::connection::query_error;
use super::key_space::Alphabet;
use crate::error::Result;

/// Enough to halve a range several times, few enough for one short statement.
const SAMPLES: usize = 200;

/// A literal between two keys, about `part` of `parts` on the way; none where no sample lies between them, or where the
/// order is known without asking.
///
/// # Errors
/// A broken connection; a server that will not sort gives none.
pub(super) async fn aim(
    conn: &mut Conn,
    alphabet: &Alphabet,
    first: &[u8],
    last: &[u8],
    (part, parts): (u32, u32),
) -> Result<Option<String>> {
    if !alphabet.is_sampled(first, last) {
        return Ok(None);
    }
    let Some(collation) = alphabet.collation() else {
        return Ok(None);
    };
    for keys in [
        candidates(alphabet, first, last, 0),
        candidates(alphabet, first, last, 1),
    ] {
        if keys.is_empty() {
            continue;
        }
        let each: Vec<String> = keys
            .iter()
            .map(|key| format!("SELECT {} AS c", alphabet.literal(key)))
            .collect();
        let sql = format!(
            "SELECT CAST(c AS BINARY) FROM ({}) AS samples \
             WHERE c COLLATE {collation} > {} AND c COLLATE {collation} <= {} ORDER BY c COLLATE {collation}",
            each.join(" UNION ALL "),
            alphabet.literal(first),
            alphabet.literal(last),
        );
        let between: Vec<Vec<u8>> = match conn.query(sql).await {
            Ok(between) => between,
            Err(mysql_async::Error::Server(error)) => {
                tracing::debug!(code = error.code, "the server does not sort samples");
                return Ok(None);
            }
            Err(error) => return Err(query_error(error)),
        };
        let index = between.len() as u64 * u64::from(part) / u64::from(parts.max(1));
        let key = usize::try_from(index)
            .ok()
            .and_then(|index| between.get(index));
        if let Some(key) = key {
            return Ok(Some(alphabet.literal(key)));
        }
    }
    Ok(None)
}

/// What both keys begin with, `deeper` characters more of the first, and each sample behind it.
fn candidates(alphabet: &Alphabet, first: &[u8], last: &[u8], deeper: usize) -> Vec<Vec<u8>> {
    let Some(charset) = alphabet.charset() else {
        return Vec::new();
    };
    let (first, last) = (charset.characters(first), charset.characters(last));
    let common = first
        .iter()
        .zip(&last)
        .take_while(|(one, other)| one == other)
        .count();
    let Some(front) = first.get(..common + deeper) else {
        return Vec::new();
    };
    let front = front.concat();
    let plain = (b' '..=b'~').step_by(6).map(|byte| vec![byte]);
    plain
        .chain(charset.samples(SAMPLES))
        .map(|sample| [front.as_slice(), &sample].concat())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_go_on_where_both_keys_part() {
        let alphabet = Alphabet::new(None, "gbk");
        let (first, last) = (b"x\xb0\xa1a", b"x\xd2\xbb");
        let keys = candidates(&alphabet, first, last, 0);
        assert!(keys.len() > 100);
        assert!(
            keys.iter()
                .all(|key| key.starts_with(b"x") && key.len() <= 3)
        );
        let deeper = candidates(&alphabet, first, last, 1);
        assert!(deeper.iter().all(|key| key.starts_with(b"x\xb0\xa1")));
        assert!(candidates(&alphabet, b"x", b"xy", 1).is_empty());
    }
}
