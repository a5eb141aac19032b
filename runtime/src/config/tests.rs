//! Files under `testdata/`: each good one beside what it means, each bad one beside everything that is said of it.
//! `UPDATE_EXPECT=1` writes the texts anew, to be read before they are committed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::batch::TableName;

/// Stands for every secret; it must never be printed.
const CANARY: &str = "canary-7f3a";

fn environment(name: &str) -> Option<String> {
    match name {
        "SOURCE_PASSWORD" | "SALT" | "CANARY" => Some(CANARY.to_owned()),
        "PORT" => Some("3308".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn testdata(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/config/testdata")
        .join(folder);
    pipe_files(&folder).expect("the test data")
}

/// Compares with the text beside `file`, from which machine paths are left out.
fn check_beside(file: &Path, extension: &str, text: &str) {
    let folder = file.parent().expect("a folder").display().to_string();
    let text = text.replace(&format!("{folder}/"), "");
    let beside = file.with_extension(extension);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&beside, &text).expect("the expected text");
    }
    let expected = fs::read_to_string(&beside).unwrap_or_default();
    assert_eq!(text, expected, "for {}", file.display());
}

fn explain(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect()
}

fn load_text(text: &str, secrets: Secrets) -> Result<Vec<PipeConfig>, Vec<Problem>> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pipe.yaml");
    fs::write(&file, text).expect("a file");
    load(&[file], &environment, secrets)
}

/// The pipe of a file that must be good.
fn good(text: &str) -> PipeConfig {
    load_text(text, Secrets::Offline)
        .unwrap_or_else(|problems| panic!("{}", explain(&problems)))
        .remove(0)
}

const MINIMAL: &str = include_str!("testdata/good/minimal.yaml");
const EVERY_KEY: &str = include_str!("testdata/good/every_key.yaml");

#[test]
fn good_files_mean_what_stands_beside_them() {
    for file in testdata("good") {
        let pipes = load(std::slice::from_ref(&file), &environment, Secrets::Offline)
            .unwrap_or_else(|problems| panic!("{}", explain(&problems)));
        let text = serde_json::to_string_pretty(&pipes).expect("JSON");
        check_beside(&file, "json", &format!("{text}\n"));
    }
}

#[test]
fn bad_files_get_every_problem_at_once() {
    for file in testdata("bad") {
        let problems = load(std::slice::from_ref(&file), &environment, Secrets::Resolve)
            .expect_err("the file is bad");
        check_beside(&file, "txt", &explain(&problems));
    }
}

#[test]
fn no_secret_is_ever_printed() {
    let mut texts = String::new();
    for file in testdata("good").into_iter().chain(testdata("bad")) {
        for secrets in [Secrets::Resolve, Secrets::Offline] {
            match load(std::slice::from_ref(&file), &environment, secrets) {
                Ok(pipes) => {
                    texts += &format!("{pipes:?} {pipes:#?}");
                    texts += &serde_json::to_string(&pipes).expect("JSON");
                }
                Err(problems) => {
                    texts += &format!("{problems:?}{}", explain(&problems));
                    texts += &serde_json::to_string(&problems).expect("JSON");
                }
            }
        }
    }
    assert!(texts.contains("***"));
    assert!(!texts.contains("canary"), "a secret was printed");
    let config = good(EVERY_KEY);
    assert_eq!(config.source.password.expose(), CANARY);
    let mask = &config.transforms["mask_email"];
    assert_eq!(mask.config.expose()["salt"], CANARY);
    assert_eq!(mask.config.expose()["columns"][0], "email");
}

