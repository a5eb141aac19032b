//! Hand-made event sequences through the grouping.

use std::io::Write;

#[path = "group/protocol_tests.rs"]
mod protocol;
#[path = "group/transaction_tests.rs"]
mod transactions;

use super::super::table_map::tests::body as table_map;
use super::*;
use crate::batch::TableName;
use crate::source::mysql::ServerIdentity;

const ORDERS: u8 = 1;
const OTHERS: u8 = 2;
const UUID: [u8; 16] = [7; 16];

struct Feed {
    grouper: Grouper,
    log_pos: u32,
}

impl Feed {
    fn new(position: Position, offset: u64) -> Self {
        let filter = TableFilter::new([TableName::new("shop", "orders")]);
        let options = GroupOptions {
            dialect: Dialect::default(),
            files: Vec::new(),
            memory_bytes: 1 << 20,
            spill_folder: None,
            prepared: HashMap::new(),
        };
        let mut feed = Self {
            grouper: Grouper::new(StreamPlace { position, offset }, Arc::new(filter), options),
            log_pos: 100,
        };
        feed.moved(code::FORMAT_DESCRIPTION, &[]);
        feed
    }

    fn mysql() -> Self {
        Self::new(
            Position::Gtid {
                set: Default::default(),
            },
            1000,
        )
    }

    fn maria() -> Self {
        Self::new(
            Position::MariaGtid {
                list: Default::default(),
            },
            1000,
        )
    }

    fn file() -> Self {
        Self::new(
            Position::File {
                server: ServerIdentity("a".into()),
                file: "binlog.000001".into(),
                offset: 100,
                created: 0,
            },
            0,
        )
    }

    fn event(&mut self, kind: u8, body: &[u8], flags: u16) -> Result<Step> {
        let length = u32::try_from(body.len()).unwrap() + 19;
        self.event_of(kind, body, flags, length)
    }

    /// An event that takes `length` bytes of its file, whatever body it is given.
    fn event_of(&mut self, kind: u8, body: &[u8], flags: u16, length: u32) -> Result<Step> {
        self.log_pos = self.log_pos.wrapping_add(length);
        self.grouper.on_event(&RawEvent {
            kind,
            timestamp: 5,
            server_id: 3,
            log_pos: self.log_pos,
            length,
            flags,
            body,
        })
    }

    fn send(&mut self, kind: u8, body: &[u8]) -> Step {
        self.event(kind, body, 0).unwrap()
    }

    fn moved(&mut self, kind: u8, body: &[u8]) -> bool {
        matches!(self.send(kind, body), Step::Moved)
    }

    fn fails(&mut self, kind: u8, body: &[u8]) -> Error {
        self.event(kind, body, 0).unwrap_err()
    }

    fn gtid(&mut self, number: u8) {
        let mut body = vec![0];
        body.extend(UUID);
        body.extend([number, 0, 0, 0, 0, 0, 0, 0, 2]);
        body.extend([0; 16]);
        body.extend([9, 0, 0, 0, 0, 0, 0x80]);
        self.send(code::GTID, &body);
    }

    fn maria_gtid(&mut self, sequence: u8, flags: u8) {
        let mut body = vec![sequence, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, flags];
        body.extend([0; 6]);
        self.send(code::MARIA_GTID, &body);
    }

    fn query(&mut self, text: &str) -> Result<Step> {
        self.event(code::QUERY, &query(text), 0)
    }

    fn map(&mut self, id: u8) {
        let name = if id == ORDERS { "orders" } else { "others" };
        let body = table_map(id, "shop", name, &[(3, &[])], &[]);
        self.send(code::TABLE_MAP, &body);
    }

    fn offset(&self) -> u64 {
        self.grouper.place().0.offset
    }
}

fn query(text: &str) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend([4, 0, 0, 0, 0]);
    body.extend(b"shop\0");
    body.extend(text.as_bytes());
    body
}

/// A version 2 row event of one INT column.
fn rows(id: u8, values: &[i32]) -> Vec<u8> {
    let mut body = vec![id, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1, 0xff];
    for value in values {
        body.push(0);
        body.extend(value.to_le_bytes());
    }
    body
}

