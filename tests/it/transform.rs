//! Plugins in the real sandbox, without servers.

mod faults;
mod files;
mod targets;
mod wasi;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Int64Array};
use arrow::datatypes::Int64Type;
use pipewright::author::{Language, fetch_toolchain};
use pipewright::batch::{ChangeBatch, Changes, Column, ColumnType, Op, TableName, TableSchema};
use pipewright::config::{LimitsConfig, OnError, OnRejected, TransformConfig};
use pipewright::error::{Error, ErrorKind};
use pipewright::transform::{Applied, Chain, Engine, Plugin, build_plugin};
use serde_json::{Value, json};

/// Builds a plugin of this repository, once a process.
fn built(cell: &'static OnceLock<PathBuf>, dir: &str) -> &'static Path {
    cell.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let out = root.join("target/plugins");
        let folder = root.join(dir);
        let toolchain = fetch_toolchain(Language::Rust, &folder).expect("a compiler for plugins");
        build_plugin(&folder, &out, &toolchain.envs())
            .expect("the plugin must build")
            .path
    })
}

fn mask() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    built(&PATH, "plugins/mask")
}

fn filter() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    built(&PATH, "plugins/filter")
}

fn hostile() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    built(&PATH, "tests/guests/hostile")
}

/// One engine for all tests, as there is one for all pipes.
fn engine() -> &'static Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(None).expect("the engine must start"))
}

fn limits() -> LimitsConfig {
    LimitsConfig {
        memory_bytes: 64 << 20,
        time: Duration::from_secs(5),
        ..LimitsConfig::default()
    }
}

fn config(path: &Path, config: Value) -> TransformConfig {
    // The hostile guest asks for files whatever its configuration.
    let manifest = || Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let asks = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("hostile"));
    TransformConfig {
        plugin: path.to_owned(),
        config: config.into(),
        on_error: OnError::Fail,
        on_rejected: OnRejected::Hide,
        limits: limits(),
        lookups: asks
            .then(|| ("any".to_owned(), manifest()))
            .into_iter()
            .collect(),
    }
}

async fn load(path: &Path, settings: Value) -> Result<Arc<Plugin>, Error> {
    engine().load("under_test", &config(path, settings)).await
}

async fn bind(path: &Path, settings: Value) -> Result<Chain, Error> {
    Chain::bind(&[load(path, settings).await?], schema()).await
}

/// What a chain makes of a batch whose rows stay in their table.
async fn apply(chain: &Chain, batch: ChangeBatch) -> Result<ChangeBatch, Error> {
    let Applied {
        mut batches,
        faults,
    } = chain.apply(batch).await?;
    assert_eq!(faults, [], "rows were passed over");
    let (output, batch) = batches.remove(0);
    assert_eq!((output, batches.len()), (0, 0));
    Ok(batch)
}

async fn crime(name: &str) -> Result<ChangeBatch, Error> {
    let chain = bind(hostile(), json!({ "crime": name })).await?;
    apply(&chain, load_batch()).await
}

fn schema() -> Arc<TableSchema> {
    let column = |name: &str, column_type, nullable, source_type: &str| Column {
        name: name.to_owned(),
        column_type,
        nullable,
        source_type: source_type.to_owned(),
    };
    let decimal = ColumnType::Decimal {
        precision: 10,
        scale: 2,
    };
    Arc::new(TableSchema {
        name: TableName::new("shop", "orders"),
        columns: vec![
            column("id", ColumnType::Int64, false, "bigint"),
            column("email", ColumnType::Text, true, "varchar(100)"),
            column("status", ColumnType::Label, false, "enum('open','paid')"),
            column("total", decimal, true, "decimal(10,2)"),
        ],
        key: vec![0],
    })
}

const EMAILS: [Option<&str>; 5] = [
    Some("ann@example.com"),
    None,
    Some("jörg@example.org"),
    Some(""),
    Some("zoe@example.com"),
];

fn columns() -> Vec<ArrayRef> {
    let totals =
        Decimal128Array::from(vec![Some(1_000), Some(2_050), None, Some(999), Some(1_001)]);
    vec![
        Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5])),
        Arc::new(BinaryArray::from_iter(
            EMAILS.map(|email| email.map(str::as_bytes)),
        )),
        Arc::new(BinaryArray::from_iter_values([
            "paid", "paid", "paid", "open", "open",
        ])),
        Arc::new(totals.with_precision_and_scale(10, 2).unwrap()),
    ]
}

