//! What a mirror proves, and where a pipe goes back to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use super::*;
use crate::batch::TableSchema;
use crate::pipe::lifecycle::PipeState;
use crate::pipe::prepared::PreparedRecord;
use crate::pipe::record::Overlay;
use crate::source::mysql::binlog::Xid;
use crate::source::mysql::catalog::SourceTable;

fn position(until: u64) -> Position {
    let set = format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-{until}");
    Position::Gtid {
        set: set.parse().expect("a GTID set"),
    }
}

pub(in crate::pipe) fn place(until: u64) -> StreamPlace {
    StreamPlace {
        position: position(until),
        offset: until * 100,
    }
}

/// A pipe whose checkpoint is behind transaction 10, in term 3.
pub(in crate::pipe) fn record() -> PipeRecord {
    PipeRecord {
        id: "id".to_owned(),
        state: PipeState::Running,
        server_id: 4242,
        established: None,
        server: None,
        term: 3,
        claiming: None,
        claimant: None,
        anew: false,
        owner: "us".to_owned(),
        checkpoint: Some(Checkpoint {
            place: place(10),
            committed_at_us: Some(10),
            written_at_us: 0,
        }),
        sent: None,
        begun: None,
        overlay: Overlay::default(),
    }
}

fn judged(record: &PipeRecord, term: u16, until: u64, owner: &str) -> Verdict {
    let mirror = Mirror {
        term,
        offset: until * 100,
        position: String::new(),
        owner: owner.to_owned(),
        written_at: SystemTime::UNIX_EPOCH,
    };
    judge(record, &mirror, &position(until))
}

#[test]
fn a_mirror_behind_the_state_proves_a_loss_whoever_wrote_it() {
    assert_eq!(judged(&record(), 3, 10, "us"), Verdict::Held);
    assert_eq!(judged(&record(), 3, 9, "us"), Verdict::Behind);
    assert_eq!(judged(&record(), 2, 99, "us"), Verdict::Lost);
    assert_eq!(judged(&record(), 2, 99, "another"), Verdict::Lost);
    // A claim that did not end hides nothing.
    let claiming = PipeRecord {
        claiming: Some(4),
        claimant: Some("us once more".to_owned()),
        ..record()
    };
    assert_eq!(judged(&claiming, 3, 9, "us"), Verdict::Behind);
    assert_eq!(judged(&claiming, 2, 9, "us"), Verdict::Lost);
    assert_eq!(judged(&claiming, 3, 10, "us"), Verdict::Claimed);
    assert_eq!(judged(&claiming, 4, 1, "us once more"), Verdict::Claimed);
    assert_eq!(judged(&claiming, 4, 1, "another"), Verdict::Overtaken);
}

#[test]
fn a_mirror_ahead_of_all_that_was_sent_is_of_another_state() {
    // One flush ahead is what a crash leaves.
    let flushing = PipeRecord {
        sent: Some(place(12)),
        ..record()
    };
    assert_eq!(judged(&flushing, 3, 12, "us"), Verdict::Held);
    assert_eq!(judged(&flushing, 3, 13, "us"), Verdict::Overtaken);
    assert_eq!(judged(&record(), 3, 11, "us"), Verdict::Overtaken);
    assert_eq!(judged(&record(), 4, 11, "us"), Verdict::Overtaken);
    assert_eq!(judged(&record(), 3, 10, "another"), Verdict::Overtaken);
}

/// A table without columns that streams, edited.
pub(in crate::pipe) fn table(
    name: &str,
    edit: impl FnOnce(&mut TableRecord),
) -> (TableName, Arc<TableRecord>) {
    let name = TableName::new("s", name);
    let source = SourceTable {
        schema: Arc::new(TableSchema {
            name: name.clone(),
            columns: Vec::new(),
            key: Vec::new(),
        }),
        columns: Vec::new(),
        date_rules: BTreeMap::new(),
        keeps_null: BTreeMap::new(),
        key_is_primary: true,
        transactional: Some(true),
        unique_keys: Vec::new(),
    };
    let mut record = TableRecord::new(source);
    record.state = TableState::Streaming;
    edit(&mut record);
    (name, Arc::new(record))
}