fn transaction(step: Step) -> Transaction {
    match step {
        Step::Transaction(transaction) => transaction,
        other => panic!("{other:?} is no transaction"),
    }
}

fn statement(step: Step) -> Statement {
    match step {
        Step::Statement(statement) => statement,
        other => panic!("{other:?} is no statement"),
    }
}

/// pitfall 56, pitfall 131
#[test]
fn the_stream_offsets_of_a_known_sequence_never_change() {
    let mut feed = Feed::mysql();
    // One for the group; 22 and 17 bytes of rows, whosever they are.
    feed.gtid(1);
    feed.query("BEGIN").unwrap();
    feed.map(ORDERS);
    feed.map(OTHERS);
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[1, 2]));
    feed.send(code::WRITE_ROWS, &rows(OTHERS, &[3]));
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[4]));
    let mut first = transaction(feed.send(code::XID, &[0; 8]));
    assert_eq!(first.end.offset, 1000 + 1 + 22 + 17 + 17);
    assert_eq!(first.committed_at_us, Some(9));
    let mut events = first.row_events().unwrap();
    assert_eq!(events.next().unwrap().unwrap().offset, 1001);
    assert_eq!(events.next().unwrap().unwrap().offset, 1001 + 22 + 17);
    assert!(events.next().unwrap().is_none());
    // One for the group, one for the statement.
    feed.gtid(2);
    let truncate = statement(feed.query("TRUNCATE orders").unwrap());
    assert_eq!(truncate.offset, 1059);
    assert_eq!(truncate.end.offset, 1059);
    // A group without anything of ours counts as well.
    feed.gtid(3);
    feed.query("BEGIN").unwrap();
    feed.map(OTHERS);
    feed.send(code::DELETE_ROWS, &rows(OTHERS, &[3]));
    assert!(feed.moved(code::XID, &[0; 8]));
    assert_eq!(feed.offset(), 1059 + 1 + 17);
    assert_eq!(
        feed.grouper.place().0.position.to_string(),
        "07070707-0707-0707-0707-070707070707:1-3"
    );
}

/// pitfall 74
#[test]
fn a_group_broken_off_leaves_the_place_at_its_start() {
    let mut feed = Feed::mysql();
    feed.gtid(1);
    feed.query("BEGIN").unwrap();
    feed.map(ORDERS);
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[1, 2]));
    assert_eq!(feed.offset(), 1000);
    assert_eq!(feed.grouper.place().0.position.to_string(), "");
}

/// pitfall 84
#[test]
fn compressed_rows_count_as_if_they_were_plain() {
    let mut feed = Feed::maria();
    let plain = {
        let mut body = vec![ORDERS, 0, 0, 0, 0, 0, 1, 0, 1, 0xff];
        for value in 0..50_i32 {
            body.push(0);
            body.extend(value.to_le_bytes());
        }
        body
    };
    let (head, tail) = plain.split_at(10);
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(tail).unwrap();
    let mut compressed = head.to_vec();
    compressed.extend([0x81, 250]);
    compressed.extend(encoder.finish().unwrap());
    let mut ends = Vec::new();
    for (sequence, kind, body) in [
        (1, code::WRITE_ROWS_V1, &plain),
        (2, code::MARIA_WRITE_ROWS_COMPRESSED_V1, &compressed),
    ] {
        feed.maria_gtid(sequence, 0);
        feed.map(ORDERS);
        feed.send(kind, body);
        let mut transaction = transaction(feed.send(code::XID, &[0; 8]));
        let mut events = transaction.row_events().unwrap();
        assert_eq!(events.next().unwrap().unwrap().body, plain);
        ends.push(transaction.end.offset);
    }
    assert_eq!(ends, [1000 + 261, 1000 + 261 + 261]);
    // Of a table that is not ours the length alone is read.
    feed.maria_gtid(3, 0);
    feed.map(OTHERS);
    compressed[0] = OTHERS;
    compressed.truncate(14);
    feed.send(code::MARIA_WRITE_ROWS_COMPRESSED_V1, &compressed);
    assert!(feed.moved(code::XID, &[0; 8]));
    assert_eq!(feed.offset(), 1000 + 3 * 261);
}

