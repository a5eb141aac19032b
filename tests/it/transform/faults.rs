//! Rows that plugins fail on: found, passed over, and what is left of them.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryArray, Int64Array};
use pipewright::batch::{ChangeBatch, Changes, Op};
use pipewright::config::{LimitsConfig, OnError, OnRejected, TransformConfig};
use pipewright::error::{Error, ErrorKind};
use pipewright::transform::{Applied, Chain};
use serde_json::json;

use super::{
    config, crime, engine, filter, hostile, ids, limits, load_batch, schema, stream_batch, texts,
};

/// As [`crime`], where rows that fail are passed over.
async fn passed_over(name: &str, on_error: OnError, batch: ChangeBatch) -> Result<Applied, Error> {
    let mut config = config(hostile(), json!({ "crime": name }));
    (config.on_error, config.limits.time) = (on_error, Duration::from_millis(300));
    let plugin = engine().load("under_test", &config).await?;
    Chain::bind(&[plugin], schema()).await?.apply(batch).await
}

#[tokio::test]
async fn the_row_that_fails_is_found_and_the_others_pass() {
    // Compiles the guest, whose time is not the plugin's.
    crime("none").await.unwrap();
    for (name, kind, code) in [
        ("panic_on_three", ErrorKind::PluginTrap, "plugin_trap"),
        ("loop_on_three", ErrorKind::PluginTimeout, "plugin_timeout"),
        ("reject_three", ErrorKind::PluginRejected, "is-three"),
    ] {
        let applied = passed_over(name, OnError::DeadLetter, load_batch())
            .await
            .unwrap_or_else(|error| panic!("{name}: {}", error.chain()));
        assert_eq!(ids(&applied.batches[0].1), [1, 2, 4, 5], "{name}");
        let [fault] = applied.faults.as_slice() else {
            panic!("{name}: {:?}", applied.faults)
        };
        assert_eq!(
            (fault.row, fault.kind, fault.code.as_str()),
            (2, kind, code)
        );
        assert!(fault.is_letter);
        let ops = [Op::Insert, Op::Update, Op::Update, Op::Delete, Op::Insert];
        let applied = passed_over(name, OnError::Skip, stream_batch(ops))
            .await
            .unwrap();
        let batch = &applied.batches[0].1;
        let Changes::Stream { ops, .. } = &batch.changes else {
            panic!("a stream stays a stream")
        };
        let hidden = [Op::Insert, Op::Update, Op::Delete, Op::Delete, Op::Insert];
        assert_eq!(
            ops, &hidden,
            "{name}: a row that fails disappears at its own version"
        );
        assert_eq!(
            texts(batch, 4)[2].as_deref(),
            Some(""),
            "what was to be made is blank"
        );
        assert!(!applied.faults[0].is_letter);
    }
}

#[tokio::test]
async fn a_row_of_which_two_with_one_key_were_made_is_found_and_the_others_pass() {
    for on_error in [OnError::Skip, OnError::DeadLetter] {
        for batch in [load_batch(), stream_batch([Op::Insert; 5])] {
            let mut config = config(hostile(), json!({ "crime": "same_key_on_three" }));
            config.on_error = on_error;
            let plugin = engine().load("under_test", &config).await.unwrap();
            let chain = Chain::bind(&[plugin], schema()).await.unwrap();
            let applied = chain.apply(batch).await.unwrap();
            let (_, lines) = &applied.batches[0];
            assert_eq!(ids(lines), [1, 1, 2, 2, 4, 4, 5, 5], "{on_error:?}");
            let [fault] = applied.faults.as_slice() else {
                panic!("{on_error:?}: {:?}", applied.faults)
            };
            assert_eq!((fault.row, fault.kind), (2, ErrorKind::PluginKey));
            assert_eq!(fault.code, "plugin_key");
            assert_eq!(fault.is_letter, on_error == OnError::DeadLetter);
        }
    }
}

#[tokio::test]
async fn a_last_image_that_a_routing_plugin_rejects_is_a_fault_like_any_other() {
    let mut settings = config(hostile(), json!({ "crime": "route_reject_three" }));
    for on_error in [OnError::Fail, OnError::Skip] {
        settings.on_error = on_error;
        let plugin = engine().load("under_test", &settings).await.unwrap();
        let chain = Chain::bind(&[plugin], schema()).await.unwrap();
        let applied = chain.apply(stream_batch([Op::Delete; 5])).await;
        match on_error {
            OnError::Fail => assert_eq!(applied.unwrap_err().kind(), ErrorKind::PluginRejected),
            _ => {
                let applied = applied.unwrap();
                assert_eq!(applied.faults.len(), 1, "{:?}", applied.faults);
                let odd = applied.batches.iter().find(|(place, _)| *place == 1);
                assert_eq!(ids(&odd.unwrap().1), [1, 5], "no place of row 3 is known");
            }
        }
    }
}