#[test]
fn only_behind_every_load_can_rows_be_read_again() {
    let mut records = Records::default();
    let loaded = |until| move |table: &mut TableRecord| table.load_end = Some(position(until));
    let under_way = |table: &mut TableRecord| table.state = TableState::Snapshotting;
    records
        .tables
        .extend([table("a", loaded(5)), table("b", under_way)]);
    assert!(is_past_loads(&records, &position(5)));
    assert!(!is_past_loads(&records, &position(4)));
    let done = Arc::new(BTreeSet::from([1]));
    records.done.insert(TableName::new("s", "b"), done);
    assert!(
        !is_past_loads(&records, &position(9)),
        "rows of the load may be gone"
    );
    let removed = |table: &mut TableRecord| table.state = TableState::Removed;
    records.tables.extend([table("b", removed)]);
    assert!(is_past_loads(&records, &position(9)));
}

#[test]
fn tables_that_stand_ahead_by_themselves_go_back_too() {
    let own = |term, until| TablePlace {
        term,
        place: place(until),
        sent: None,
        as_of_us: Some(until),
    };
    let quarantined = |place: TablePlace| {
        move |table: &mut TableRecord| {
            table.state =
                TableState::Quarantined(Failure::from(&may_lack(&TableName::new("s", "x"))));
            table.place = Some(place);
        }
    };
    let mut records = Records {
        pipe: Some(record()),
        ..Records::default()
    };
    records.tables.extend([
        table("before", quarantined(own(None, 4))),
        table("ahead", quarantined(own(None, 9))),
        table("alone", |table| {
            table.state = TableState::CatchingUp;
            table.place = Some(own(Some(2), 4));
        }),
        table("taken_in", |table| table.place = Some(own(None, 9))),
    ]);
    go_back(&mut records, &place(6));
    let checkpoint = records.checkpoint().expect("there was one");
    assert_eq!(checkpoint.place, place(6));
    assert_eq!(
        checkpoint.committed_at_us, None,
        "the date of another place"
    );
    let of = |name: &str| &records.tables[&TableName::new("s", name)];
    let stands = |name: &str| of(name).place.as_ref().map(|own| own.place.clone());
    assert_eq!(stands("before"), Some(place(4)));
    assert_eq!(stands("ahead"), Some(place(6)));
    assert_eq!(stands("alone"), Some(place(4)));
    assert_eq!(stands("taken_in"), Some(place(9)));
    let dated = |name: &str| of(name).place.as_ref().and_then(|own| own.as_of_us);
    assert_eq!([dated("before"), dated("ahead")], [Some(4), None]);
    let inexact: Vec<bool> = ["before", "ahead", "alone", "taken_in"]
        .map(|name| of(name).inexact.is_some())
        .to_vec();
    assert_eq!(inexact, [false, false, true, false]);
}

#[test]
fn a_decision_behind_the_mirror_took_the_rows_with_it() {
    let prepared = |decided: Option<u64>| PreparedRecord {
        id: "x".to_owned(),
        xid: serde_json::from_str::<Xid>("\"X'61',X'',1\"").expect("a name"),
        end: position(5),
        length: 1,
        pieces: Vec::new(),
        decided: decided.map(position),
    };
    let with = |decided| Records {
        pipe: Some(record()),
        prepared: BTreeMap::from([("x".to_owned(), Arc::new(prepared(decided)))]),
        ..Records::default()
    };
    assert!(has_decided_behind(&with(Some(8)), &position(6)));
    assert!(!has_decided_behind(&with(None), &position(6)));
    // The PREPARE is read again, the decision stands before the mirror, or the pipe itself has not come to it.
    assert!(!has_decided_behind(&with(Some(8)), &position(4)));
    assert!(!has_decided_behind(&with(Some(8)), &position(8)));
    assert!(!has_decided_behind(&with(Some(12)), &position(6)));
}