#[test]
fn every_key_changes_what_is_loaded() {
    let full = serde_json::to_value(good(EVERY_KEY)).expect("JSON");
    // Each line that can go without making the file bad; `source` and the like cannot.
    let removable: BTreeMap<&str, &str> = BTreeMap::from([
        ("mode", "mode: cdc_only\n"),
        ("port", "  port: 3307\n"),
        ("source.password", "  password: ${SOURCE_PASSWORD}\n"),
        ("tls", "  tls: { mode: verify_ca, ca: ca.pem }\n"),
        ("tls.mode", "mode: verify_ca, "),
        ("tls.ca", ", ca: ca.pem"),
        ("position", "  position: gtid\n"),
        ("server_id", "  server_id: 4242\n"),
        ("durability", "  durability: answered\n"),
        ("database", "  database: shop\n"),
        ("destination.user", "  user: writer\n"),
        ("target", "    target: sales\n"),
        ("exclude_columns", "    exclude_columns: [card_number]\n"),
        ("order_by", "    order_by: [tenant_id, id]\n"),
        ("partition_by", "    partition_by: tenant_id % 16\n"),
        ("split_by", "    split_by: id\n"),
        ("columns", "      note: { type: LowCardinality(String) }\n"),
        ("columns.zero_dates", "zero_dates: clamp, "),
        ("columns.date_range", ", date_range: null"),
        ("columns.nullable", ", nullable: true"),
        ("types.zero_dates", "zero_dates: epoch, "),
        ("types.date_range", "date_range: string, "),
        ("types.tinyint1", "tinyint1: bool, "),
        ("types.enum", "enum: enum16, "),
        ("types.set", "set: array, "),
        ("types.binary", "binary: hex, "),
        ("types.json", "json: json, "),
        ("types.decimal", ", decimal: string"),
        ("tables.transforms", "    transforms: [mask_email]\n"),
        ("limits.memory", "memory: 128MiB, "),
        ("limits.time", ", time: 200ms"),
        ("limits.output", ", output: 2MiB"),
        ("limits.rows", ", rows: 5000"),
        ("limits.log", ", log: 1KiB"),
        ("on_error", "    on_error: dead_letter\n"),
        ("on_rejected", "    on_rejected: keep_old\n"),
        ("grants", "    grants: { lookup: { words: words.txt } }\n"),
        ("threads_per_table", "threads_per_table: 8, "),
        ("tables_in_parallel", "tables_in_parallel: 2, "),
        ("rows_per_partition", ", rows_per_partition: 5000"),
        ("interval", "interval: 5m, "),
        ("max_rows", "max_rows: 2000, "),
        ("max_bytes", ", max_bytes: 1GiB"),
        ("version column", "version: v, "),
        ("deleted column", "deleted: d, "),
        ("synced_at column", ", synced_at: s"),
        ("nullable", "nullable: false\n"),
        ("types.geometry", ", geometry: ewkt"),
        ("follow_new_tables", "follow_new_tables: true\n"),
        (
            "exclude",
            "exclude: [\"shop.tmp_*\", { database: shop, table: \"a*\" }]\n",
        ),
        ("row_image", "row_image: complete\n"),
        ("cascades", "cascades: reload\n"),
        ("ddl.add_column", "add_column: quarantine, "),
        ("ddl.drop_column", "drop_column: archive, "),
        ("ddl.rename_column", "rename_column: quarantine, "),
        ("ddl.modify_column", "modify_column: quarantine, "),
        ("ddl.reload", "reload: quarantine, "),
        ("ddl.truncate", "truncate: ignore, "),
        ("ddl.drop_table", ", drop_table: apply"),
        ("objectives.lag", "lag: 30s, "),
        ("objectives.retention_headroom", ", retention_headroom: 6h"),
    ]);
    for (key, line) in removable {
        assert!(EVERY_KEY.contains(line), "{key}: {line:?}");
        let without = good(&EVERY_KEY.replacen(line, "", 1));
        let without = serde_json::to_value(without).expect("JSON");
        // Passwords serialise alike whatever they are.
        if key == "source.password" {
            continue;
        }
        assert_ne!(without, full, "`{key}` is ignored");
    }
    let without = good(&EVERY_KEY.replacen("  password: ${SOURCE_PASSWORD}\n", "", 1));
    assert_eq!(without.source.password.expose(), "");
}

