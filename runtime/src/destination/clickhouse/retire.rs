//! Target tables whose source is gone: put away under another name, or dropped.

use super::client::{ClickHouse, STATEMENT_TIMEOUT};
use super::ddl;
use super::failure::Doing;
use super::tables::Owner;
use super::target::TargetTable;
use super::writer::Durable;
use crate::batch::Version;
use crate::error::Result;

const DOING: Doing<'static> = Doing::Definition("to put a table away");

impl ClickHouse {
    /// Puts the owner's table `target` under the name `archive`, or one that is free where a former pipe has left that, or
    /// drops it where none is given, and drops its view. What is not the owner's is left alone. Repeatable.
    ///
    /// # Errors
    /// As any statement.
    pub async fn retire(&self, target: &str, archive: Option<&str>, owner: &Owner) -> Result<()> {
        let view = format!("{target}_current");
        let ours = |comment: &str| comment == owner.to_string();
        if let Some(found) = self.inspect(&view).await?
            && found.engine == "View"
            && ours(&found.comment)
        {
            let sql = ddl::drop_view(self.database(), &view);
            self.run(&sql, DOING, STATEMENT_TIMEOUT).await?;
        }
        let Some(found) = self.inspect(target).await? else {
            return Ok(());
        };
        if !ours(&found.comment) {
            return Ok(());
        }
        let Some(archive) = archive else {
            return self.drop_table(target).await;
        };
        let free = self.free_name(archive, &found.uuid.0).await?;
        let sql = ddl::rename(self.database(), target, &free);
        self.run(&sql, DOING, STATEMENT_TIMEOUT).await
    }

    /// Lets go of the owner's table `target`, which no rows go to any more: it stays for whoever reads it, and is taken over
    /// by nobody with the rows that it has. Repeatable.
    ///
    /// # Errors
    /// As any statement.
    pub async fn let_go(&self, target: &str, owner: &Owner) -> Result<()> {
        match self.inspect(target).await? {
            Some(found) if found.comment == owner.to_string() => {
                let comment = format!("left by pipe {}", owner.pipe());
                let sql = ddl::set_comment(self.database(), target, &comment);
                self.run(&sql, DOING, STATEMENT_TIMEOUT).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Copies every row that lives below `version` into a table of its own, whose name says so. Repeatable. An append table
    /// keeps every row itself.
    ///
    /// # Errors
    /// As [`ClickHouse::insert`].
    pub async fn archive_below(&self, target: &TargetTable, version: Version) -> Result<Durable> {
        if target.is_append() {
            return Ok(Durable::of_no_rows());
        }
        let name = format!("{}_truncated_{}", target.name(), version.get());
        let tag = |error: crate::error::Error| error.with_table(target.source());
        let sql = ddl::create_like(target, &name);
        self.run(&sql, DOING, STATEMENT_TIMEOUT)
            .await
            .map_err(tag)?;
        let copy = self.inspect(&name).await.map_err(tag)?;
        let existing = copy.map(|copy| copy.columns).unwrap_or_default();
        // Those that the target keeps of earlier definitions belong to the copy; one that is computed takes no values.
        let synced_at = &target.system_columns().synced_at;
        let copied = existing
            .iter()
            .filter(|column| column.is_stored() && column.name != *synced_at);
        let columns = ddl::idents(copied.map(|column| column.name.as_str()));
        self.copy_below(target, &name, &columns, version).await
    }
}
