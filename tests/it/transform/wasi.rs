//! A guest that asks WASI for everything, and gets nothing.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use pipewright::batch::ChangeBatch;
use pipewright::error::{Error, ErrorKind};
use pipewright::transform::Chain;
use serde_json::json;

use super::{apply, built, config, engine, load_batch, schema, texts};

fn guest() -> &'static Path {
    static PATH: OnceLock<std::path::PathBuf> = OnceLock::new();
    built(&PATH, "tests/guests/wasi")
}

async fn ask(what: &str) -> Result<ChangeBatch, Error> {
    let mut config = config(guest(), json!({ "ask": what }));
    config.limits.time = Duration::from_secs(2);
    let plugin = engine().load("under_test", &config).await?;
    let chain = Chain::bind(&[plugin], schema()).await?;
    apply(&chain, load_batch()).await
}

#[tokio::test]
async fn what_wasi_could_give_is_there_and_gives_nothing() {
    for (what, got) in [
        (
            "environment",
            "0 variables, 0 arguments, folder None, terminals [false, false, false]",
        ),
        ("files", "0 folders"),
        ("clocks", "[0, 0] (0, 0) (0, 0)"),
        ("sleep", "ready [0]"),
        ("random", "the same [true, true, true, true, true]"),
        ("streams", "read nothing, written true and true"),
        ("network", "address false, sockets false and false"),
        ("http", "sent false"),
    ] {
        let after = ask(what)
            .await
            .unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
        assert_eq!(texts(&after, 4)[0].as_deref(), Some(got), "{what}");
    }
}

#[tokio::test]
async fn what_a_guest_may_not_do_to_its_host_ends_the_guest() {
    for (what, kind, words) in [
        ("exit", ErrorKind::PluginOutput, "the guest called exit"),
        ("forged", ErrorKind::PluginOutput, "handle"),
        ("greed", ErrorKind::PluginOutput, "too many random bytes"),
    ] {
        let error = ask(what).await.expect_err(what);
        assert_eq!(error.kind(), kind, "{what}: {}", error.chain());
        assert!(error.chain().contains(words), "{what}: {}", error.chain());
    }
    // Until its time, its memory or the host's table of handles is used up.
    let error = ask("handles").await.expect_err("it never ends by itself");
    let kinds = [
        ErrorKind::PluginTimeout,
        ErrorKind::PluginMemory,
        ErrorKind::PluginTrap,
        ErrorKind::PluginOutput,
    ];
    assert!(kinds.contains(&error.kind()), "{}", error.chain());
    ask("files").await.expect("the host goes on");
}
