//! Rollbacks that were logged, and XA.

use super::super::super::transaction::RowEvents;
use super::super::super::xa::Packed;
use super::*;

/// The values of the first row of each event, with the offset and whether it was rolled back.
fn firsts(mut events: RowEvents<'_>) -> Vec<(i32, u64, bool)> {
    let mut found = Vec::new();
    while let Some(event) = events.next().unwrap() {
        let value = event.body[13..17].try_into().unwrap();
        found.push((i32::from_le_bytes(value), event.offset, event.undone));
    }
    found
}

/// pitfall 93, pitfall 94
#[test]
fn rows_of_a_rollback_that_was_logged_are_handed_on_as_undone() {
    let mut feed = Feed::mysql();
    feed.gtid(1);
    feed.query("BEGIN").unwrap();
    feed.map(ORDERS);
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[1]));
    feed.query("SAVEPOINT `a`").unwrap();
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[2]));
    feed.query("SAVEPOINT `b`").unwrap();
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[3]));
    feed.query("ROLLBACK TO `b`").unwrap();
    feed.query("SAVEPOINT `a`").unwrap();
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[4]));
    // The newer of the two of that name.
    feed.query("ROLLBACK TO `a`").unwrap();
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[5]));
    let mut committed = transaction(feed.send(code::XID, &[0; 8]));
    let undone: Vec<(i32, bool)> = firsts(committed.row_events().unwrap())
        .into_iter()
        .map(|(value, _, undone)| (value, undone))
        .collect();
    assert_eq!(
        undone,
        [(1, false), (2, false), (3, true), (4, true), (5, false)]
    );

    feed.gtid(2);
    feed.query("BEGIN").unwrap();
    feed.map(ORDERS);
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[1]));
    let mut undone = transaction(feed.query("ROLLBACK").unwrap());
    assert!(
        firsts(undone.row_events().unwrap())
            .iter()
            .all(|(.., undone)| *undone)
    );
    assert!(undone.end.position.to_string().ends_with(":1-2"));

    feed.gtid(3);
    feed.query("BEGIN").unwrap();
    feed.map(OTHERS);
    feed.send(code::WRITE_ROWS, &rows(OTHERS, &[1]));
    assert!(matches!(feed.query("ROLLBACK").unwrap(), Step::Moved));

    feed.gtid(4);
    feed.query("BEGIN").unwrap();
    feed.map(ORDERS);
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[1]));
    let error = feed.query("ROLLBACK TO `nobody`").unwrap_err();
    assert_eq!(error.table(), Some(&TableName::new("shop", "orders")));
}

/// The body of an XA PREPARE event of `X'61',X'',1`.
fn xa_prepare(one_phase: u8) -> Vec<u8> {
    let mut body = vec![one_phase];
    body.extend([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a']);
    body
}

fn prepare(feed: &mut Feed, number: u8, one_phase: u8) -> Step {
    feed.gtid(number);
    feed.query("XA START X'61',X'',1").unwrap();
    feed.map(ORDERS);
    feed.map(OTHERS);
    feed.send(code::WRITE_ROWS, &rows(OTHERS, &[9]));
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[1]));
    feed.query("XA END X'61',X'',1").unwrap();
    feed.send(code::XA_PREPARE, &xa_prepare(one_phase))
}

/// pitfall 93, pitfall 96
#[test]
fn rows_in_the_group_of_an_xa_rollback_are_handed_on_as_undone() {
    for (decision, goes) in [("ROLLBACK", true), ("COMMIT", false)] {
        let mut feed = Feed::mysql();
        feed.gtid(1);
        feed.query("XA START X'61',X'',1").unwrap();
        feed.map(ORDERS);
        feed.send(code::WRITE_ROWS, &rows(ORDERS, &[1]));
        feed.query("XA END X'61',X'',1").unwrap();
        let step = feed.query(&format!("XA {decision} X'61',X'',1"));
        let mut ended = transaction(step.unwrap());
        let undone = firsts(ended.row_events().unwrap());
        assert!(
            undone.iter().all(|(.., undone)| *undone == goes),
            "{decision}"
        );
    }
}

/// pitfall 94: utf8mb3_general_ci takes `é` and `e` for one name, and `é` and `x` for two, which no text tells.
#[test]
fn a_rollback_to_one_of_two_savepoints_that_may_be_one_is_refused_by_name() {
    for (newer, is_told) in [("E", false), ("è", false), ("ex", true), ("É", false)] {
        let mut feed = Feed::mysql();
        feed.gtid(1);
        feed.query("BEGIN").unwrap();
        feed.map(ORDERS);
        feed.query("SAVEPOINT `é`").unwrap();
        feed.send(code::WRITE_ROWS, &rows(ORDERS, &[1]));
        feed.query(&format!("SAVEPOINT `{newer}`")).unwrap();
        let newest = feed.query(&format!("ROLLBACK TO `{newer}`"));
        assert!(newest.is_ok(), "{newer}");
        match feed.query("ROLLBACK TO `é`") {
            Ok(_) => assert!(is_told, "{newer}"),
            Err(error) => assert!(
                !is_told && error.to_string().contains("savepoint"),
                "{newer}: {error}"
            ),
        }
    }
}