fn load_batch() -> ChangeBatch {
    ChangeBatch {
        schema: schema(),
        columns: columns(),
        row_count: 5,
        changes: Changes::Load,
    }
}

fn stream_batch(ops: [Op; 5]) -> ChangeBatch {
    ChangeBatch {
        changes: Changes::Stream {
            ops: ops.to_vec(),
            versions: vec![10, 11, 12, 13, 14],
        },
        ..load_batch()
    }
}

fn texts(batch: &ChangeBatch, column: usize) -> Vec<Option<String>> {
    let array: &BinaryArray = batch.columns[column].as_binary();
    array
        .iter()
        .map(|value| value.map(|value| String::from_utf8(value.to_vec()).unwrap()))
        .collect()
}

fn ids(batch: &ChangeBatch) -> Vec<i64> {
    batch.columns[0]
        .as_primitive::<Int64Type>()
        .values()
        .to_vec()
}

fn some(texts: &[&str]) -> Vec<Option<String>> {
    texts.iter().map(|text| Some((*text).to_owned())).collect()
}

#[tokio::test]
async fn mask_hides_the_column_and_leaves_the_others_where_they_are() {
    let settings = json!({ "columns": ["email"], "method": "partial" });
    let chain = bind(mask(), settings).await.unwrap();
    let before = load_batch();
    let after = apply(&chain, before.clone()).await.unwrap();
    let expected = [
        Some("a***@example.com"),
        None,
        Some("j***@example.org"),
        Some("***"),
        Some("z***@example.com"),
    ];
    assert_eq!(
        texts(&after, 1),
        expected.map(|text| text.map(str::to_owned))
    );
    for column in [0, 2, 3] {
        assert!(
            Arc::ptr_eq(&before.columns[column], &after.columns[column]),
            "column {column}"
        );
    }
    assert_eq!(after.schema, *chain.output());
}

#[tokio::test]
async fn the_hash_in_the_sandbox_is_the_hash_outside() {
    let settings = json!({ "columns": ["status"], "method": "sha256", "salt": "pa" });
    let chain = bind(mask(), settings).await.unwrap();
    let after = apply(&chain, load_batch()).await.unwrap();
    // printf 'papaid' | sha256sum
    let expected = "a3b12dbb3a6be10d250408cbd0bbe7df73088f9003368e79b12889340df2f1f4";
    assert_eq!(texts(&after, 2)[0].as_deref(), Some(expected));
    assert_eq!(
        chain.output().columns[2].column_type,
        ColumnType::Text,
        "a hash is no label"
    );
}

#[tokio::test]
async fn a_filter_removes_rows_from_a_load() {
    let chain = bind(
        filter(),
        json!({ "where": "status = 'paid' AND total > 10" }),
    )
    .await
    .unwrap();
    let after = apply(&chain, load_batch()).await.unwrap();
    assert_eq!(ids(&after), [2], "NULL is not greater than 10");
    assert_eq!(after.row_count, 1);
    assert_eq!(after.changes, Changes::Load);
}

#[tokio::test]
async fn a_filter_turns_rows_of_the_stream_into_deletes_at_their_own_version() {
    let chain = bind(filter(), json!({ "where": "status = 'paid'" }))
        .await
        .unwrap();
    let ops = [Op::Insert, Op::Delete, Op::Update, Op::Update, Op::Insert];
    let after = apply(&chain, stream_batch(ops)).await.unwrap();
    assert_eq!(ids(&after), [1, 2, 3, 4, 5]);
    let expected = Changes::Stream {
        ops: vec![Op::Insert, Op::Delete, Op::Update, Op::Delete, Op::Delete],
        versions: vec![10, 11, 12, 13, 14],
    };
    assert_eq!(after.changes, expected);
}

#[tokio::test]
async fn a_filter_never_keeps_a_delete_back() {
    let chain = bind(filter(), json!({ "where": "id > 100" }))
        .await
        .unwrap();
    let after = apply(&chain, stream_batch([Op::Delete; 5])).await.unwrap();
    let Changes::Stream { ops, .. } = after.changes else {
        panic!("a stream stays a stream")
    };
    assert_eq!(ops, [Op::Delete; 5]);
}

