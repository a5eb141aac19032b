//! Which targets do not hold all up to the pipe's checkpoint.
//!
//! Every checkpoint tells it, and most change no table: the list of the last look stays for as long as no record says
//! something else of its table, and no foreign key has come. What has changed is found without a look at the other tables.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::heal::{Kinship, Silent};
use super::mirror::position_text;
use super::record::{Records, TableRecord};
use super::table_state::TableState;
use crate::batch::TableName;
use crate::destination::clickhouse::Incomplete;
use crate::error::Result;
use crate::source::mysql::position::Position;

/// The list as it was made last, with what it was made of.
#[derive(Debug, Default)]
pub(super) struct LastLook(Mutex<Option<Look>>);

#[derive(Debug)]
struct Look {
    tables: OrdMap<TableName, Arc<TableRecord>>,
    /// How often the kinship had learned.
    learned: u64,
    incomplete: Arc<Incomplete>,
}

impl LastLook {
    /// As [`Records::incomplete`], of one run's kinship.
    ///
    /// # Errors
    /// As [`Records::incomplete`].
    pub(super) fn incomplete(
        &self,
        records: &Records,
        kinship: &Kinship,
    ) -> Result<Arc<Incomplete>> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the foreign keys are read: what comes meanwhile is for the next look.
        let learned = kinship.learned();
        let still = last.as_ref().filter(|look| {
            look.learned == learned && look.tables.diff(&records.tables).all(tells_nothing_else)
        });
        let incomplete = match still {
            Some(look) => Arc::clone(&look.incomplete),
            None => Arc::new(records.incomplete(kinship)?),
        };
        *last = Some(Look {
            tables: records.tables.clone(),
            learned,
            incomplete: Arc::clone(&incomplete),
        });
        Ok(incomplete)
    }
}

/// Whether the list is the same behind this change.
fn tells_nothing_else(change: DiffItem<'_, '_, TableName, Arc<TableRecord>>) -> bool {
    let DiffItem::Update {
        old: (_, old),
        new: (_, new),
    } = change
    else {
        return false;
    };
    let is_removed = |table: &TableRecord| table.state == TableState::Removed;
    held(old) == held(new)
        && is_removed(old) == is_removed(new)
        && old.state.is_in_stream() == new.state.is_in_stream()
        && old.targets().eq(new.targets())
        && old.left == new.left
}

/// Up to where a table's targets hold what the source had.
#[derive(PartialEq, Eq)]
enum Held<'a> {
    /// As far as the pipe's checkpoint, or further.
    AtCheckpoint,
    /// Its own place.
    UpTo(&'a Position),
    /// No place can be named.
    Unknown,
}

fn held(table: &TableRecord) -> Held<'_> {
    let live_is_whole = table.whole && table.inexact.is_none() && !table.cascaded;
    if !live_is_whole || table.is_loading_alone() {
        return Held::Unknown;
    }
    match &table.state {
        TableState::Streaming => Held::AtCheckpoint,
        // Beside a live table that the stream goes on to fill.
        TableState::Pending | TableState::Snapshotting if table.shadow.is_some() => {
            Held::AtCheckpoint
        }
        TableState::Quarantined(_) | TableState::CatchingUp => match &table.place {
            Some(own) => Held::UpTo(&own.place.position),
            None => Held::Unknown,
        },
        TableState::Pending | TableState::Snapshotting | TableState::Removed => Held::Unknown,
    }
}

/// Adds that the targets of `table` hold all up to `up_to`; where they are said to end elsewhere too, no place can be named.
fn add(incomplete: &mut Incomplete, table: &TableRecord, up_to: &str) {
    for target in table.targets() {
        incomplete
            .entry(target.to_owned())
            .and_modify(|known| {
                if known != up_to {
                    known.clear();
                }
            })
            .or_insert_with(|| up_to.to_owned());
    }
}

