//! The table maps of the open group.
//!
//! An id is valid within its group only (pitfall 52), but a busy table sends the same map with every statement: maps are
//! kept with their bytes, and the same bytes again make the kept one valid for the present group. So a map is parsed
//! once, and whoever checks it against the recorded table does so once as well.

use std::collections::HashMap;
use std::sync::Arc;

use super::table_map::TableMapHead;
use super::{TableFilter, TableMap};
use crate::error::{Error, ErrorKind, Result};

/// Maps kept between groups.
const MAPS_MAX: usize = 4096;

/// Ends a statement without being of a table.
const DUMMY_TABLE: u64 = 0xff_ffff;

/// Table maps by id, of the present group and kept from earlier ones.
#[derive(Debug, Default)]
pub(super) struct Maps {
    group: u64,
    known: HashMap<u64, KnownMap>,
}

#[derive(Debug)]
struct KnownMap {
    group: u64,
    body: Vec<u8>,
    /// None for a table that is not replicated.
    map: Option<Arc<TableMap>>,
}

impl Maps {
    /// A group begins: no map is valid any more.
    pub(super) fn next_group(&mut self) {
        self.group += 1;
    }

    /// Nothing kept may be used again: another file, or other tables are wanted.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// Takes the body of a TABLE_MAP event.
    ///
    /// # Errors
    /// As [`TableMapHead::parse`] and [`TableMapHead::columns`].
    pub(super) fn add(&mut self, body: &[u8], filter: &TableFilter) -> Result<()> {
        let head = TableMapHead::parse(body)?;
        if let Some(known) = self.known.get_mut(&head.id)
            && known.body == body
        {
            known.group = self.group;
            return Ok(());
        }
        if self.known.len() >= MAPS_MAX {
            let present = self.group;
            self.known.retain(|_, known| known.group == present);
        }
        let map = match filter.wants(&head.name()) {
            true => Some(Arc::new(head.columns()?)),
            false => None,
        };
        let known = KnownMap {
            group: self.group,
            body: body.to_vec(),
            map,
        };
        self.known.insert(head.id, known);
        Ok(())
    }

    /// The map of that id in the present group; none for a table that is not replicated.
    ///
    /// # Errors
    /// `SourceCorrupt` when the group has no such map.
    pub(super) fn find(&self, id: u64) -> Result<Option<&Arc<TableMap>>> {
        match self.known.get(&id) {
            Some(known) if known.group == self.group => Ok(known.map.as_ref()),
            _ if id == DUMMY_TABLE => Ok(None),
            _ => Err(Error::new(
                ErrorKind::SourceCorrupt,
                format!("the source sent rows of table id {id} without its table map"),
            )
            .with_hint(
                "if it recurs, the binlog file is damaged: run mysqlbinlog --verify-binlog-checksum, then resync the pipe",
            )),
        }
    }
}