/// pitfall 94, pitfall 96: also where the rows are kept until the decision.
#[tokio::test]
async fn rows_undone_within_an_xa_transaction_are_handed_on_as_undone() {
    let mut feed = Feed::mysql();
    feed.gtid(1);
    feed.query("XA START X'61',X'',1").unwrap();
    feed.map(ORDERS);
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[1]));
    feed.query("SAVEPOINT `a`").unwrap();
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[2]));
    feed.query("ROLLBACK TO `a`").unwrap();
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[3]));
    feed.query("XA END X'61',X'',1").unwrap();
    let Step::Prepared(mut prepared) = feed.send(code::XA_PREPARE, &xa_prepare(0)) else {
        panic!("not prepared");
    };
    let told = |events: RowEvents<'_>| -> Vec<(i32, bool)> {
        let events = firsts(events).into_iter();
        events.map(|(value, _, undone)| (value, undone)).collect()
    };
    let expected = [(1, false), (2, true), (3, false)];
    assert_eq!(told(prepared.row_events(0).unwrap()), expected);
    let mut pieces = Vec::new();
    prepared
        .pack(|_, piece| {
            pieces.push(piece);
            std::future::ready(Ok(()))
        })
        .await
        .unwrap();
    let kept = Packed::read(&pieces[0]).unwrap();
    assert_eq!(told(kept.row_events(0)), expected);
}

/// pitfall 96
#[test]
fn rows_of_an_xa_transaction_take_the_place_of_its_commit() {
    let mut feed = Feed::mysql();
    let Step::Prepared(mut prepared) = prepare(&mut feed, 1, 0) else {
        panic!("not prepared");
    };
    assert_eq!(prepared.length, 34);
    assert_eq!(prepared.end.offset, 1035);
    assert_eq!(prepared.id, "07070707-0707-0707-0707-070707070707:1");
    feed.gtid(2);
    feed.query("BEGIN").unwrap();
    feed.map(ORDERS);
    feed.send(code::WRITE_ROWS, &rows(ORDERS, &[5]));
    let between = transaction(feed.send(code::XID, &[0; 8]));
    assert_eq!(between.end.offset, 1035 + 18);
    feed.gtid(3);
    let Step::Decided(decided) = feed.query("XA COMMIT X'61',X'',1").unwrap() else {
        panic!("not decided");
    };
    assert!(decided.commit && decided.xid == prepared.xid);
    assert_eq!((decided.base, decided.end.offset), (1054, 1054 + 34));
    assert_eq!(
        firsts(prepared.row_events(decided.base).unwrap()),
        [(1, 1054 + 17, false)]
    );

    // Whoever has the PREPARE from the state counts the same.
    let mut again = Feed::mysql();
    again
        .grouper
        .prepared
        .insert(prepared.xid.clone(), prepared.length);
    again.gtid(3);
    let Step::Decided(again) = again.query("XA COMMIT X'61',X'',1").unwrap() else {
        panic!("not decided");
    };
    assert_eq!(again.end.offset - again.base, 34);
}

/// pitfall 96
#[test]
fn an_xa_transaction_may_commit_at_once_or_roll_back_or_be_unknown() {
    let mut feed = Feed::mysql();
    assert_eq!(transaction(prepare(&mut feed, 1, 1)).end.offset, 1035);
    assert!(matches!(prepare(&mut feed, 2, 0), Step::Prepared(_)));
    feed.gtid(3);
    let Step::Decided(decided) = feed.query("XA ROLLBACK X'61',X'',1").unwrap() else {
        panic!("not decided");
    };
    assert!(!decided.commit);
    assert_eq!(decided.end.offset, 1035 + 35 + 1);
    feed.gtid(4);
    assert!(matches!(
        feed.query("XA ROLLBACK X'61',X'',1").unwrap(),
        Step::Moved
    ));
    feed.gtid(5);
    assert!(matches!(
        feed.query("XA COMMIT X'61',X'',1").unwrap(),
        Step::Decided(_)
    ));
}

/// pitfall 96
#[tokio::test]
async fn kept_rows_of_an_xa_transaction_come_back_as_they_were() {
    let mut feed = Feed::mysql();
    let Step::Prepared(mut prepared) = prepare(&mut feed, 1, 0) else {
        panic!("not prepared");
    };
    let mut pieces = Vec::new();
    prepared
        .pack(|table, piece| {
            pieces.push((table, piece));
            std::future::ready(Ok(()))
        })
        .await
        .unwrap();
    let [(table, piece)] = &pieces[..] else {
        panic!("{} pieces", pieces.len());
    };
    assert_eq!(table, &TableName::new("shop", "orders"));
    let packed = Packed::read(piece).unwrap();
    assert_eq!(
        firsts(packed.row_events(5000)),
        firsts(prepared.row_events(5000).unwrap())
    );
    for length in 0..piece.len().min(30) {
        assert!(Packed::read(&piece[..length]).is_err(), "{length}");
    }
}

