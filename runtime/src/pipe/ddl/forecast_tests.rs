//! What `plan --ddl` tells of statements.

use super::*;
use crate::config::{Secrets, load};

const FILE: &str = r#"
version: 1
pipe: shop
source: { type: mysql, host: 127.0.0.1, user: pipewright }
destination: { url: "http://127.0.0.1:8123" }
tables:
  - source: shop.orders
  - source: tenant_*.orders
  - source: tenant_*.items
exclude: [tenant_9.*]
ddl: { rename_column: quarantine, drop_table: ignore }
"#;

fn told(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pipe.yaml");
    std::fs::write(&file, FILE).expect("a file");
    let pipes = load(&[file], &|_| None, Secrets::Offline).expect("a good file");
    let found = forecast(&pipes[0], text);
    found.iter().map(Forecast::to_string).collect()
}

#[test]
fn a_change_of_a_columns_name_is_told_as_a_rename() {
    let found = told("ALTER TABLE shop.orders CHANGE a b INT");
    let [renamed, defined] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(
        renamed,
        "shop.orders: RENAME COLUMN `a` TO `b`: the table is taken out of service until a person decides"
    );
    assert!(
        defined.starts_with("shop.orders: new definition of `b`: altered in place"),
        "{defined}"
    );
    let found = told("ALTER TABLE shop.orders CHANGE a a BIGINT");
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_table_that_is_created_is_told_as_new_unless_it_replaces_another() {
    let found = told("CREATE TABLE tenant_1.orders (id INT PRIMARY KEY)");
    let new = "tenant_1.orders: CREATE TABLE: it joins the pipe";
    assert!(
        matches!(found.as_slice(), [one] if one.starts_with(new)),
        "{found:?}"
    );
    let found = told("CREATE OR REPLACE TABLE tenant_1.orders (id INT PRIMARY KEY)");
    let loaded = "tenant_1.orders: CREATE OR REPLACE TABLE: the table is loaded anew";
    assert!(
        matches!(found.as_slice(), [one] if one.starts_with(loaded)),
        "{found:?}"
    );
}

#[test]
fn a_database_that_is_dropped_is_told_for_each_entry_that_reaches_into_it() {
    let stays = "DROP DATABASE: the destination stays as it is";
    assert_eq!(
        told("DROP DATABASE tenant_1"),
        [
            format!("tenant_1.orders: {stays}"),
            format!("tenant_1.items: {stays}")
        ]
    );
    assert_eq!(
        told("DROP DATABASE shop"),
        [format!("shop.orders: {stays}")]
    );
    for other in ["tenant_9", "tenants"] {
        assert_eq!(told(&format!("DROP DATABASE {other}")), [""; 0]);
    }
}
