//! Places in a binlog: GTID sets, GTID lists, and file with offset.
//!
//! A place means "everything up to here has been seen", so places of one kind are compared by what they contain and
//! never by text: a GTID set may have gaps and its servers no order (pitfall 59), a GTID list has one entry a domain
//! (pitfall 80), and a file's number grows a digit after 999999 (pitfall 50).

mod gtid_list;
mod gtid_set;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use gtid_list::{BinlogState, GtidList, MariaGtid};
pub use gtid_set::{Gtid, GtidSet};

use super::ServerIdentity;
use crate::error::Error;

/// A place in the source's binlog: everything up to it has been seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Position {
    /// MySQL's executed GTID set, tagged ones included.
    Gtid {
        /// As MySQL prints it.
        #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
        set: GtidSet,
    },
    /// MariaDB's last GTID of every domain.
    MariaGtid {
        /// As MariaDB prints it: `0-1-14,1-1-3`.
        #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
        list: GtidList,
    },
    /// File and offset, which mean something on one server only.
    File {
        /// The server whose file it is.
        server: ServerIdentity,
        /// The file's name.
        file: String,
        /// The byte after the last event seen.
        offset: u64,
        /// The timestamp of the file's format event, since RESET makes the same name again; 0 when not yet known.
        created: u32,
    },
}

/// What the server calls one group of its binlog, a transaction or a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupGtid {
    /// Nothing.
    None,
    /// MySQL's name.
    MySql(Gtid),
    /// MariaDB's name.
    Maria(MariaGtid),
}

impl GroupGtid {
    /// As the server prints it; none for a group without a name.
    pub fn text(&self) -> Option<String> {
        match self {
            GroupGtid::None => None,
            GroupGtid::MySql(gtid) => {
                let mut set = GtidSet::default();
                set.add(gtid.uuid, &gtid.tag, gtid.number);
                Some(set.to_string())
            }
            GroupGtid::Maria(gtid) => Some(gtid.to_string()),
        }
    }
}

/// A place, and the stream offset there: what a stream needs to go on and to give the same versions again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPlace {
    /// The place.
    pub position: Position,
    /// The stream offset of DESIGN §7 at that place, within the present term.
    pub offset: u64,
}

impl Position {
    /// Whether this place has passed `other`, or is the same. None where the two cannot be compared: another kind,
    /// another server's files, a file made again by RESET, or a file of another base name.
    pub fn contains(&self, other: &Position) -> Option<bool> {
        match (self, other) {
            (Position::Gtid { set }, Position::Gtid { set: other }) => {
                Some(set.contains_set(other))
            }
            (Position::MariaGtid { list }, Position::MariaGtid { list: other }) => {
                Some(list.contains_list(other))
            }
            (
                Position::File {
                    server,
                    file,
                    offset,
                    created,
                },
                Position::File {
                    server: other_server,
                    file: other_file,
                    offset: other_offset,
                    created: other_created,
                },
            ) => {
                let (base, number) = split_file_name(file)?;
                let (other_base, other_number) = split_file_name(other_file)?;
                let made_again = number == other_number
                    && *created != 0
                    && *other_created != 0
                    && created != other_created;
                (server == other_server && base == other_base && !made_again)
                    .then(|| (number, offset) >= (other_number, other_offset))
            }
            (Position::Gtid { .. } | Position::MariaGtid { .. } | Position::File { .. }, _) => None,
        }
    }

    /// The place that has passed both; none where the two cannot be compared.
    pub fn join(&self, other: &Position) -> Option<Position> {
        if self.contains(other)? {
            return Some(self.clone());
        }
        Some(match (self, other) {
            (Position::Gtid { set }, Position::Gtid { set: other }) => {
                let mut set = set.clone();
                set.extend(other);
                Position::Gtid { set }
            }
            (Position::MariaGtid { list }, Position::MariaGtid { list: other }) => {
                let mut list = list.clone();
                other.iter().for_each(|gtid| list.add(gtid));
                Position::MariaGtid { list }
            }
            // Of two places in files one has passed the other.
            _ => other.clone(),
        })
    }