#[tokio::test]
async fn a_row_that_fails_leaves_the_old_one_where_that_is_to_be_kept() {
    let mut config = config(hostile(), json!({ "crime": "reject_three" }));
    (config.on_error, config.on_rejected) = (OnError::Skip, OnRejected::KeepOld);
    let plugin = engine().load("under_test", &config).await.unwrap();
    let chain = Chain::bind(&[plugin], schema()).await.unwrap();
    let applied = chain.apply(stream_batch([Op::Update; 5])).await.unwrap();
    assert_eq!(ids(&applied.batches[0].1), [1, 2, 4, 5]);
    let applied = chain.apply(stream_batch([Op::Delete; 5])).await.unwrap();
    let batch = &applied.batches[0].1;
    assert_eq!(ids(batch), [1, 2, 3, 4, 5], "a delete is never kept back");
}

#[tokio::test]
async fn a_row_that_is_gone_needs_no_plugin_that_agrees() {
    for on_error in [OnError::Fail, OnError::DeadLetter] {
        let mut config = config(hostile(), json!({ "crime": "reject_three" }));
        config.on_error = on_error;
        let plugin = engine().load("under_test", &config).await.unwrap();
        let chain = Chain::bind(&[plugin], schema()).await.unwrap();
        let applied = chain.apply(stream_batch([Op::Delete; 5])).await.unwrap();
        assert_eq!(ids(&applied.batches[0].1), [1, 2, 3, 4, 5]);
        assert_eq!(applied.faults, [], "nothing of it is kept");
    }
}

#[tokio::test]
async fn a_row_that_one_plugin_drops_is_no_fault_of_the_next_one() {
    let dropping = |condition: &str| config(filter(), json!({ "where": condition }));
    let routing = config(hostile(), json!({ "crime": "route_reject_three" }));
    for on_error in [OnError::Fail, OnError::DeadLetter] {
        let mut plugins = Vec::new();
        for config in [dropping("id <> 3"), routing.clone()] {
            let config = TransformConfig { on_error, ..config };
            plugins.push(engine().load("under_test", &config).await.unwrap());
        }
        let chain = Chain::bind(&plugins, schema()).await.unwrap();
        for op in [Op::Insert, Op::Update, Op::Delete] {
            let applied = chain.apply(stream_batch([op; 5])).await.unwrap();
            let mut went: Vec<_> = applied
                .batches
                .iter()
                .flat_map(|(_, rows)| ids(rows))
                .collect();
            went.sort_unstable();
            assert_eq!(went, [1, 2, 4, 5], "{op:?}: row 3 was never made");
            assert_eq!(applied.faults, []);
        }
        // Where the same row got as far as the routing plugin, what became of it is to be found.
        plugins.remove(0);
        let chain = Chain::bind(&plugins, schema()).await.unwrap();
        let applied = chain.apply(stream_batch([Op::Insert; 5])).await;
        match on_error {
            OnError::Fail => assert_eq!(applied.unwrap_err().kind(), ErrorKind::PluginRejected),
            _ => assert_eq!(applied.unwrap().faults.len(), 1),
        }
    }
}

#[tokio::test]
async fn old_rows_are_not_kept_before_a_plugin_that_sends_rows_elsewhere() {
    let mut keeping = config(hostile(), json!({ "crime": "reject_three" }));
    keeping.on_rejected = OnRejected::KeepOld;
    let routing = config(hostile(), json!({ "crime": "route" }));
    let mut plugins = Vec::new();
    for (name, config) in [("keeping", keeping), ("routing", routing)] {
        plugins.push(engine().load(name, &config).await.unwrap());
    }
    let error = Chain::bind(&plugins, schema()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PluginRefused);
    for name in ["keeping", "routing"] {
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn a_plugin_that_fails_on_every_row_is_given_up() {
    let rows = 1_200;
    let ids = Arc::new(Int64Array::from_iter_values(0..rows));
    let batch = load_batch();
    let mut columns: Vec<ArrayRef> = vec![ids];
    for column in &batch.columns[1..] {
        let first = column.slice(0, 1);
        let parts = vec![&*first; usize::try_from(rows).unwrap()];
        columns.push(arrow::compute::concat(&parts).unwrap());
    }
    let batch = ChangeBatch {
        columns,
        row_count: usize::try_from(rows).unwrap(),
        ..batch
    };
    let error = passed_over("panic", OnError::Skip, batch)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PluginTrap, "{}", error.chain());
    assert!(
        error.to_string().contains("more rows of one batch"),
        "{error}"
    );
}

#[tokio::test]
async fn a_plugin_that_fails_on_rows_together_and_on_none_alone_is_told_so() {
    let error = passed_over("panic_on_many", OnError::Skip, load_batch())
        .await
        .unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::PluginCutDependent,
        "{}",
        error.chain()
    );
    assert!(
        error.to_string().contains("on none of them alone"),
        "{error}"
    );
}

