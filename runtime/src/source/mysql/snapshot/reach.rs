//! How far rows may be that were read from tables: a place that holds every transaction which a SELECT can have shown.
//!
//! A SELECT may show a transaction that the server does not count as executed yet: MySQL lets go of a GTID only behind the
//! engine's commit. So those that are on their way count too, as in the end of MariaDB's binlog they do. One that is
//! rolled back makes a place that no server ever holds, which costs a load and no row.
//!
//! The session is opened before the first of the SELECTs, and is never renewed behind one: a server that has come back
//! with less than it had would name a place without what was read. It cannot come back without breaking the connection.

use super::super::position::{GtidSet, Position};
use super::super::wire::WireConn;
use super::super::{Flavor, Source};
use super::boundary::ensure_same_server;
use crate::error::Result;

/// A session that asks for the place.
#[derive(Debug)]
pub struct Reach {
    conn: WireConn,
    flavor: Flavor,
}

impl Reach {
    /// Connects; none where transactions have no GTIDs, by which alone another server can be asked for them.
    ///
    /// # Errors
    /// `SourceUnavailable` where another server answers than the one that is connected; as [`WireConn::connect`].
    pub async fn open(source: &Source) -> Result<Option<Self>> {
        if !source.has_gtid() {
            return Ok(None);
        }
        let mut conn = WireConn::connect(source.config()).await?;
        ensure_same_server(&mut conn, source).await?;
        let flavor = source.flavor();
        Ok(Some(Self { conn, flavor }))
    }

    /// The place by now.
    ///
    /// # Errors
    /// A broken connection.
    pub async fn now(&mut self) -> Result<Position> {
        match self.flavor {
            Flavor::MySql => {
                // In this order: one that is on its way no more has been executed.
                let on_their_way = self.value("SELECT @@GLOBAL.gtid_owned").await?;
                let executed = self.value("SELECT @@GLOBAL.gtid_executed").await?;
                let mut set: GtidSet = executed.parse()?;
                set.extend(&without_owners(&on_their_way).parse()?);
                Ok(Position::Gtid { set })
            }
            Flavor::MariaDb => {
                let end = self.value("SELECT @@GLOBAL.gtid_binlog_pos").await?;
                Ok(Position::MariaGtid { list: end.parse()? })
            }
        }
    }

    async fn value(&mut self, sql: &str) -> Result<String> {
        Ok(self.conn.query_value(sql).await?.unwrap_or_default())
    }
}

/// The set that `gtid_owned` names: each number is followed by the threads that have it, as in `uuid:5#12:6#13`.
fn without_owners(owned: &str) -> String {
    let mut in_owner = false;
    let mut set = String::with_capacity(owned.len());
    for character in owned.chars() {
        in_owner = character == '#' || (in_owner && character.is_ascii_digit());
        if !in_owner {
            set.push(character);
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_on_their_way_are_told_without_who_has_them() {
        let owned = "3e11fa47-71ca-11e1-9e33-c80aa9429562:5#12:6#13#14,\n\
                     3e11fa47-71ca-11e1-9e33-c80aa9429562:tag_a:1#7";
        let set: GtidSet = without_owners(owned).parse().expect("a set");
        let expected = "3e11fa47-71ca-11e1-9e33-c80aa9429562:5-6:tag_a:1";
        assert_eq!(set, expected.parse().expect("a set"));
        let none: GtidSet = without_owners("").parse().expect("a set");
        assert!(none.is_empty());
    }
}