#[tokio::test]
async fn plugins_of_a_chain_see_what_the_one_before_left() {
    let settings = json!({ "columns": ["email"], "method": "redact", "text": "gone" });
    let plugins = [
        load(mask(), settings).await.unwrap(),
        load(filter(), json!({ "where": "email = 'gone'" }))
            .await
            .unwrap(),
    ];
    let chain = Chain::bind(&plugins, schema()).await.unwrap();
    let after = apply(&chain, load_batch()).await.unwrap();
    assert_eq!(ids(&after), [1, 3, 4, 5]);
    assert_eq!(texts(&after, 1), some(&["gone"; 4]));
    let described = chain.describe();
    assert_eq!(described[0].writes, ["email"]);
    assert_eq!(
        (described[1].reads.as_slice(), described[1].may_drop),
        (&["email".to_owned()][..], true)
    );
}

#[tokio::test]
async fn a_batch_cut_into_calls_gives_the_rows_in_order() {
    let rows = 150_003_i64;
    let texts: Vec<_> = (0..rows)
        .map(|row| (row % 3 > 0).then(|| format!("{row}@example.com")))
        .collect();
    let batch = |from: usize, rows: usize| ChangeBatch {
        columns: vec![
            Arc::new(Int64Array::from_iter_values(0..150_003).slice(from, rows)),
            Arc::new(
                BinaryArray::from_iter(texts.iter().map(|text| text.as_deref().map(str::as_bytes)))
                    .slice(from, rows),
            ),
            Arc::new(
                BinaryArray::from_iter_values(std::iter::repeat_n("paid", 150_003))
                    .slice(from, rows),
            ),
            Arc::new(
                Decimal128Array::from_iter_values(0..150_003)
                    .with_precision_and_scale(10, 2)
                    .unwrap()
                    .slice(from, rows),
            ),
        ],
        row_count: rows,
        ..load_batch()
    };
    let settings = json!({ "columns": ["email"], "method": "partial", "first": 100, "last": 0 });
    let plugins = [
        load(mask(), settings).await.unwrap(),
        load(
            filter(),
            json!({ "where": "email IS NOT NULL AND total >= 0.10 AND id <> 77777" }),
        )
        .await
        .unwrap(),
    ];
    let chain = Chain::bind(&plugins, schema()).await.unwrap();
    // A slice whose bitmaps and offsets begin anywhere.
    let after = apply(&chain, batch(3, 150_000)).await.unwrap();
    let expected: Vec<_> = (3..rows)
        .filter(|row| row % 3 > 0 && *row >= 10 && *row != 77_777)
        .collect();
    assert_eq!(ids(&after), expected);
    let array: &BinaryArray = after.columns[1].as_binary();
    assert!(array.iter().all(|value| value == Some(b"***@example.com")));
}

#[tokio::test]
async fn an_empty_batch_gets_the_new_columns_too() {
    let chain = bind(hostile(), json!({ "crime": "none" })).await.unwrap();
    let mut batch = load_batch();
    batch.columns = batch
        .columns
        .iter()
        .map(|column| column.slice(0, 0))
        .collect();
    batch.row_count = 0;
    let after = apply(&chain, batch).await.unwrap();
    assert_eq!(after.columns.len(), 5);
    assert_eq!(after.columns[4].len(), 0);
}

#[tokio::test]
async fn text_that_is_not_utf8_is_told_with_its_column() {
    let settings = json!({ "columns": ["email"], "method": "redact" });
    let chain = bind(mask(), settings).await.unwrap();
    let mut batch = load_batch();
    // Each value alone is broken, all together would be UTF-8.
    batch.columns[1] = Arc::new(BinaryArray::from_iter_values([
        &b"\xc3"[..],
        b"\xa4",
        b"a",
        b"b",
        b"c",
    ]));
    let error = apply(&chain, batch).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PluginRejected);
    assert!(
        error
            .to_string()
            .contains("column `email` holds bytes that are not UTF-8"),
        "{error}"
    );
}

#[tokio::test]
async fn a_configuration_is_refused_with_json_pointers() {
    let settings = json!({ "columns": [], "method": "sha256" });
    let error = load(mask(), settings).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PluginRefused);
    let text = error.to_string();
    assert!(
        text.contains("/columns: name at least one column; /salt: "),
        "{text}"
    );
}