/// pitfall 52
#[test]
fn a_table_map_of_an_earlier_group_is_not_trusted() {
    let mut feed = Feed::mysql();
    feed.gtid(1);
    feed.query("BEGIN").unwrap();
    feed.map(ORDERS);
    feed.send(code::XID, &[0; 8]);
    feed.gtid(2);
    feed.query("BEGIN").unwrap();
    let error = feed.fails(code::WRITE_ROWS, &rows(ORDERS, &[1]));
    assert_eq!(error.kind(), ErrorKind::SourceCorrupt);
}

/// pitfall 81, pitfall 95
#[test]
fn a_mariadb_group_is_one_statement_when_it_stands_alone_and_else_lasts_to_its_commit() {
    let mut feed = Feed::maria();
    feed.maria_gtid(1, 1);
    assert!(matches!(
        feed.query("ALTER TABLE orders ADD COLUMN a INT").unwrap(),
        Step::Statement(_)
    ));
    feed.maria_gtid(2, 0);
    feed.map(ORDERS);
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[1]));
    let committed = transaction(feed.query("COMMIT").unwrap());
    assert_eq!(committed.end.position.to_string(), "0-3-2");
    assert_eq!(committed.committed_at_us, Some(5_000_000));
}

/// pitfall 89
#[test]
fn a_two_phase_alter_that_only_starts_is_no_statement() {
    let mut feed = Feed::maria();
    let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2];
    body.extend([0; 5]);
    feed.send(code::MARIA_GTID, &body);
    assert!(matches!(
        feed.query("ALTER TABLE orders ADD COLUMN a INT").unwrap(),
        Step::Moved
    ));
}

/// pitfall 53, pitfall 66, pitfall 69
#[test]
fn what_cannot_be_told_apart_fails_by_name_and_not_in_silence() {
    let begun = || {
        let mut feed = Feed::mysql();
        feed.gtid(1);
        feed.query("BEGIN").unwrap();
        feed.map(ORDERS);
        feed.map(OTHERS);
        feed
    };
    let orders = TableName::new("shop", "orders");
    let mut feed = begun();
    feed.query("DELETE FROM orders WHERE id < 5").unwrap();
    let mut changed = transaction(feed.send(code::XID, &[0; 8]));
    let error = changed.row_events().unwrap_err();
    assert_eq!(
        (error.kind(), error.table()),
        (ErrorKind::Unsupported, Some(&orders))
    );
    assert_eq!(
        begun().fails(code::INCIDENT, &[]).kind(),
        ErrorKind::SourceCorrupt
    );
    assert_eq!(begun().fails(99, &[]).kind(), ErrorKind::Unsupported);
    begun().event(99, &[], FLAG_IGNORABLE).unwrap();
    assert_eq!(
        begun().fails(code::WRITE_ROWS_V0, &[]).kind(),
        ErrorKind::Unsupported
    );
}

/// pitfall 111
#[test]
fn create_table_from_a_select_goes_on_with_its_rows() {
    let mut feed = Feed::mysql();
    feed.gtid(1);
    feed.query("CREATE TABLE others (id INT) START TRANSACTION")
        .unwrap();
    feed.map(OTHERS);
    feed.send(code::WRITE_ROWS, &rows(OTHERS, &[1]));
    assert!(feed.moved(code::XID, &[0; 8]));
    feed.gtid(2);
    feed.query("CREATE TABLE orders (id INT) START TRANSACTION")
        .unwrap();
    let created = statement(feed.send(code::XID, &[0; 8]));
    assert!(matches!(created.class, Class::CreateTable { .. }));
}

/// pitfall 57
#[test]
fn a_transaction_without_a_gtid_is_refused_where_the_place_is_a_gtid_set() {
    let mut feed = Feed::mysql();
    feed.send(code::ANONYMOUS_GTID, &[0; 25]);
    feed.query("BEGIN").unwrap();
    assert_eq!(
        feed.fails(code::XID, &[0; 8]).kind(),
        ErrorKind::SourceSetting
    );
}

