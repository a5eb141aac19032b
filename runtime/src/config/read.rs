//! One document into one [`PipeConfig`]: the keys at its top, and the short sections below them.
//!
//! Each default is a constant with its reason, which the JSON Schema of [`super::schema`] shows too.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::across::{Outline, Replica, TableOutline};
use super::field::Field;
use super::node::Node;
use super::section::{Checks, Section};
use super::{
    Cascades, DdlPolicies, Keyless, Mode, ObjectivesConfig, PipeConfig, RowImage, Secrets,
    SnapshotConfig, SourceConfig, SyncConfig, SystemColumns, TableConfig, TablePattern,
    TransformConfig, TypePolicies, ddl, ends, policies, tables, transforms,
};

/// As ClickPipes: enough to keep a server of ordinary size busy, few enough not to hurt its other users.
pub(super) const THREADS_PER_TABLE: u32 = 4;
/// As ClickPipes: one table after the other keeps the number of source connections low.
pub(super) const TABLES_IN_PARALLEL: u32 = 1;
/// As ClickPipes: a partition is what a crash reads again.
pub(super) const ROWS_PER_PARTITION: u32 = 100_000;
/// The lock lasts for an instant, and fits every table; the binlog alone does not.
pub(super) const ALLOW_LOCKS: bool = true;
/// A second behind is the promise; ClickPipes waits for 60 s.
pub(super) const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// As ClickPipes.
pub(super) const SYNC_MAX_ROWS: u64 = 100_000;
/// Large enough for ClickHouse to make parts of a good size, small enough to hold several at once.
pub(super) const SYNC_MAX_BYTES: u64 = 64 << 20;
/// Room for batches of [`SYNC_MAX_BYTES`].
pub(super) const MEMORY_BYTES: u64 = 512 << 20;
/// The names of our columns.
pub(super) const SYSTEM_COLUMNS: [&str; 3] = ["_version", "_is_deleted", "_synced_at"];

/// Keys of the design that another version brings, at the top of a document.
const UNBUILT: [(&str, &str); 1] = [(
    "grants",
    "put it below the transform: `transforms.NAME.grants`",
)];

/// Reads one document. Complains of all that is wrong with it; what could be made out for the rules across pipes comes
/// back in any case.
pub(super) fn pipe(
    document: &Node,
    checks: &Checks,
    secrets: Secrets,
) -> (Option<PipeConfig>, Option<Outline>) {
    let root = Field {
        checks,
        node: document,
        path: String::new(),
    };
    let Some(mut root) = root.section() else {
        return (None, None);
    };
    version(&mut root);
    let name_field = root.required(
        "pipe",
        "the pipe's name",
        "give it a name of its own, such as `pipe: shop`",
    );
    let name = name_field.as_ref().and_then(name);
    let mode = root.or("mode", Mode::default(), |field| mode(&field));
    let source_field = root.required(
        "source",
        "a map that says where rows come from",
        "add `source:` with type, host, user and password",
    );
    let source = source_field
        .as_ref()
        .and_then(|field| ends::source(field, secrets));
    let destination = root
        .required(
            "destination",
            "a map that says where rows go",
            "add `destination:` with url, database, user and password",
        )
        .and_then(|field| ends::destination(&field));
    let rows = rows(&mut root, secrets);
    let choices = choices(&mut root, secrets);
    for (key, instead) in UNBUILT {
        root.unbuilt(key, instead);
    }
    root.finish();

    let outline = Outline {
        file: checks.file().to_owned(),
        pipe: name_field
            .zip(name)
            .map(|(field, name)| (name.to_owned(), field.node.place)),
        destination: destination
            .as_ref()
            .map(|destination| (destination.url.clone(), destination.database.clone())),
        replica: source_field
            .zip(source.as_ref())
            .and_then(|(field, source)| replica(&field, source)),
        tables: rows.outlines,
    };
    let config = || {
        Some(PipeConfig {
            pipe: name?.to_owned(),
            mode: mode?,
            source: source?,
            destination: destination?,
            tables: rows.tables?,
            exclude: rows.exclude?,
            transforms: rows.transforms?,
            keyless: rows.keyless?,
            snapshot: choices.snapshot?,
            sync: choices.sync?,
            system_columns: choices.system_columns?,
            nullable: choices.nullable?,
            types: choices.types?,
            follow_new_tables: choices.follow_new_tables?,
            row_image: choices.row_image?,
            cascades: choices.cascades?,
            ddl: choices.ddl?,
            objectives: choices.objectives?,
            memory_bytes: choices.memory_bytes?,
            spill_dir: choices.spill_dir?,
        })
    };
    (config(), Some(outline))
}

/// Which rows a pipe copies, and through what; none where something is wrong.
struct Rows {
    transforms: Option<BTreeMap<String, TransformConfig>>,
    keyless: Option<Keyless>,
    tables: Option<Vec<TableConfig>>,
    exclude: Option<Vec<TablePattern>>,
    outlines: Vec<TableOutline>,
}

