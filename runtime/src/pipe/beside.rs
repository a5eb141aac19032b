//! Tables at the destination that stand beside a live one: what a load fills, what an exchange puts aside, and what is kept
//! of a table that is gone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A table that a load fills beside the live one, to be exchanged for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    /// Its name at the destination.
    pub name: String,
    /// Whether the live table no longer receives the stream, because nothing connects it to the present place.
    pub alone: bool,
    /// What each of the two was before the exchange; persisted before it, so that it is never done twice.
    pub exchange: Option<Exchange>,
    /// The same for further targets, by the live table's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routed: BTreeMap<String, Exchange>,
}

impl Shadow {
    /// The name of the table beside `live`, which is `own` or a further target of the same table.
    pub fn name_for(&self, live: &str, own: &str) -> String {
        name_beside(&self.name, "_resync_", live, own)
    }

    /// The identities from before the exchange with `live`, once they are recorded.
    pub fn exchange_with(&self, live: &str, own: &str) -> Option<&Exchange> {
        match live == own {
            true => self.exchange.as_ref(),
            false => self.routed.get(live),
        }
    }

    /// The name that the changes of `live` from before the load are kept under.
    pub fn history_of(&self, live: &str, own: &str) -> String {
        let beside = self.name_for(live, own);
        match beside.rsplit_once("_resync_") {
            Some((name, generation)) => format!("{name}_history_{generation}"),
            None => format!("{beside}_history"),
        }
    }
}

/// The name for `live` that goes with the name `given` to `own`, of which it is a further target or itself.
fn name_beside(given: &str, mark: &str, live: &str, own: &str) -> String {
    match given.rsplit_once(mark) {
        Some((_, generation)) if live != own => format!("{live}{mark}{generation}"),
        _ => given.to_owned(),
    }
}

/// What is to become of a target whose source is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retire {
    /// The name that it is kept under; without one it is dropped.
    pub archive: Option<String>,
}

impl Retire {
    /// The name that `live` is kept under, which is `own` or a further target of the same table.
    pub fn archive_of(&self, live: &str, own: &str) -> Option<String> {
        let archive = self.archive.as_deref()?;
        Some(name_beside(archive, "_dropped_", live, own))
    }
}

/// The identities before an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// The live table's; none when it was gone, and the shadow is renamed.
    pub live: Option<String>,
    /// The shadow's.
    pub shadow: String,
    /// Whether the live table keeps every change, which its source does not have: it is put away, not dropped.
    #[serde(default)]
    pub history: bool,
}

/// A table that a load has made beside a live one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenBeside")]
pub struct Beside {
    /// Its name at the destination.
    pub name: String,
    /// Where an exchange has begun that keeps the live table's changes: when it is done, they are here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
}

/// Former builds wrote the name alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenBeside {
    Name(String),
    Whole {
        name: String,
        #[serde(default)]
        history: Option<History>,
    },
}

impl From<WrittenBeside> for Beside {
    fn from(written: WrittenBeside) -> Self {
        let (name, history) = match written {
            WrittenBeside::Name(name) => (name, None),
            WrittenBeside::Whole { name, history } => (name, history),
        };
        Self { name, history }
    }
}

/// What was live before an exchange, with changes that no load brings back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Its identity.
    pub identity: String,
    /// The name that it is to be kept under.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_former_build_wrote_of_a_given_up_load_is_read() {
        let read: Vec<Beside> = serde_json::from_str(r#"["t_resync_3", { "name": "t_resync_4" }]"#)
            .expect("both forms");
        let names: Vec<&str> = read.iter().map(|beside| beside.name.as_str()).collect();
        assert_eq!(names, ["t_resync_3", "t_resync_4"]);
        let again = serde_json::to_string(&read).expect("text");
        assert_eq!(
            serde_json::from_str::<Vec<Beside>>(&again).expect("its own form"),
            read
        );
    }
}