#[tokio::test]
async fn a_table_that_does_not_suit_is_refused_with_the_plugins_words() {
    let settings = json!({ "columns": ["e_mail"], "method": "redact" });
    let error = bind(mask(), settings).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PluginRefused);
    assert_eq!(error.table(), Some(&schema().name));
    assert!(
        error.to_string().contains("column `e_mail` does not exist"),
        "{error}"
    );
    let error = bind(filter(), json!({ "where": "total LIKE '1%'" }))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("character 1"), "{error}");
}

#[tokio::test]
async fn each_way_to_fail_has_its_own_kind() {
    for (name, kind, words) in [
        ("panic", ErrorKind::PluginTrap, "`unreachable`"),
        ("stack", ErrorKind::PluginTrap, "call stack exhausted"),
        ("memory", ErrorKind::PluginMemory, "its limit of 64 MiB"),
        (
            "few_rows",
            ErrorKind::PluginRowCount,
            "column `note` with 5 offsets for 5 rows",
        ),
        ("bad_text", ErrorKind::PluginOutput, "not UTF-8"),
        ("nulls", ErrorKind::PluginSchema, "NULL"),
        ("drop", ErrorKind::PluginRowCount, "dropped rows"),
        ("flood", ErrorKind::PluginLog, "its limit of 262144 bytes"),
        (
            "flood_short",
            ErrorKind::PluginLog,
            "its limit of 262144 bytes",
        ),
        ("wide", ErrorKind::PluginOutput, "50001 columns, of at most"),
        ("key", ErrorKind::PluginRefused, "replaces column `id`"),
        (
            "reject",
            ErrorKind::PluginRejected,
            "rejected 1 of a batch's rows",
        ),
    ] {
        let error = crime(name).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {}", error.chain());
        assert!(error.to_string().contains(words), "{name}: {error}");
        assert!(error.to_string().contains("under_test"), "{name}: {error}");
        assert_eq!(error.table(), Some(&schema().name), "{name}");
        assert!(error.hint().is_some(), "{name}");
    }
    let error = crime("panic").await.unwrap_err();
    assert!(
        error.chain().contains("wasm backtrace"),
        "{}",
        error.chain()
    );
    crime("none").await.unwrap();
}

#[tokio::test]
async fn what_a_plugin_says_of_rows_stays_out_of_messages_and_on_one_line() {
    for (name, words) in [
        ("panic", "as configured"),
        ("reject", "the first with `bad-row`: as configured"),
        ("lookup", "no file is granted as `words`"),
        ("quote", "id 1 of `evil` ERROR [2J all is well"),
        ("quote_in_panic", "id 1 of `evil` ERROR [2J all is well"),
    ] {
        let mut config = config(hostile(), json!({ "crime": name }));
        let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        config.lookups.insert("other".to_owned(), other);
        let plugin = engine().load("under_test", &config).await.unwrap();
        let chain = Chain::bind(&[plugin], schema()).await.unwrap();
        let error = apply(&chain, load_batch()).await.unwrap_err();
        let said = error.words().expect("the plugin's words");
        assert!(said.contains(words), "{name}: {said}");
        let hint = error.hint().expect("where the words are");
        assert!(hint.contains("dead_letter"), "{name}: {hint}");
        for shown in [&error.chain(), &format!("{error:?}"), &hint.to_owned()] {
            assert!(!shown.contains(words) && !shown.contains("well"), "{shown}");
            assert_eq!(shown.lines().count(), 1, "{name}: {shown}");
        }
        let told = error.telling();
        assert!(told.message().contains(words), "{name}: {told}");
        assert!(!told.message().contains(char::is_control), "{told:?}");
    }
}

#[tokio::test]
async fn a_granted_file_is_read_and_an_ungranted_one_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let words = folder.path().join("words.txt");
    std::fs::write(&words, "granted").unwrap();
    let mut granted = config(hostile(), json!({ "crime": "lookup" }));
    granted.lookups.insert("words".to_owned(), words);
    let plugin = engine().load("under_test", &granted).await.unwrap();
    let digest = &plugin.lookup_digests()["words"];
    // printf granted | sha256sum
    assert_eq!(&digest[..8], "dd515d19", "{digest}");
    let chain = Chain::bind(&[plugin], schema()).await.unwrap();
    let after = apply(&chain, load_batch()).await.unwrap();
    assert_eq!(texts(&after, 4), some(&["granted"; 5]));
    let mut other = config(hostile(), json!({ "crime": "lookup" }));
    other
        .lookups
        .insert("figures".to_owned(), folder.path().join("words.txt"));
    let plugin = engine().load("under_test", &other).await.unwrap();
    let chain = Chain::bind(&[plugin], schema()).await.unwrap();
    let error = apply(&chain, load_batch()).await.unwrap_err();
    let said = error.words().unwrap_or_default();
    assert!(said.contains("no file is granted as `words`"), "{said}");
}