/// pitfall 66, pitfall 96: only rows can wait.
#[test]
fn a_statement_of_an_unknown_kind_within_an_xa_transaction_is_not_lost() {
    let mut feed = Feed::mysql();
    feed.gtid(1);
    feed.query("XA START X'61',X'',1").unwrap();
    feed.query("FILL `shop`.`orders`").unwrap();
    feed.query("XA END X'61',X'',1").unwrap();
    let error = feed.fails(code::XA_PREPARE, &xa_prepare(0));
    assert_eq!(error.table(), Some(&TableName::new("shop", "orders")));
    // One phase is the end of a group like any other.
    let mut feed = Feed::mysql();
    feed.gtid(1);
    feed.query("XA START X'61',X'',1").unwrap();
    feed.query("FILL `shop`.`orders`").unwrap();
    // A second one beside it is as unknown.
    feed.query("FILL `shop`.`lines`").unwrap();
    feed.query("XA END X'61',X'',1").unwrap();
    let told = statement(feed.send(code::XA_PREPARE, &xa_prepare(1)));
    assert_eq!((told.class, told.tables), (Class::Unknown, Vec::new()));
}

/// pitfall 66, pitfall 93
#[test]
fn a_delete_by_a_client_is_no_truncate_however_its_group_ends() {
    for text in ["DELETE FROM orders", "ANALYZE DELETE FROM orders"] {
        let mut feed = Feed::maria();
        feed.maria_gtid(1, 0);
        let Step::Nothing = feed.query(text).unwrap() else {
            panic!("{text} ended its group");
        };
        let mut transaction = transaction(feed.query("ROLLBACK").unwrap());
        let error = transaction.row_events().unwrap_err();
        assert_eq!(error.table(), Some(&TableName::new("shop", "orders")));
    }
}

/// pitfall 39
#[test]
fn what_was_done_to_a_temporary_table_of_the_name_is_taken_for_neither() {
    let mut feed = Feed::maria();
    for (number, text) in [
        (1, "TRUNCATE orders"),
        (2, "ALTER TABLE orders RENAME TO o"),
    ] {
        feed.maria_gtid(number, 1);
        let step = feed.event(code::QUERY, &query(text), 4).unwrap();
        let Class::AlterTable { alter, .. } = statement(step).class else {
            panic!("{text}");
        };
        assert_eq!(alter.clauses, [super::super::super::ddl::Clause::Rows]);
    }
}

/// pitfall 66: the catalog is asked once, and again when it may have changed.
#[test]
fn row_changes_in_text_form_that_name_no_table_of_ours_raise_a_question() {
    let mut feed = Feed::maria();
    let change = |feed: &mut Feed, number: u8| {
        feed.maria_gtid(number, 0);
        feed.query("INSERT INTO others VALUES (1)").unwrap();
        let asked = feed.grouper.question().is_some();
        feed.grouper.answered(Vec::new()).unwrap();
        feed.send(code::XID, &[0; 8]);
        asked
    };
    assert!(change(&mut feed, 1));
    assert!(!change(&mut feed, 2));
    feed.maria_gtid(3, 1);
    feed.query("CREATE TEMPORARY TABLE scratch (a INT)")
        .unwrap();
    assert!(!change(&mut feed, 5));
    feed.maria_gtid(6, 1);
    feed.query("CREATE TRIGGER a AFTER INSERT ON others FOR EACH ROW DELETE FROM orders")
        .unwrap();
    assert!(change(&mut feed, 7));
}

/// pitfall 66: all of them, each by itself; those whose load has the change are taken out before.
#[test]
fn every_table_that_a_statement_reaches_is_told_at_its_end() {
    let mut feed = Feed::maria();
    feed.maria_gtid(1, 0);
    feed.query("INSERT INTO others VALUES (1)").unwrap();
    let (one, other) = (
        TableName::new("shop", "orders"),
        TableName::new("shop", "x"),
    );
    let reached = vec![one.clone(), other.clone()];
    feed.grouper.answered(reached).unwrap();
    let mut transaction = transaction(feed.send(code::XID, &[0; 8]));
    let error = transaction.row_events().unwrap_err();
    let told: Vec<_> = error.each().filter_map(Error::table).collect();
    assert_eq!(told, [&one, &other]);
    assert!(error.message().contains("others"), "{error}");
    assert_eq!(transaction.take_texts_of(|table| *table == one), [one]);
    let error = transaction.row_events().unwrap_err();
    assert_eq!(error.each().count(), 1);
    assert_eq!(error.table(), Some(&other));
}
