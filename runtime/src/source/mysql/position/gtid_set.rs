//! MySQL's GTID set: for every server, and every tag of it, the intervals of transactions seen.
//!
//! Sets have gaps on servers that apply in parallel, and servers have no order among each other (pitfall 59), so a place
//! is the whole set and is compared by containment. The text form is the server's: `uuid:1-5:7:tag:1-3,uuid:1`, with the
//! white space that `@@gtid_executed` prints allowed on the way in (pitfall 58).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// The longest tag that MySQL allows.
const TAG_LENGTH_MAX: usize = 32;

/// One MySQL transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gtid {
    /// The server that wrote it first.
    pub uuid: [u8; 16],
    /// Its tag; empty for none.
    pub tag: String,
    /// Its number.
    pub number: u64,
}

/// A set of MySQL transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GtidSet {
    /// By server and tag; the empty tag sorts first, as the server prints it. No entry is empty.
    entries: BTreeMap<([u8; 16], String), Intervals>,
}

/// Sorted inclusive intervals with at least one missing number between neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Intervals(Vec<(u64, u64)>);

impl GtidSet {
    /// Adds one transaction.
    pub fn add(&mut self, uuid: [u8; 16], tag: &str, number: u64) {
        // An empty tag does not allocate.
        let key = (uuid, tag.to_owned());
        self.entries.entry(key).or_default().add(number, number);
    }

    /// Whether the transaction is in the set.
    pub fn contains(&self, gtid: &Gtid) -> bool {
        self.entries
            .get(&(gtid.uuid, gtid.tag.clone()))
            .is_some_and(|intervals| intervals.contains(gtid.number, gtid.number))
    }

    /// Whether every transaction of `other` is in this set.
    pub fn contains_set(&self, other: &GtidSet) -> bool {
        other.entries.iter().all(|(key, theirs)| {
            self.entries.get(key).is_some_and(|ours| {
                theirs
                    .0
                    .iter()
                    .all(|&(first, last)| ours.contains(first, last))
            })
        })
    }

    /// Adds every transaction of `other`.
    pub fn extend(&mut self, other: &GtidSet) {
        for (key, theirs) in &other.entries {
            let ours = self.entries.entry(key.clone()).or_default();
            for &(first, last) in &theirs.0 {
                ours.add(first, last);
            }
        }
    }

    /// What this set has and `other` has not.
    #[must_use]
    pub fn difference(&self, other: &GtidSet) -> GtidSet {
        let mut rest = GtidSet::default();
        for (key, ours) in &self.entries {
            let left = match other.entries.get(key) {
                Some(theirs) => ours.without(theirs),
                None => ours.clone(),
            };
            if !left.0.is_empty() {
                rest.entries.insert(key.clone(), left);
            }
        }
        rest
    }

    /// Whether the set holds nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Server, tag (empty for none) and inclusive intervals, in the order of the text form.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8; 16], &str, &[(u64, u64)])> {
        self.entries
            .iter()
            .map(|((uuid, tag), intervals)| (uuid, tag.as_str(), intervals.0.as_slice()))
    }
}

impl Intervals {
    fn contains(&self, first: u64, last: u64) -> bool {
        let after = self.0.partition_point(|&(start, _)| start <= first);
        after
            .checked_sub(1)
            .and_then(|index| self.0.get(index))
            .is_some_and(|&(_, end)| end >= last)
    }

    fn add(&mut self, first: u64, last: u64) {
        // Nearly always the next number of the last interval.
        if let Some(end) = self.0.last_mut()
            && end.0 <= first
            && first <= end.1.saturating_add(1)
        {
            end.1 = end.1.max(last);
            return;
        }
        // Those that overlap or touch [first, last] are replaced by one that covers them.
        let from = self
            .0
            .partition_point(|&(_, end)| end.saturating_add(1) < first);
        let to = self
            .0
            .partition_point(|&(start, _)| start <= last.saturating_add(1));
        let mut merged = (first, last);
        for &(start, end) in self.0.get(from..to).unwrap_or_default() {
            merged = (merged.0.min(start), merged.1.max(end));
        }
        self.0.splice(from..to.max(from), [merged]);
    }

    fn without(&self, other: &Intervals) -> Intervals {
        let mut left = Vec::new();
        for &(mut first, last) in &self.0 {
            let mut open = true;
            for &(start, end) in &other.0 {
                if end < first {
                    continue;
                }
                if start > last {
                    break;
                }
                if start > first {
                    left.push((first, start - 1));
                }
                if end >= last {
                    open = false;
                    break;
                }
                first = end + 1;
            }
            if open {
                left.push((first, last));
            }
        }
        Intervals(left)
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut previous: Option<&[u8; 16]> = None;
        for ((uuid, tag), intervals) in &self.entries {
            if previous != Some(uuid) {
                if previous.is_some() {
                    f.write_str(",")?;
                }
                write_uuid(f, uuid)?;
                previous = Some(uuid);
            }
            if !tag.is_empty() {
                write!(f, ":{tag}")?;
            }
            for &(first, last) in &intervals.0 {
                if first == last {
                    write!(f, ":{first}")?;
                } else {
                    write!(f, ":{first}-{last}")?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut set = GtidSet::default();
        for server in text.split(',') {
            let server: String = server.chars().filter(|c| !c.is_whitespace()).collect();
            if server.is_empty() {
                continue;
            }
            parse_server(&server, &mut set).ok_or_else(|| {
                Error::new(
                    ErrorKind::SourceCorrupt,
                    format!("`{server}` is no MySQL GTID set"),
                )
            })?;
        }
        Ok(set)
    }
}

/// `uuid[:interval...][:tag:interval...]...`
fn parse_server(text: &str, set: &mut GtidSet) -> Option<()> {
    let mut parts = text.split(':');
    let uuid = parse_uuid(parts.next()?)?;
    let mut tag = String::new();
    for part in parts {
        if part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            tag = parse_tag(part)?;
            continue;
        }
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
            None => {
                let number = part.parse().ok()?;
                (number, number)
            }
        };
        if first == 0 || last < first {
            return None;
        }
        set.entries
            .entry((uuid, tag.clone()))
            .or_default()
            .add(first, last);
    }
    Some(())
}

fn parse_tag(text: &str) -> Option<String> {
    let fits = text.len() <= TAG_LENGTH_MAX
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    fits.then(|| text.to_ascii_lowercase())
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut digits = text.bytes().filter(|byte| *byte != b'-');
    let mut uuid = [0; 16];
    for byte in &mut uuid {
        let high = char::from(digits.next()?).to_digit(16)?;
        let low = char::from(digits.next()?).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    digits.next().is_none().then_some(uuid)
}

fn write_uuid(f: &mut fmt::Formatter<'_>, uuid: &[u8; 16]) -> fmt::Result {
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "gtid_set_tests.rs"]
mod tests;