fn rows(root: &mut Section<'_>, secrets: Secrets) -> Rows {
    let transforms_field = root.get("transforms");
    let (transforms, transform_names) = match &transforms_field {
        Some(field) => transforms::read(field, secrets),
        None => (Some(BTreeMap::new()), Vec::new()),
    };
    let keyless = root.or("keyless", Keyless::Refuse, |field| tables::keyless(&field));
    let table_list = root
        .required(
            "tables",
            "a list of tables",
            "add `tables:` with one `- source: database.table` line a table",
        )
        .map(|field| tables::read(&field, &transform_names, keyless.unwrap_or_default()));
    let (mut tables, outlines) = table_list.unwrap_or_default();
    let exclude = root.or("exclude", Vec::new(), |field| {
        tables::excluded(&field, tables.as_deref().unwrap_or_default())
    });
    if let (Some(tables), Some(exclude)) = (&mut tables, &exclude) {
        tables::exclude(tables, exclude);
    }
    Rows {
        transforms,
        keyless,
        tables,
        exclude,
        outlines,
    }
}

/// How a pipe goes about it; none where something is wrong.
struct Choices {
    snapshot: Option<SnapshotConfig>,
    sync: Option<SyncConfig>,
    system_columns: Option<SystemColumns>,
    nullable: Option<bool>,
    types: Option<TypePolicies>,
    follow_new_tables: Option<bool>,
    row_image: Option<RowImage>,
    cascades: Option<Cascades>,
    ddl: Option<DdlPolicies>,
    objectives: Option<ObjectivesConfig>,
    memory_bytes: Option<u64>,
    spill_dir: Option<Option<PathBuf>>,
}

fn choices(root: &mut Section<'_>, secrets: Secrets) -> Choices {
    Choices {
        snapshot: root.or("snapshot", default_snapshot(), |field| {
            snapshot(&field, &default_snapshot())
        }),
        sync: root.or("sync", default_sync(), |field| {
            sync(&field, &default_sync())
        }),
        system_columns: root.or("system_columns", default_system_columns(), |field| {
            system_columns(&field)
        }),
        nullable: root.or("nullable", true, |field| field.boolean()),
        types: root.or("types", TypePolicies::default(), |field| {
            policies::pipe(&field)
        }),
        follow_new_tables: root.or("follow_new_tables", false, |field| field.boolean()),
        row_image: root.or("row_image", RowImage::Refuse, |field| row_image(&field)),
        cascades: root.or("cascades", Cascades::Warn, |field| {
            field.choice(
                &[("warn", Cascades::Warn), ("reload", Cascades::Reload)],
                &[],
            )
        }),
        ddl: root.or("ddl", DdlPolicies::default(), |field| ddl::read(&field)),
        objectives: root.or("objectives", ObjectivesConfig::default(), |field| {
            objectives(&field)
        }),
        memory_bytes: root.or("memory", MEMORY_BYTES, |field| {
            field.size(64 << 20..=1 << 40)
        }),
        spill_dir: root.maybe("spill_dir", |field| {
            let text = field.text()?;
            field.folder(text, secrets)
        }),
    }
}

fn name<'a>(field: &Field<'a>) -> Option<&'a str> {
    field.text_where(
        is_name,
        "up to 64 letters, digits, `_` and `-`",
        "the name becomes part of table comments and metric labels; choose a plain one",
    )
}

fn mode(field: &Field<'_>) -> Option<Mode> {
    field.choice(
        &[
            ("cdc", Mode::Cdc),
            ("snapshot", Mode::Snapshot),
            ("cdc_only", Mode::CdcOnly),
        ],
        &[],
    )
}

fn row_image(field: &Field<'_>) -> Option<RowImage> {
    field.choice(
        &[
            ("refuse", RowImage::Refuse),
            ("complete", RowImage::Complete),
        ],
        &[],
    )
}

/// The identity that the document pins, and where it does.
fn replica(field: &Field<'_>, source: &SourceConfig) -> Option<Replica> {
    let id = source.server_id?;
    let pinned = field.section()?.get("server_id")?;
    (!pinned.is_unresolved()).then(|| Replica {
        id: id.get(),
        servers: source
            .each_host()
            .map(|server| (server.host.to_lowercase(), server.port))
            .collect(),
        place: pinned.node.place,
    })
}

fn version(root: &mut Section<'_>) {
    let field = root.required("version", "`1`", "add `version: 1` as the first line");
    if let Some(field) = field {
        field.ensure_integer(1, "`1`, the only version of the pipe file so far");
    }
}