    /// Whether the group is before this place; none where its name does not tell.
    pub fn has(&self, group: &GroupGtid) -> Option<bool> {
        match (self, group) {
            (Position::Gtid { set }, GroupGtid::MySql(gtid)) => Some(set.contains(gtid)),
            (Position::MariaGtid { list }, GroupGtid::Maria(gtid)) => Some(list.contains(*gtid)),
            (Position::Gtid { .. } | Position::MariaGtid { .. } | Position::File { .. }, _) => None,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Gtid { set } => set.fmt(f),
            Position::MariaGtid { list } => list.fmt(f),
            Position::File { file, offset, .. } => write!(f, "{file}:{offset}"),
        }
    }
}

/// The name before the number, and the number: `binlog.000012` is (`binlog`, 12).
pub(super) fn split_file_name(file: &str) -> Option<(&str, u64)> {
    let (base, number) = file.rsplit_once('.')?;
    Some((base, number.parse().ok()?))
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn from_text<'de, T: FromStr<Err = Error>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, offset: u64, created: u32) -> Position {
        Position::File {
            server: ServerIdentity("a".into()),
            file: name.into(),
            offset,
            created,
        }
    }

    #[test]
    fn file_names_are_compared_by_number_not_by_text() {
        let before = file("binlog.999999", 500, 0);
        let after = file("binlog.1000000", 4, 0);
        assert_eq!(after.contains(&before), Some(true));
        assert_eq!(before.contains(&after), Some(false));
        assert_eq!(before.contains(&before), Some(true));
        assert_eq!(before.contains(&file("binlog.999999", 501, 0)), Some(false));
    }

    #[test]
    fn a_place_that_has_passed_both_of_two_has_what_either_has() {
        let maria = |text: &str| Position::MariaGtid {
            list: text.parse().unwrap(),
        };
        let both = maria("0-1-100,1-1-40").join(&maria("0-1-90,1-1-60"));
        assert_eq!(both, Some(maria("0-1-100,1-1-60")));
        let mysql = |text: &str| Position::Gtid {
            set: format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{text}")
                .parse()
                .unwrap(),
        };
        let both = mysql("1-3:7-9").join(&mysql("1-5"));
        assert_eq!(both, Some(mysql("1-5:7-9")));
        let (before, after) = (file("binlog.9", 500, 0), file("binlog.10", 4, 0));
        assert_eq!(before.join(&after), Some(after.clone()));
        assert_eq!(after.join(&before), Some(after.clone()));
        assert_eq!(after.join(&mysql("1-5")), None);
    }

    #[test]
    fn places_of_different_kinds_servers_or_lives_of_a_file_are_not_comparable() {
        let here = file("binlog.000001", 500, 7);
        let gtid = Position::Gtid {
            set: GtidSet::default(),
        };
        let mut elsewhere = here.clone();
        if let Position::File { server, .. } = &mut elsewhere {
            *server = ServerIdentity("b".into());
        }
        assert_eq!(here.contains(&gtid), None);
        assert_eq!(here.contains(&elsewhere), None);
        assert_eq!(here.contains(&file("binlog.000001", 4, 8)), None);
        assert_eq!(here.contains(&file("binlog.000001", 4, 0)), Some(true));
        assert_eq!(here.contains(&file("mysql-bin.000001", 4, 7)), None);
    }

    #[test]
    fn a_place_is_stored_as_the_servers_own_text() {
        let place = StreamPlace {
            position: Position::Gtid {
                set: "3E11FA47-71CA-11E1-9E33-C80AA9429562:1-5:7:tag_a:1-3"
                    .parse()
                    .unwrap(),
            },
            offset: 12,
        };
        let json = serde_json::to_string(&place).unwrap();
        assert_eq!(
            json,
            r#"{"position":{"kind":"gtid","set":"3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7:tag_a:1-3"},"offset":12}"#
        );
        assert_eq!(serde_json::from_str::<StreamPlace>(&json).unwrap(), place);
        let list = Position::MariaGtid {
            list: "1-2-3,0-1-14".parse().unwrap(),
        };
        assert_eq!(
            serde_json::to_string(&list).unwrap(),
            r#"{"kind":"maria_gtid","list":"0-1-14,1-2-3"}"#
        );
    }
}