/// pitfall 50, pitfall 51
#[test]
fn a_file_place_moves_with_commits_and_real_rotates_and_knows_a_file_made_anew() {
    let mut feed = Feed::file();
    let group = |feed: &mut Feed| {
        feed.send(code::ANONYMOUS_GTID, &[0; 25]);
        feed.query("BEGIN").unwrap();
        feed.moved(code::XID, &[0; 8])
    };
    assert!(group(&mut feed));
    let text = |feed: &Feed| feed.grouper.place().0.position.to_string();
    assert_eq!(text(&feed), format!("binlog.000001:{}", feed.log_pos));
    // Past 4 GiB the header's number begins again: between groups, and within one as often as it is that large.
    let mut past = u64::from(feed.log_pos);
    for pieces in [1, 1, 1, 9] {
        const PIECE: u32 = 1_500_000_000;
        past += u64::from(PIECE) * pieces;
        feed.send(code::ANONYMOUS_GTID, &[0; 25]);
        feed.query("BEGIN").unwrap();
        feed.map(OTHERS);
        for _ in 0..pieces {
            let body = rows(OTHERS, &[1]);
            feed.event_of(code::WRITE_ROWS, &body, 0, PIECE).unwrap();
        }
        // What the server makes up, or leaves out, takes nothing away and adds nothing.
        let heartbeat = feed.log_pos;
        feed.event_of(code::HEARTBEAT, b"binlog.000001", 0, 32)
            .unwrap();
        feed.log_pos = heartbeat.wrapping_add(1_000_000);
        past += 1_000_000;
        assert!(feed.moved(code::XID, &[0; 8]));
        // GTID, BEGIN, map and XID.
        past += u64::from(feed.log_pos.wrapping_sub(past as u32));
        assert_eq!(text(&feed), format!("binlog.000001:{past}"));
    }
    assert!(past > 4 << 32);
    let mut rotate = 4_u64.to_le_bytes().to_vec();
    rotate.extend(b"binlog.000001");
    feed.event(code::ROTATE, &rotate, FLAG_ARTIFICIAL).unwrap();
    assert_eq!(text(&feed), format!("binlog.000001:{past}"));
    rotate.truncate(8);
    rotate.extend(b"binlog.000002");
    assert!(matches!(
        feed.event(code::ROTATE, &rotate, 0).unwrap(),
        Step::Moved
    ));
    assert_eq!(text(&feed), "binlog.000002:4");
    feed.send(code::FORMAT_DESCRIPTION, &[]);
    let Position::File { created, .. } = feed.grouper.place().0.position else {
        panic!("a file place stays one");
    };
    assert_eq!(created, 5);
    let event = RawEvent {
        kind: code::FORMAT_DESCRIPTION,
        timestamp: 6,
        server_id: 1,
        log_pos: 0,
        length: 19,
        flags: 0,
        body: &[],
    };
    let error = feed.grouper.on_event(&event).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceDiverged);
}

/// pitfall 83
#[test]
fn an_offset_that_the_source_does_not_tell_is_not_guessed() {
    let mut feed = Feed::file();
    feed.send(code::ANONYMOUS_GTID, &[0; 25]);
    feed.query("BEGIN").unwrap();
    feed.log_pos = 0_u32.wrapping_sub(27);
    assert_eq!(
        feed.fails(code::XID, &[0; 8]).kind(),
        ErrorKind::Unsupported
    );
}

#[test]
fn a_stream_offset_past_48_bits_is_an_error_and_not_a_version() {
    let mut feed = Feed::new(
        Position::Gtid {
            set: Default::default(),
        },
        MAX_STREAM_OFFSET - 5,
    );
    feed.gtid(1);
    feed.query("BEGIN").unwrap();
    feed.map(OTHERS);
    assert_eq!(
        feed.fails(code::WRITE_ROWS, &rows(OTHERS, &[1])).kind(),
        ErrorKind::Internal
    );
}