/// The keys that reading knows, by section: what it offers when it meets a key it does not know.
fn keys_read() -> BTreeMap<String, BTreeSet<String>> {
    let text = "{zzz: 1, source: {zzz: 1, tls: {zzz: 1}}, destination: {zzz: 1}, \
        tables: [{zzz: 1, source: {zzz: 1}, columns: {c: {zzz: 1}}}], \
        transforms: {t: {zzz: 1, limits: {zzz: 1}, grants: {zzz: 1}}}, \
        snapshot: {zzz: 1}, sync: {zzz: 1}, system_columns: {zzz: 1}, types: {zzz: 1}, ddl: {zzz: 1}, \
        objectives: {zzz: 1}}";
    let problems = load_text(text, Secrets::Offline).expect_err("unknown keys");
    problems
        .iter()
        .filter(|problem| problem.found.contains("`zzz`"))
        .map(|problem| {
            let keys = problem.expected.split('`').skip(1).step_by(2);
            let section = problem.path.trim_end_matches("zzz").trim_end_matches('.');
            (section.to_owned(), keys.map(str::to_owned).collect())
        })
        .collect()
}

#[test]
fn the_schema_has_the_keys_that_reading_knows() {
    let schema = json_schema();
    let keys = |definition: &str| -> BTreeSet<String> {
        let section = match definition {
            "" => &schema,
            name => &schema["$defs"][name],
        };
        assert_eq!(section["additionalProperties"], false, "{definition}");
        let properties = section["properties"].as_object().expect("properties");
        for (name, property) in properties {
            let documented = property["description"].is_string();
            assert!(documented, "{definition}.{name} has no description");
        }
        properties.keys().cloned().collect()
    };
    let sections = [
        ("", ""),
        ("source", "Source"),
        ("source.tls", "Tls"),
        ("destination", "Destination"),
        ("tables[0]", "Table"),
        ("tables[0].source", "TableSourceNames"),
        ("tables[0].columns.c", "ColumnChoice"),
        ("transforms.t", "Transform"),
        ("transforms.t.limits", "Limits"),
        ("transforms.t.grants", "Grants"),
        ("snapshot", "Snapshot"),
        ("sync", "Sync"),
        ("system_columns", "SystemColumns"),
        ("types", "Types"),
        ("ddl", "Ddl"),
        ("objectives", "Objectives"),
    ];
    let expected: BTreeMap<String, BTreeSet<String>> = sections
        .map(|(section, definition)| (section.to_owned(), keys(definition)))
        .into();
    assert_eq!(keys_read(), expected);
}

#[test]
fn null_is_a_policy_and_a_column_wins_over_the_pipe() {
    for null in ["null", "\"null\"", "~"] {
        let text = MINIMAL.replace(
            "shop.orders",
            &format!(
                "shop.orders\n    columns: {{ day: {{ zero_dates: {null}, date_range: {null} }} }}"
            ),
        );
        let pipe = good(&format!(
            "{text}types: {{ zero_dates: epoch, enum: integer }}\n"
        ));
        let column = &pipe.tables[0].columns["day"];
        let both = column.policies.or(pipe.types);
        assert_eq!(both.zero_dates, Some(ZeroDates::Null), "{null}");
        assert_eq!(both.date_range, Some(DateRange::Null), "{null}");
        assert_eq!(both.enum_form, Some(EnumForm::Integer), "{null}");
    }
}

#[test]
fn an_entry_says_otherwise_than_the_pipe_what_becomes_of_a_table_without_a_key() {
    let two = format!("{MINIMAL}keyless: append\n").replace(
        "shop.orders",
        "shop.orders\n  - { source: shop.items, keyless: refuse, engine: append }",
    );
    let pipe = good(&two);
    let read: Vec<(Keyless, Engine)> = pipe
        .tables
        .iter()
        .map(|table| (table.keyless, table.engine))
        .collect();
    assert_eq!(
        read,
        [
            (Keyless::Append, Engine::Replacing),
            (Keyless::Refuse, Engine::Append)
        ]
    );
}

