//! What a source knows of its replicas, ourselves among them: each has a number, which no two may share.

use mysql_async::Conn;

use super::preflight::ask;
use super::{Flavor, ServerVersion, Source};
use crate::error::Result;

/// More than this the registration of a replica takes on no server.
const HOST_BYTES: usize = 60;

/// The host by whose name a source lists the streams of a pipe.
pub fn reported_host(pipe: &str) -> String {
    let mut host = format!("pipewright/{pipe}");
    let mut end = HOST_BYTES.min(host.len());
    while !host.is_char_boundary(end) {
        end -= 1;
    }
    host.truncate(end);
    host
}

/// A replica that is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its number.
    pub server_id: u32,
    /// The host that it calls itself.
    pub host: String,
}

impl Source {
    /// The statement that lists the replicas. On MySQL it takes exactly the privilege that reading the binlog takes, on
    /// MariaDB another one.
    pub(super) fn replicas_sql(&self) -> &'static str {
        match self.flavor() {
            Flavor::MySql if self.version() >= ServerVersion(8, 0, 22) => "SHOW REPLICAS",
            Flavor::MySql | Flavor::MariaDb => "SHOW SLAVE HOSTS",
        }
    }

    /// The replicas that are connected; none where the account may not ask.
    ///
    /// # Errors
    /// A broken connection.
    pub async fn replicas(&self, conn: &mut Conn) -> Result<Option<Vec<Registered>>> {
        let rows = ask(conn, self.replicas_sql()).await?;
        Ok(rows.map(|rows| rows.into_iter().filter_map(registered).collect()))
    }
}

fn registered(row: Vec<Option<String>>) -> Option<Registered> {
    let mut cells = row.into_iter();
    Some(Registered {
        server_id: cells.next()??.parse().ok()?,
        host: cells.next().flatten().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_of_a_pipe_is_cut_between_its_characters() {
        assert_eq!(reported_host("shop"), "pipewright/shop");
        let long = reported_host(&"é".repeat(40));
        assert!(long.len() <= HOST_BYTES && long.ends_with('é'), "{long}");
    }

    #[test]
    fn a_row_of_the_list_is_read_as_either_server_writes_it() {
        let row = |cells: &[&str]| cells.iter().map(|cell| Some((*cell).to_owned())).collect();
        let expected = Registered {
            server_id: 4242,
            host: "pipewright/shop".to_owned(),
        };
        for cells in [
            &["4242", "pipewright/shop", "0", "1", "70697065-7772"][..],
            &["4242", "pipewright/shop", "0", "1"],
        ] {
            assert_eq!(registered(row(cells)), Some(expected.clone()));
        }
    }
}
