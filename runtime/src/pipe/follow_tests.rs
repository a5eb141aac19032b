//! What of the stream is passed over for a table that stands ahead of it.

use super::*;
use crate::source::mysql::ServerIdentity;
use crate::source::mysql::position::{Gtid, GtidSet, MariaGtid};

fn table() -> TableName {
    TableName::new("shop", "log")
}

/// Whether each group is passed over for a table at `place`: by its name and the stream's place behind it.
fn passed_over(place: Position, groups: &[(GroupGtid, Position)]) -> Vec<bool> {
    let mut passed = Passed::of([(table(), Some(place))]);
    let met = groups.iter().map(|(group, end)| {
        passed.meet(group, end);
        passed.contains(&table())
    });
    met.collect()
}

const SERVERS: [&str; 2] = [
    "3e11fa47-71ca-11e1-9e33-c80aa9429561",
    "3e11fa47-71ca-11e1-9e33-c80aa9429562",
];

/// The first so many transactions of each server.
fn mysql(first: u64, second: u64) -> Position {
    let [one, other] = SERVERS;
    let text = format!("{one}:1-{first},{other}:1-{second}");
    Position::Gtid {
        set: text.parse().expect("a GTID set"),
    }
}

fn of_mysql(server: usize, number: u64) -> GroupGtid {
    let text = format!("{}:{number}", SERVERS[server]);
    let set: GtidSet = text.parse().expect("a GTID set");
    let (uuid, ..) = set.iter().next().expect("one server");
    GroupGtid::MySql(Gtid {
        uuid: *uuid,
        tag: String::new(),
        number,
    })
}

/// A replica may commit a transaction of one server, or of one domain, before the load's and another behind it.
#[test]
fn a_transaction_of_before_the_load_is_passed_over_behind_one_that_came_after_it() {
    let met = [
        (of_mysql(0, 9), mysql(9, 5)),
        (of_mysql(1, 6), mysql(9, 6)),
        (of_mysql(0, 10), mysql(10, 6)),
        (of_mysql(0, 11), mysql(11, 6)),
    ];
    let expected = [true, false, true, false];
    assert_eq!(passed_over(mysql(10, 5), &met), expected);

    let maria = |first: u64, second: u64| Position::MariaGtid {
        list: format!("0-1-{first},7-1-{second}").parse().expect("a list"),
    };
    let of_maria = |domain, sequence| {
        GroupGtid::Maria(MariaGtid {
            domain,
            server: 1,
            sequence,
        })
    };
    let met = [
        (of_maria(0, 9), maria(9, 5)),
        (of_maria(7, 6), maria(9, 6)),
        (of_maria(0, 10), maria(10, 6)),
        (of_maria(0, 11), maria(11, 6)),
    ];
    assert_eq!(passed_over(maria(10, 5), &met), expected);
}

#[test]
fn by_file_the_end_of_a_group_tells_what_is_passed_over() {
    let file = |offset| Position::File {
        server: ServerIdentity("a".into()),
        file: "binlog.000001".into(),
        offset,
        created: 0,
    };
    let met = [200, 300, 301].map(|end| (GroupGtid::None, file(end)));
    assert_eq!(passed_over(file(300), &met), [true, true, false]);
}

#[test]
fn a_table_whose_moment_is_not_known_is_passed_over_and_one_that_was_reached_is_forgotten() {
    let mut passed = Passed::of([
        (table(), None),
        (TableName::new("shop", "t"), Some(mysql(1, 1))),
    ]);
    passed.meet(&of_mysql(0, 2), &mysql(2, 1));
    assert!(passed.contains(&table()));
    assert_eq!(passed.0.len(), 1);
}