#[test]
fn a_folder_means_its_yaml_files_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, pipe: &str| {
        let text = MINIMAL
            .replace("pipe: shop", &format!("pipe: {pipe}"))
            .replace("8123", &format!("{}", 8000 + pipe.len()));
        fs::write(folder.path().join(name), text).expect("a file");
    };
    file("b.yaml", "one");
    file("a.yml", "three");
    file("c.txt", "not a pipe");
    let pipes =
        load(&[folder.path().to_owned()], &environment, Secrets::Resolve).expect("good files");
    let names: Vec<&str> = pipes.iter().map(|pipe| pipe.pipe.as_str()).collect();
    assert_eq!(names, ["three", "one"]);
}

#[test]
fn paths_that_lead_nowhere_are_problems() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = [folder.path().to_owned(), folder.path().join("none.yaml")];
    let problems = load(&paths, &environment, Secrets::Resolve).expect_err("nothing to load");
    assert_eq!(problems.len(), 2);
    assert!(explain(&problems).contains("a folder without pipe files"));
    assert!(explain(&problems).contains("a file that cannot be read"));
}

#[test]
fn problems_across_files_name_both_places() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["a.yaml", "b.yaml"] {
        fs::write(folder.path().join(name), MINIMAL).expect("a file");
    }
    let problems = load(&[folder.path().to_owned()], &environment, Secrets::Resolve)
        .expect_err("the same pipe twice");
    let text = explain(&problems);
    assert!(text.contains("a second pipe named `shop`"), "{text}");
    assert!(text.contains("the target `orders` a second time"), "{text}");
    assert!(
        text.contains("a.yaml:2") && text.contains("b.yaml:2:7"),
        "{text}"
    );
}

#[test]
fn one_number_for_two_replicas_of_a_server_is_told_with_both_places() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |pipe: &str, host: &str, server_id: &str| {
        let text = MINIMAL
            .replace("pipe: shop", &format!("pipe: {pipe}"))
            .replace(
                "127.0.0.1, user",
                &format!("{host}, server_id: {server_id}, user"),
            )
            .replace("8123", &format!("{}", 8000 + pipe.len()));
        assert!(text.contains("server_id"), "{text}");
        fs::write(folder.path().join(format!("{pipe}.yaml")), text).expect("a file");
    };
    write("a", "db.example.com", "4242");
    write("bb", "other.example.com", "4242");
    write("ccc", "db.example.com", "4243");
    let read = |secrets| load(&[folder.path().to_owned()], &environment, secrets);
    read(Secrets::Resolve).expect("each server has its own numbers");
    write("ccc", "DB.example.com", "4242");
    let text = explain(&read(Secrets::Resolve).expect_err("twice at one server"));
    assert!(
        text.contains("ccc.yaml:") && text.contains("source.server_id") && text.contains("a.yaml:"),
        "{text}"
    );
    // What is not known cannot be compared.
    write("a", "db.example.com", "\"${NOT_SET_A}\"");
    write("ccc", "db.example.com", "\"${NOT_SET_B}\"");
    read(Secrets::Offline).expect("nothing stands against it offline");
}

#[test]
fn a_reference_is_replaced_inside_its_string_and_nowhere_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pipe.yaml");
    fs::write(folder.path().join("secret"), "one: {two}\nthree\n").expect("a secret");
    fs::write(
        &file,
        MINIMAL.replace(
            "user: pipewright",
            "port: \"${PORT}\", user: \"a-${PORT}-${EMPTY:-default}\", password: \"${file:secret}\"",
        ),
    )
    .expect("a file");
    let pipe = &load(&[file], &environment, Secrets::Resolve).expect("a good file")[0];
    assert_eq!(pipe.source.port, 3308);
    assert_eq!(pipe.source.user, "a-3308-default");
    assert_eq!(pipe.source.password.expose(), "one: {two}\nthree");
}