/// Reads `snapshot`; a key that is left out keeps its value in `defaults`.
pub(super) fn snapshot(field: &Field<'_>, defaults: &SnapshotConfig) -> Option<SnapshotConfig> {
    let mut section = field.section()?;
    let threads_per_table = section.or("threads_per_table", defaults.threads_per_table, |field| {
        field.positive()
    });
    let tables_in_parallel =
        section.or("tables_in_parallel", defaults.tables_in_parallel, |field| {
            field.positive()
        });
    let rows_per_partition =
        section.or("rows_per_partition", defaults.rows_per_partition, |field| {
            field.positive()
        });
    let allow_locks = section.or("allow_locks", defaults.allow_locks, |field| field.boolean());
    section.finish();
    Some(SnapshotConfig {
        threads_per_table: threads_per_table?,
        tables_in_parallel: tables_in_parallel?,
        rows_per_partition: rows_per_partition?,
        allow_locks: allow_locks?,
    })
}

/// Reads `sync`; a key that is left out keeps its value in `defaults`.
pub(super) fn sync(field: &Field<'_>, defaults: &SyncConfig) -> Option<SyncConfig> {
    let mut section = field.section()?;
    let interval = section.or("interval", defaults.interval, |field| {
        field.duration(Duration::from_millis(1)..=Duration::from_secs(24 * 3600))
    });
    let max_rows = section.or("max_rows", defaults.max_rows, |field| {
        field.integer(1..=u64::from(u32::MAX))
    });
    let max_bytes = section.or("max_bytes", defaults.max_bytes, |field| {
        field.size(64 << 10..=16 << 30)
    });
    section.finish();
    Some(SyncConfig {
        interval: interval?,
        max_rows: max_rows?,
        max_bytes: max_bytes?,
    })
}

fn objectives(field: &Field<'_>) -> Option<ObjectivesConfig> {
    let mut section = field.section()?;
    let longest = Duration::from_secs(365 * 24 * 3600);
    let lag = section.or("lag", None, |field| {
        field
            .duration(Duration::from_millis(100)..=longest)
            .map(Some)
    });
    let retention_headroom = section.or("retention_headroom", None, |field| {
        field.duration(Duration::from_secs(1)..=longest).map(Some)
    });
    section.finish();
    Some(ObjectivesConfig {
        lag: lag?,
        retention_headroom: retention_headroom?,
    })
}

fn system_columns(field: &Field<'_>) -> Option<SystemColumns> {
    let mut section = field.section()?;
    let mut names: Vec<&str> = Vec::new();
    let [version, deleted, synced_at] = SYSTEM_COLUMNS;
    for (key, default) in [
        ("version", version),
        ("deleted", deleted),
        ("synced_at", synced_at),
    ] {
        let field = section.get(key);
        let name = match &field {
            Some(field) => field.text_where(
                is_identifier,
                "letters, digits and `_`, no digit first",
                "choose a plain column name",
            ),
            None => Some(default),
        };
        if let Some(name) = name {
            if names.contains(&name) {
                field.as_ref().unwrap_or(&section.field).problem(
                    format!("the name of `{key}` a second time"),
                    "three names that differ",
                    "give each of version, deleted and synced_at its own name",
                );
            }
            names.push(name);
        }
    }
    section.finish();
    match names.as_slice() {
        [version, deleted, synced_at]
            if version != deleted && version != synced_at && deleted != synced_at =>
        {
            Some(SystemColumns {
                version: (*version).to_owned(),
                deleted: (*deleted).to_owned(),
                synced_at: (*synced_at).to_owned(),
            })
        }
        _ => None,
    }
}

fn default_snapshot() -> SnapshotConfig {
    let positive = |number| NonZeroU32::new(number).expect("the constants are positive");
    SnapshotConfig {
        threads_per_table: positive(THREADS_PER_TABLE),
        tables_in_parallel: positive(TABLES_IN_PARALLEL),
        rows_per_partition: positive(ROWS_PER_PARTITION),
        allow_locks: ALLOW_LOCKS,
    }
}

fn default_sync() -> SyncConfig {
    SyncConfig {
        interval: SYNC_INTERVAL,
        max_rows: SYNC_MAX_ROWS,
        max_bytes: SYNC_MAX_BYTES,
    }
}

/// Whether `section`, one of those whose keys commands may set, has this key.
pub fn is_setting(section: &str, key: &str) -> bool {
    // Their fields are named as their keys.
    let known = match section {
        "sync" => serde_json::to_value(default_sync()),
        "snapshot" => serde_json::to_value(default_snapshot()),
        _ => return false,
    };
    known.is_ok_and(|known| known.get(key).is_some())
}

fn default_system_columns() -> SystemColumns {
    let [version, deleted, synced_at] = SYSTEM_COLUMNS.map(str::to_owned);
    SystemColumns {
        version,
        deleted,
        synced_at,
    }
}

pub fn is_name(text: &str) -> bool {
    text.len() <= 64
        && !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn is_identifier(text: &str) -> bool {
    !text.starts_with(|first: char| first.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