#[tokio::test]
async fn an_endless_loop_ends_within_twice_its_limit_and_blocks_no_task() {
    // Long against what a busy machine adds to it.
    let limit = Duration::from_secs(4);
    // Compiles the guest, whose time is not the plugin's.
    crime("none").await.unwrap();
    for name in ["loop", "loop_in_configure"] {
        let mut config = config(hostile(), json!({ "crime": name }));
        config.limits.time = limit;
        let start = Instant::now();
        // This test has one async thread: a call that blocked it would let the tick through only at its end.
        let tick = tokio::spawn(async move {
            tokio::time::sleep(limit / 4).await;
            start.elapsed()
        });
        let error = match engine().load("under_test", &config).await {
            Ok(plugin) => {
                let chain = Chain::bind(&[plugin], schema()).await.unwrap();
                apply(&chain, load_batch()).await.unwrap_err()
            }
            Err(error) => error,
        };
        let took = start.elapsed();
        assert_eq!(error.kind(), ErrorKind::PluginTimeout, "{}", error.chain());
        assert!(error.hint().unwrap().contains("limits.time"));
        assert!(limit <= took && took < 2 * limit, "{name}: {took:?}");
        assert!(tick.await.unwrap() < limit, "{name}");
    }
}

#[tokio::test]
async fn calls_of_one_plugin_run_at_once() {
    // Each of two calls takes the whole limit, by the clock: one behind the other would take two. Other cases hold places
    // in the engine that they share.
    let engine = Engine::new(None).unwrap();
    let limit = Duration::from_secs(3);
    let mut looping = config(hostile(), json!({ "crime": "loop" }));
    looping.limits.time = limit;
    let plugin = engine.load("under_test", &looping).await.unwrap();
    let chain = Chain::bind(&[plugin], schema()).await.unwrap();
    let start = Instant::now();
    let (one, other) = tokio::join!(apply(&chain, load_batch()), apply(&chain, load_batch()));
    for error in [one.unwrap_err(), other.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::PluginTimeout, "{}", error.chain());
    }
    let took = start.elapsed();
    assert!(limit <= took && took < limit * 3 / 2, "{took:?}");
}

#[tokio::test]
async fn an_instance_that_trapped_is_not_used_again_and_what_it_did_is_no_fault_of_rows() {
    for on_error in [OnError::Fail, OnError::Skip, OnError::DeadLetter] {
        let mut config = config(hostile(), json!({ "crime": "panic_every_second" }));
        config.on_error = on_error;
        let plugin = engine().load("under_test", &config).await.unwrap();
        let chain = Chain::bind(&[plugin], schema()).await.unwrap();
        for round in 0..4 {
            let mut batch = load_batch();
            batch.columns = batch
                .columns
                .iter()
                .map(|column| column.slice(round, 1))
                .collect();
            batch.row_count = 1;
            let id = i64::try_from(round).unwrap() + 1;
            // Every call but the first meets an instance that panics, or one that took its place.
            let after = apply(&chain, batch).await;
            let after = after.unwrap_or_else(|error| panic!("{on_error:?}, {round}: {error}"));
            assert_eq!(ids(&after), [id], "{on_error:?}");
        }
    }
}

#[tokio::test]
async fn each_of_many_tables_keeps_its_instance_for_the_next_batch() {
    // Other cases keep theirs in the engine that they share.
    let engine = Engine::new(None).unwrap();
    let settings = config(hostile(), json!({ "crime": "count" }));
    let plugin = engine.load("under_test", &settings).await.unwrap();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut chains = Vec::new();
    for _ in 0..4 * cores + 3 {
        let bound = Chain::bind(&[Arc::clone(&plugin)], schema()).await;
        chains.push(bound.unwrap());
    }
    for round in ["1", "2", "3"] {
        for (table, chain) in chains.iter().enumerate() {
            let after = apply(chain, load_batch()).await.unwrap();
            assert_eq!(texts(&after, 4), some(&[round; 5]), "table {table}");
        }
    }
}