#[test]
fn offline_an_undefined_reference_stays_as_written() {
    let text = MINIMAL.replace(
        "host: 127.0.0.1",
        "host: \"${HOST}\", port: \"${NO_PORT}\", password: \"${file:none}\"",
    );
    let pipe = good(&text);
    assert_eq!(pipe.source.host, "${HOST}");
    let problems = load_text(&text, Secrets::Resolve).expect_err("undefined");
    assert_eq!(problems.len(), 3, "{}", explain(&problems));
}

#[test]
fn tls_is_the_default_wherever_the_network_is_crossed() {
    for (host, mode) in [
        ("localhost", TlsMode::Disabled),
        ("127.0.0.1", TlsMode::Disabled),
        ("\"::1\"", TlsMode::Disabled),
        ("10.0.0.1", TlsMode::VerifyIdentity),
        ("db.example.com", TlsMode::VerifyIdentity),
    ] {
        let pipe = good(&MINIMAL.replace("host: 127.0.0.1", &format!("host: {host}")));
        assert_eq!(pipe.source.tls.mode, mode, "{host}");
    }
}

#[test]
fn a_missing_plugin_is_a_problem_only_for_a_pipe_about_to_run() {
    let text = format!("{MINIMAL}transforms: {{ mask: {{ plugin: none.wasm }} }}\n");
    assert!(load_text(&text, Secrets::Offline).is_ok());
    let problems = load_text(&text, Secrets::Resolve).expect_err("no such file");
    assert_eq!(problems[0].path, "transforms.mask.plugin");
}

fn table(source: &str) -> TableConfig {
    let text = MINIMAL.replace("shop.orders", &format!("\"{source}\""));
    good(&text).tables.remove(0)
}

fn names(names: &[&str]) -> Vec<TableName> {
    names
        .iter()
        .map(|name| name.split_once('.').expect("database.table"))
        .map(|(database, table)| TableName::new(database, table))
        .collect()
}

#[test]
fn an_exact_entry_beats_a_wildcard() {
    let entries = [table("shop.*"), table("shop.orders")];
    let matched = match_tables(&entries, &names(&["shop.items", "shop.orders", "other.x"]))
        .expect("no conflict");
    let matched: Vec<String> = matched
        .iter()
        .map(|(entry, name)| format!("{} {name}", entry.source))
        .collect();
    assert_eq!(matched, ["shop.* shop.items", "shop.orders shop.orders"]);
}

#[test]
fn two_wildcards_on_one_table_are_refused_by_name() {
    let findings = match_tables(
        &[table("shop.or*"), table("shop.*rs")],
        &names(&["shop.orders"]),
    )
    .expect_err("ambiguous");
    assert_eq!(
        findings[0].found,
        "table `shop.orders` matches both `shop.or*` and `shop.*rs`"
    );
}

#[test]
fn an_entry_without_a_table_is_a_finding() {
    let findings = match_tables(
        &[table("shop.order"), table("none.*")],
        &names(&["shop.orders"]),
    )
    .expect_err("nothing matches");
    assert_eq!(findings.len(), 2);
    assert!(findings[0].remedy.contains("did you mean `shop.orders`?"));
}

#[test]
fn a_wildcard_that_sends_two_tables_to_one_target_is_refused() {
    let findings = match_tables(&[table("*.orders")], &names(&["a.orders", "b.orders"]))
        .expect_err("one target");
    assert_eq!(findings[0].check, "targets");
}