#[tokio::test]
async fn output_past_its_limits_is_told_with_the_key_that_sets_them() {
    for (name, limits, key) in [
        (
            "none",
            LimitsConfig {
                output_bytes: 16,
                ..limits()
            },
            "limits.output",
        ),
        (
            "fan_out",
            LimitsConfig {
                rows: 9,
                ..limits()
            },
            "limits.rows",
        ),
        (
            "flood",
            LimitsConfig {
                log_bytes: 1000,
                ..limits()
            },
            "limits.log",
        ),
    ] {
        let mut config = config(hostile(), json!({ "crime": name }));
        config.limits = limits;
        let error = match engine().load("under_test", &config).await {
            Ok(plugin) => match Chain::bind(&[plugin], schema()).await {
                Ok(chain) => chain.apply(load_batch()).await.map(drop),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        let error = error.expect_err(name);
        let kinds = [ErrorKind::PluginOutputSize, ErrorKind::PluginLog];
        assert!(kinds.contains(&error.kind()), "{name}: {}", error.chain());
        assert!(
            error.hint().unwrap().contains(key),
            "{name}: {:?}",
            error.hint()
        );
    }
}

/// The guest returns little: what it has copied is made by the host.
#[tokio::test]
async fn copies_of_passed_columns_count_as_output() {
    const TEXT_BYTES: usize = 100_000;
    let of_texts = |bytes: usize| {
        let batch = load_batch();
        let texts = vec![Some(vec![b'x'; bytes]); batch.row_count];
        let mut columns = batch.columns.clone();
        columns[1] = Arc::new(BinaryArray::from_iter(texts));
        ChangeBatch { columns, ..batch }
    };
    let batch = of_texts(TEXT_BYTES);
    let through = |name: &str, on_error, output_bytes: usize| {
        let mut config = config(hostile(), json!({ "crime": name }));
        config.on_error = on_error;
        config.limits.output_bytes = output_bytes as u64;
        let batch = batch.clone();
        async move {
            let plugin = engine().load("under_test", &config).await?;
            Chain::bind(&[plugin], schema()).await?.apply(batch).await
        }
    };
    let rows = |applied: &Applied| -> usize {
        let batches = applied.batches.iter();
        batches.map(|(_, batch)| batch.row_count).sum()
    };
    // Each of five rows is there twice, which is one copy more than there was.
    let error = through("fan_out", OnError::Fail, 4 * TEXT_BYTES)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PluginOutputSize, "{error}");
    assert!(error.hint().unwrap().contains("limits.output"), "{error}");
    let applied = through("fan_out", OnError::Fail, 6 * TEXT_BYTES)
        .await
        .unwrap();
    assert_eq!(rows(&applied), 10);
    // Fewer rows in a call take less.
    let applied = through("fan_out", OnError::Skip, 4 * TEXT_BYTES)
        .await
        .unwrap();
    assert_eq!((rows(&applied), applied.faults.len()), (10, 0));
    let applied = through("fan_out", OnError::Skip, TEXT_BYTES / 2)
        .await
        .unwrap();
    assert_eq!((rows(&applied), applied.faults.len()), (0, 5));
    // A batch is cut by what its rows take along, though the plugin does not read it.
    let large = 50 * TEXT_BYTES;
    let mut wide = config(hostile(), json!({ "crime": "fan_out" }));
    (wide.limits.memory_bytes, wide.limits.output_bytes) = (64 << 20, 4 * large as u64);
    let plugin = engine().load("under_test", &wide).await.unwrap();
    let chain = Chain::bind(&[plugin], schema()).await.unwrap();
    let applied = chain.apply(of_texts(large)).await.unwrap();
    assert_eq!(rows(&applied), 10);
    // A row that goes to one place is no copy, however large it is.
    let applied = through("route", OnError::Fail, 1_000).await.unwrap();
    assert_eq!(rows(&applied), 5);
}
