//! MariaDB's GTID list: the last transaction of every domain.
//!
//! Within a domain sequence numbers grow in binlog order, whichever server wrote them, so one entry a domain says all:
//! the newest, also after a failover to another server id (pitfall 80).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// One MariaDB transaction: `domain-server-sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MariaGtid {
    /// The replication domain.
    pub domain: u32,
    /// The server that wrote it first.
    pub server: u32,
    /// Its number within the domain.
    pub sequence: u64,
}

/// The last transaction of every domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GtidList {
    domains: BTreeMap<u32, (u32, u64)>,
}

impl GtidList {
    /// Takes `gtid` up; an older one than the domain's entry changes nothing.
    pub fn add(&mut self, gtid: MariaGtid) {
        let entry = self.domains.entry(gtid.domain).or_insert((gtid.server, 0));
        if gtid.sequence >= entry.1 {
            *entry = (gtid.server, gtid.sequence);
        }
    }

    /// Whether the transaction lies at or before this place.
    pub fn contains(&self, gtid: MariaGtid) -> bool {
        self.domains
            .get(&gtid.domain)
            .is_some_and(|&(_, sequence)| sequence >= gtid.sequence)
    }

    /// Whether every domain of `other` lies at or before this place. At, too: an idle domain stays equal (pitfall 79).
    pub fn contains_list(&self, other: &GtidList) -> bool {
        other.iter().all(|gtid| self.contains(gtid))
    }

    /// The entries of this list that lie behind `other`, or in domains that it does not know.
    #[must_use]
    pub fn difference(&self, other: &GtidList) -> GtidList {
        let mut rest = GtidList::default();
        for gtid in self.iter().filter(|gtid| !other.contains(*gtid)) {
            rest.add(gtid);
        }
        rest
    }

    /// The entries in the order of their domains.
    pub fn iter(&self) -> impl Iterator<Item = MariaGtid> + '_ {
        self.domains
            .iter()
            .map(|(&domain, &(server, sequence))| MariaGtid {
                domain,
                server,
                sequence,
            })
    }

    /// Whether nothing has been seen.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }
}

/// What a server's binlog holds: `gtid_binlog_state`, the newest transaction of every server in every domain.
///
/// Only this tells whether a server has a transaction: within a domain it may hold higher numbers of another server, which
/// went on without ours after a failover. But a replica that began with a backup holds what that had, by its
/// `gtid_slave_pos`, and its binlog has nothing of a domain in which nothing has happened since. The server itself lets
/// whoever is exactly there go on (sql_repl.cc, `check_slave_start_position`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BinlogState {
    newest: BTreeMap<(u32, u32), u64>,
    received: GtidList,
}

impl BinlogState {
    /// Reads `@@gtid_binlog_state` and `@@gtid_slave_pos`.
    ///
    /// # Errors
    /// `SourceCorrupt` for text that is none.
    pub fn parse(state: &str, received: &str) -> Result<Self, Error> {
        let mut newest = BTreeMap::new();
        for gtid in entries(state) {
            let gtid = gtid?;
            let entry = newest.entry((gtid.domain, gtid.server)).or_insert(0);
            *entry = gtid.sequence.max(*entry);
        }
        Ok(Self {
            newest,
            received: received.parse()?,
        })
    }

    /// The entries of `list` that the server does not hold.
    pub fn lacks(&self, list: &GtidList) -> GtidList {
        let mut rest = GtidList::default();
        for gtid in list.iter() {
            let newest = self.newest.get(&(gtid.domain, gtid.server));
            let is_logged = newest.is_some_and(|newest| *newest >= gtid.sequence);
            if !is_logged && !self.received.iter().any(|received| received == gtid) {
                rest.add(gtid);
            }
        }
        rest
    }
}

impl fmt::Display for MariaGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

impl fmt::Display for GtidList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, gtid) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            gtid.fmt(f)?;
        }
        Ok(())
    }
}

impl FromStr for GtidList {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut list = GtidList::default();
        for gtid in entries(text) {
            list.add(gtid?);
        }
        Ok(list)
    }
}

fn entries(text: &str) -> impl Iterator<Item = Result<MariaGtid, Error>> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|entry| {
            parse_gtid(entry).ok_or_else(|| {
                Error::new(
                    ErrorKind::SourceCorrupt,
                    format!("`{entry}` is no MariaDB GTID"),
                )
            })
        })
}

fn parse_gtid(text: &str) -> Option<MariaGtid> {
    let mut parts = text.split('-');
    let gtid = MariaGtid {
        domain: parts.next()?.parse().ok()?,
        server: parts.next()?.parse().ok()?,
        sequence: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(gtid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> GtidList {
        text.parse().unwrap()
    }

    #[test]
    fn the_newest_sequence_wins_whichever_server_wrote_it() {
        let mut after = list("0-1-14,1-1-3");
        after.add(MariaGtid {
            domain: 0,
            server: 2,
            sequence: 15,
        });
        after.add(MariaGtid {
            domain: 1,
            server: 9,
            sequence: 2,
        });
        assert_eq!(after.to_string(), "0-2-15,1-1-3");
    }

    #[test]
    fn a_list_contains_another_when_every_domain_is_as_far() {
        assert!(list("0-1-14,1-1-3").contains_list(&list("0-2-14")));
        assert!(list("0-1-14").contains_list(&list("")));
        assert!(!list("0-1-14").contains_list(&list("0-1-15")));
        assert!(!list("0-1-14").contains_list(&list("0-1-3,1-1-1")));
        assert_eq!(
            list("0-1-15,1-1-3,2-1-1").difference(&list("0-1-14,0-2-12,1-1-3")),
            list("0-1-15,2-1-1")
        );
    }

    /// pitfall 80
    #[test]
    fn a_binlog_holds_a_transaction_only_when_its_own_server_got_so_far() {
        let state = BinlogState::parse("0-1-50,0-2-53,1-1-3", "0-1-49,5-3-9").unwrap();
        for held in ["0-1-50", "0-1-7,1-1-3", "0-2-53", ""] {
            assert!(state.lacks(&list(held)).is_empty(), "{held}");
        }
        assert_eq!(state.lacks(&list("0-1-52,1-1-3")), list("0-1-52"));
        assert_eq!(state.lacks(&list("0-2-53,7-1-1")), list("7-1-1"));
        // What a backup had: exactly that, and what is before it has no binlog here.
        assert!(state.lacks(&list("5-3-9")).is_empty());
        for other in ["5-3-8", "5-3-10", "5-1-9"] {
            assert_eq!(state.lacks(&list(other)), list(other));
        }
    }

    #[test]
    fn text_that_is_no_gtid_list_is_refused() {
        for text in ["0-1", "0-1-2-3", "a-1-2", "0-1-2;1-1-1"] {
            assert!(text.parse::<GtidList>().is_err(), "{text}");
        }
        assert!(list(" ").is_empty());
    }
}