#[test]
fn stars_stand_for_any_run_of_characters() {
    let matches = |pattern: &str, name: &str| {
        let name = TableName::new("d", name);
        table(&format!("d.{pattern}")).source.matches(&name)
    };
    assert!(matches("*", "orders"));
    assert!(matches("or*rs", "orders"));
    assert!(matches("*de*", "orders"));
    assert!(matches("a*a", "aa") && !matches("a*a", "a"));
    assert!(matches("*ab*ab", "xabab") && !matches("*ab*ab", "xab"));
    assert!(!matches("or*", "Orders"));
    let system = TableName::new("mysql", "user");
    assert!(!table("*.*").source.matches(&system));
}

#[test]
fn durations_and_sizes_arrive_in_their_units() {
    let pipe = good(EVERY_KEY);
    assert_eq!(pipe.sync.interval, Duration::from_secs(300));
    assert_eq!(pipe.sync.max_bytes, 1 << 30);
    assert_eq!(pipe.transforms["mask_email"].limits.memory_bytes, 128 << 20);
}

#[test]
fn a_cluster_is_refused_as_not_built() {
    let with = |cluster: &str| {
        MINIMAL.replace(
            "destination: { ",
            &format!("destination: {{ cluster: {cluster}, "),
        )
    };
    let problems = load_text(&with("c"), Secrets::Offline).expect_err("not built");
    let said = explain(&problems);
    assert!(said.contains("destination.cluster") && said.contains("one ClickHouse server"));
    good(&with("null"));
}

#[test]
fn what_is_excluded_no_wildcard_means() {
    let text = MINIMAL.replace("shop.orders", "shop.*\n  - source: shop.tmp_kept");
    let pipe = good(&format!("{text}exclude: [\"shop.tmp_*\", shop.old]\n"));
    let tables = names(&["shop.a", "shop.old", "shop.tmp_1", "shop.tmp_kept"]);
    let matched = match_tables(&pipe.tables, &tables).expect("each table once");
    let matched: Vec<String> = matched.iter().map(|(_, name)| name.to_string()).collect();
    assert_eq!(matched, ["shop.a", "shop.tmp_kept"]);
    let both = format!("{text}exclude: [shop.tmp_kept]\n");
    let problems = load_text(&both, Secrets::Offline).expect_err("named twice");
    assert!(explain(&problems).contains("which `tables` names"));
}

#[test]
fn the_ends_are_changed_key_by_key_and_never_to_plain_text_unsaid() {
    use serde_json::json;
    let base = good(MINIMAL);
    assert_eq!(base.source.tls.mode, TlsMode::Disabled);
    let laid = |change: serde_json::Value| lay_over(&base, &change, &Folders::default());
    let other = laid(json!({
        "source": { "host": "127.0.0.2", "password": "a$$b" },
        "destination": { "user": "other" },
    }))
    .expect("a change");
    assert_eq!(other.source.host, "127.0.0.2");
    assert_eq!(other.source.password.expose(), "a$b");
    assert_eq!(
        (&other.source.user, other.source.port),
        (&base.source.user, base.source.port)
    );
    assert_eq!(other.destination.user, "other");
    assert_eq!(other.destination.url, base.destination.url);
    let elsewhere =
        json!({ "source": { "host": "db.example.com", "tls": { "mode": "required" } } });
    assert_eq!(
        laid(elsewhere).expect("a change").source.tls.mode,
        TlsMode::Required
    );
    for (refused, why) in [
        (
            json!({ "source": { "host": "db.example.com" } }),
            "without encryption",
        ),
        (
            json!({ "source": { "type": "mariadb" } }),
            "keeps for its life",
        ),
        (
            json!({ "destination": { "database": "x" } }),
            "keeps for its life",
        ),
        (
            json!({ "source": { "password": "${file:/etc/hostname}" } }),
            "--secrets-dir",
        ),
        (
            json!({ "source": { "password": ["canary"] } }),
            "source.password",
        ),
        (json!({ "source": { "hostt": "x" } }), "hostt"),
    ] {
        let problems = laid(refused.clone()).expect_err("no change");
        let text = explain(&problems);
        assert!(
            text.contains(why) && !text.contains("canary"),
            "{refused}: {text}"
        );
    }
}
