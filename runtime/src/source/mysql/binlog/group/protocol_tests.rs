//! Events that come with others, in pieces, or with ids that were used before.

use super::*;

/// pitfall 52
#[test]
fn a_table_id_that_is_used_again_means_the_new_table() {
    let mut feed = Feed::mysql();
    let group = |feed: &mut Feed, number: u8, table: &str| {
        feed.gtid(number);
        feed.query("BEGIN").unwrap();
        let body = table_map(ORDERS, "shop", table, &[(3, &[])], &[]);
        feed.send(code::TABLE_MAP, &body);
        feed.send(code::WRITE_ROWS, &rows(ORDERS, &[1]));
        feed.send(code::XID, &[0; 8])
    };
    assert!(matches!(
        group(&mut feed, 1, "orders"),
        Step::Transaction(_)
    ));
    assert!(matches!(group(&mut feed, 2, "others"), Step::Moved));
    assert!(matches!(
        group(&mut feed, 3, "orders"),
        Step::Transaction(_)
    ));
}

/// pitfall 55, pitfall 76, pitfall 82
#[test]
fn events_that_only_accompany_others_change_nothing() {
    let mut feed = Feed::mysql();
    feed.gtid(1);
    feed.query("BEGIN").unwrap();
    feed.send(code::ROWS_QUERY, b"\x10UPDATE \xff\xfe");
    feed.send(code::TRANSACTION_CONTEXT, &[1, 2, 3]);
    feed.map(ORDERS);
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[1]));
    assert_eq!(transaction(feed.send(code::XID, &[0; 8])).end.offset, 1018);
    // A change of the group's members has a GTID of its own, which must enter the set.
    feed.gtid(2);
    feed.send(code::VIEW_CHANGE, &[0; 52]);
    feed.gtid(3);
    assert_eq!(
        feed.grouper.place().0.position.to_string(),
        "07070707-0707-0707-0707-070707070707:1-2"
    );
    let mut feed = Feed::maria();
    for kind in [
        code::MARIA_GTID_LIST,
        code::MARIA_BINLOG_CHECKPOINT,
        code::MARIA_START_ENCRYPTION,
    ] {
        feed.send(kind, &[0; 20]);
    }
    feed.maria_gtid(1, 0);
    feed.send(code::MARIA_ANNOTATE_ROWS, b"UPDATE \xff");
    feed.map(ORDERS);
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[1]));
    assert_eq!(transaction(feed.send(code::XID, &[0; 8])).end.offset, 1018);
}

/// pitfall 84
#[test]
fn a_compressed_statement_is_read_like_a_plain_one() {
    let mut feed = Feed::maria();
    feed.maria_gtid(1, 1);
    let text = b"TRUNCATE TABLE orders";
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    let mut body = query("");
    body.extend([0x81, u8::try_from(text.len()).unwrap()]);
    body.extend(encoder.finish().unwrap());
    let truncate = statement(feed.send(code::MARIA_QUERY_COMPRESSED, &body));
    assert_eq!(
        truncate.class,
        Class::Truncate(TableName::new("shop", "orders"))
    );
}

/// pitfall 85
#[test]
fn a_row_event_in_fragments_is_put_together_or_refused() {
    let body = rows(ORDERS, &[1, 2, 3]);
    let mut whole = vec![0; 4];
    whole.push(code::WRITE_ROWS);
    whole.extend([0; 4]);
    whole.extend(u32::try_from(19 + body.len()).unwrap().to_le_bytes());
    whole.extend([0; 6]);
    whole.extend(&body);
    let fragment = |total: u32, number: u32, part: &[u8]| {
        let mut bytes = total.to_le_bytes().to_vec();
        bytes.extend(number.to_le_bytes());
        bytes.push(u8::from(number == 1));
        if number == 1 {
            bytes.extend((whole.len() as u64).to_le_bytes());
        }
        bytes.extend(part);
        bytes
    };
    let parts: Vec<&[u8]> = whole.chunks(20).collect();
    let total = u32::try_from(parts.len()).unwrap();
    let begun = || {
        let mut feed = Feed::maria();
        feed.maria_gtid(1, 0);
        feed.map(ORDERS);
        feed
    };
    let mut feed = begun();
    for (number, part) in (1..).zip(&parts) {
        feed.send(code::MARIA_PARTIAL_ROW_DATA, &fragment(total, number, part));
    }
    let mut committed = transaction(feed.send(code::XID, &[0; 8]));
    assert_eq!(
        committed
            .row_events()
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .body,
        body
    );
    let mut feed = begun();
    feed.send(code::MARIA_PARTIAL_ROW_DATA, &fragment(total, 1, parts[0]));
    let missing = feed.fails(code::MARIA_PARTIAL_ROW_DATA, &fragment(total, 3, parts[2]));
    assert_eq!(missing.kind(), ErrorKind::SourceCorrupt);
    let mut feed = begun();
    feed.send(code::MARIA_PARTIAL_ROW_DATA, &fragment(total, 1, parts[0]));
    assert_eq!(
        feed.fails(code::XID, &[0; 8]).kind(),
        ErrorKind::SourceCorrupt
    );
    let short = begun().fails(code::MARIA_PARTIAL_ROW_DATA, &fragment(1, 1, parts[0]));
    assert_eq!(short.kind(), ErrorKind::SourceCorrupt);
    let without_begin = begun().fails(code::MARIA_PARTIAL_ROW_DATA, &fragment(total, 2, parts[1]));
    assert_eq!(without_begin.kind(), ErrorKind::SourceCorrupt);
}

/// A server tells where its binlog ends, and an idle one sends nothing more.
#[test]
fn by_file_the_place_moves_behind_what_a_file_begins_with() {
    let mut feed = Feed::file();
    assert!(feed.moved(code::PREVIOUS_GTIDS, &[0; 8]));
    let at = |feed: &Feed| feed.grouper.place().0.position.to_string();
    let told = format!("binlog.000001:{}", feed.log_pos);
    assert_eq!(at(&feed), told);
    // What a server makes up is nowhere in the file.
    let made_up = feed.event(code::MARIA_GTID_LIST, &[0; 4], FLAG_ARTIFICIAL);
    assert!(matches!(made_up, Ok(Step::Nothing)));
    feed.gtid(1);
    assert!(!feed.moved(code::MARIA_BINLOG_CHECKPOINT, &[]));
    assert_eq!(at(&feed), told, "in the middle of a group");
    let mut by_gtid = Feed::mysql();
    assert!(!by_gtid.moved(code::PREVIOUS_GTIDS, &[0; 8]));
}
