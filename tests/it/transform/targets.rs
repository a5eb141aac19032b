//! Rows that become several, go to other targets or have another key.

use std::sync::Arc;

use arrow::array::Int64Array;
use pipewright::batch::{Changes, Op};
use pipewright::config::OnError;
use pipewright::error::ErrorKind;
use pipewright::transform::Chain;
use serde_json::json;

use super::{
    EMAILS, bind, config, engine, hostile, ids, load, load_batch, schema, some, stream_batch, texts,
};

#[tokio::test]
async fn rows_go_to_the_targets_that_the_plugin_chooses() {
    let chain = bind(hostile(), json!({ "crime": "route" })).await.unwrap();
    assert!(chain.is_routing());
    let targets: Vec<_> = chain
        .outputs()
        .iter()
        .map(|output| output.target.as_deref())
        .collect();
    assert_eq!(targets, [None, Some("odd")]);
    let applied = chain.apply(load_batch()).await.unwrap();
    let routed: Vec<_> = applied
        .batches
        .iter()
        .map(|(place, batch)| (*place, ids(batch)))
        .collect();
    assert_eq!(routed, [(0, vec![2, 4]), (1, vec![1, 3, 5])]);
    // An update of one key: its image before is a delete that the image after outranks, so only one row is left.
    let mut batch = stream_batch([Op::Delete, Op::Update, Op::Delete, Op::Insert, Op::Insert]);
    batch.columns[0] = Arc::new(Int64Array::from(vec![1, 1, 3, 4, 5]));
    let applied = chain.apply(batch).await.unwrap();
    let (even, odd) = (&applied.batches[0].1, &applied.batches[1].1);
    assert_eq!((ids(even), ids(odd)), (vec![4], vec![1, 3, 5]));
    let expected = Changes::Stream {
        ops: vec![Op::Update, Op::Delete, Op::Insert],
        versions: vec![11, 12, 14],
    };
    assert_eq!(
        odd.changes, expected,
        "what went elsewhere leaves a tombstone where it was"
    );
}

#[tokio::test]
async fn one_row_becomes_several_under_a_key_of_their_own() {
    let chain = bind(hostile(), json!({ "crime": "fan_out" }))
        .await
        .unwrap();
    assert_eq!(chain.output().key, [0, 1]);
    let applied = chain
        .apply(stream_batch([
            Op::Insert,
            Op::Delete,
            Op::Update,
            Op::Insert,
            Op::Insert,
        ]))
        .await
        .unwrap();
    let (_, lines) = &applied.batches[0];
    assert_eq!(ids(lines), [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    assert_eq!(texts(lines, 1)[..4], some(&["0", "1", "0", "1"]));
    assert_eq!(
        texts(lines, 2)[0].as_deref(),
        EMAILS[0],
        "a passed column keeps its parent's value"
    );
    let Changes::Stream { ops, versions } = &lines.changes else {
        panic!("a stream stays a stream")
    };
    assert_eq!(
        ops[2..4],
        [Op::Delete; 2],
        "all that a deleted row gave is deleted"
    );
    assert_eq!(versions[..4], [10, 10, 11, 11]);
}

#[tokio::test]
async fn lies_about_targets_are_refused_each_by_its_kind() {
    for (name, kind, words) in [
        (
            "same_key",
            ErrorKind::PluginKey,
            "two rows of one with the same key for `lines`",
        ),
        (
            "stranger",
            ErrorKind::PluginKey,
            "made a row of row 5, and was given 5",
        ),
        ("shuffle", ErrorKind::PluginKey, "in another order"),
        (
            "unknown_target",
            ErrorKind::PluginSchema,
            "answered target 6",
        ),
        ("incomplete", ErrorKind::PluginSchema, "answered 0 columns"),
        (
            "unchanged",
            ErrorKind::PluginOutput,
            "did not answer `replace`",
        ),
        (
            "lose_key",
            ErrorKind::PluginRefused,
            "leaves out column `id`",
        ),
        (
            "twice_the_target",
            ErrorKind::PluginOutput,
            "declares target `twin` twice",
        ),
    ] {
        let error = match bind(hostile(), json!({ "crime": name })).await {
            Ok(chain) => chain.apply(load_batch()).await.expect_err(name),
            Err(error) => error,
        };
        assert_eq!(error.kind(), kind, "{name}: {}", error.chain());
        assert!(error.to_string().contains(words), "{name}: {error}");
        assert_eq!(error.table(), Some(&schema().name), "{name}");
    }
}

/// Or what it makes of an image could not be made of it again, to be taken back where it went.
#[tokio::test]
async fn plugins_in_front_of_one_that_sends_rows_elsewhere_see_every_image_as_an_insert() {
    let telling = load(hostile(), json!({ "crime": "op" })).await.unwrap();
    let route = load(hostile(), json!({ "crime": "route" })).await.unwrap();
    let ops = [Op::Delete, Op::Update, Op::Delete, Op::Insert, Op::Insert];
    let alone = Chain::bind(&[Arc::clone(&telling)], schema())
        .await
        .unwrap();
    let applied = alone.apply(stream_batch(ops)).await.unwrap();
    let told = some(&["Delete", "Update", "Delete", "Insert", "Insert"]);
    assert_eq!(texts(&applied.batches[0].1, 4), told);
    let chain = Chain::bind(&[telling, route], schema()).await.unwrap();
    let applied = chain.apply(stream_batch(ops)).await.unwrap();
    for (_, rows) in &applied.batches {
        assert_eq!(texts(rows, 4), some(&["Insert"; 5])[..rows.row_count]);
    }
}

/// A key that is made of what a failed row lacks would be another row's.
#[tokio::test]
async fn a_row_that_fails_in_front_of_a_plugin_that_sends_rows_elsewhere_gives_nothing_there() {
    let mut rejecting = config(hostile(), json!({ "crime": "reject_three" }));
    rejecting.on_error = OnError::Skip;
    let rejecting = engine().load("rejecting", &rejecting).await.unwrap();
    let route = load(hostile(), json!({ "crime": "route" })).await.unwrap();
    let chain = Chain::bind(&[rejecting, route], schema()).await.unwrap();
    for op in [Op::Insert, Op::Update, Op::Delete] {
        let applied = chain.apply(stream_batch([op; 5])).await.unwrap();
        let (even, odd) = (&applied.batches[0].1, &applied.batches[1].1);
        assert_eq!((ids(even), ids(odd)), (vec![2, 4], vec![1, 5]), "{op:?}");
    }
}

#[tokio::test]
async fn a_plugin_that_sends_rows_elsewhere_comes_last() {
    let route = load(hostile(), json!({ "crime": "route" })).await.unwrap();
    let after = load(hostile(), json!({ "crime": "none" })).await.unwrap();
    let error = Chain::bind(&[Arc::clone(&route), Arc::clone(&after)], schema())
        .await
        .unwrap_err();
    assert!(error.hint().unwrap().contains("last"), "{error}");
    let chain = Chain::bind(&[after, route], schema()).await.unwrap();
    let applied = chain.apply(load_batch()).await.unwrap();
    let (_, odd) = &applied.batches[1];
    assert_eq!(
        texts(odd, 4),
        some(&["x"; 3]),
        "it passes on what the plugin before it has added"
    );
}