impl Records {
    /// The targets that do not hold all up to the checkpoint, also former ones that still stand. Tables whose rows follow
    /// those of a table out of service lack what has followed since.
    ///
    /// # Errors
    /// As [`position_text`].
    pub(super) fn incomplete(&self, kinship: &Kinship) -> Result<Incomplete> {
        let mut incomplete = Incomplete::new();
        let mut former: BTreeSet<&str> = BTreeSet::new();
        for (name, table) in &self.tables {
            former.extend(table.left.iter().map(String::as_str));
            let up_to = match held(table) {
                Held::AtCheckpoint => continue,
                Held::UpTo(position) => position_text(position)?,
                Held::Unknown => String::new(),
            };
            if table.state == TableState::Removed {
                former.extend(table.targets());
                continue;
            }
            add(&mut incomplete, table, &up_to);
            if !table.state.is_in_stream() {
                let followers = kinship.reached(name, Silent::ANY);
                for follower in followers.iter().filter_map(|name| self.tables.get(name)) {
                    add(&mut incomplete, follower, &up_to);
                }
            }
        }
        if !former.is_empty() {
            let carried = self.tables.values();
            for table in carried.filter(|table| table.state != TableState::Removed) {
                for target in table.targets() {
                    former.remove(target);
                }
            }
            let former = former.into_iter();
            incomplete.extend(former.map(|target| (target.to_owned(), String::new())));
        }
        Ok(incomplete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::lost::tests::{place, table};
    use crate::pipe::record::TablePlace;
    use crate::source::mysql::binlog::ddl::Cascade;

    fn records() -> Records {
        let whole = |table: &mut TableRecord| table.whole = true;
        Records {
            tables: ["parent", "child", "other"]
                .into_iter()
                .map(|name| table(name, whole))
                .collect(),
            ..Records::default()
        }
    }

    /// The same list, not made anew.
    fn same(one: &Arc<Incomplete>, other: &Arc<Incomplete>) -> bool {
        Arc::ptr_eq(one, other)
    }

    #[test]
    fn the_list_is_made_anew_where_a_table_says_something_else_and_at_no_other_change() {
        let (look, kinship) = (LastLook::default(), Kinship::default());
        let mut records = records();
        let name = records.tables.keys().next().expect("a table").clone();
        let of = |records: &Records| look.incomplete(records, &kinship).expect("a list");
        let first = of(&records);
        assert!(first.is_empty());
        records.table_mut(&name).rows_loaded += 1;
        records.rows.entry(name.clone()).or_default().inserted += 1;
        assert!(same(&first, &of(&records)));

        records.table_mut(&name).state = TableState::CatchingUp;
        let unknown = of(&records);
        assert!(!same(&first, &unknown) && unknown.values().eq([""]));
        for offset in [5, 6] {
            records.table_mut(&name).place = Some(TablePlace {
                term: None,
                place: place(offset),
                sent: None,
                as_of_us: None,
            });
            let at = position_text(&place(offset).position).expect("a text");
            assert!(of(&records).values().eq([&at]));
        }
        records.table_mut(&name).state = TableState::Streaming;
        assert!(of(&records).is_empty());
        records.table_mut(&name).routed = vec!["routed".to_owned()];
        records.table_mut(&name).cascaded = true;
        assert_eq!(of(&records).len(), 2);
        records.table_mut(&name).cascaded = false;
        records.table_mut(&name).routed.clear();
        records.table_mut(&name).left = vec!["routed".to_owned()];
        assert!(of(&records).keys().eq(["routed"]));
        records.tables.remove(&name);
        assert!(of(&records).is_empty());
    }

    #[test]
    fn a_foreign_key_that_has_come_makes_the_list_anew_of_the_same_records() {
        let (look, kinship) = (LastLook::default(), Kinship::default());
        let mut records = records();
        let named = |records: &Records, table: &str| {
            let mut names = records.tables.keys();
            names.find(|name| name.table == table).expect("it").clone()
        };
        let (parent, child) = (named(&records, "parent"), named(&records, "child"));
        records.table_mut(&parent).state = TableState::CatchingUp;
        let before = look.incomplete(&records, &kinship).expect("a list");
        assert!(before.keys().eq(["parent"]));
        kinship.take_in([(
            child,
            vec![Cascade {
                parent,
                on_delete: true,
                on_update: false,
                columns: Vec::new(),
            }],
        )]);
        let after = look.incomplete(&records, &kinship).expect("a list");
        assert!(after.keys().eq(["child", "parent"]));
    }
}
