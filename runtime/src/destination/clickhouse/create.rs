//! Target tables and their views as they are made.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::client::{ClickHouse, STATEMENT_TIMEOUT};
use super::ddl;
use super::failure::Doing;
use super::misfits::{Misfit, in_words, misfits};
use super::tables::{
    Existing, ExistingColumn, ExistingTable, Owner, TARGETS_A_QUERY, in_the_way, occupation, remedy,
};
use super::target::TargetTable;
use crate::error::{Error, ErrorKind, Result};

/// Statements of one round that run at the same time.
const STATEMENTS_AT_ONCE: usize = 8;

const CREATING: Doing<'static> = Doing::Definition("to create a table");

impl ClickHouse {
    /// Creates tables and views, or finds them from an attempt of the same owner before. An empty table that fits is
    /// taken over. Never touches a table with rows that is not the owner's.
    ///
    /// # Errors
    /// `DestinationOccupied` for what is somebody else's or does not fit, else as any statement.
    pub async fn create_each(&self, targets: &[&TargetTable], owner: &Owner) -> Result<()> {
        for some in targets.chunks(TARGETS_A_QUERY) {
            self.create_some(some, owner).await?;
        }
        Ok(())
    }

    async fn create_some(&self, targets: &[&TargetTable], owner: &Owner) -> Result<()> {
        let views: Vec<String> = targets.iter().map(|target| target.view_name()).collect();
        let mut names: Vec<&str> = targets.iter().map(|target| target.name()).collect();
        let mut absent = names.clone();
        names.extend(views.iter().map(String::as_str));
        let mut existing = self.inspect_each(&names).await?;
        absent.retain(|name| !existing.contains_key(*name));
        let to_make = targets
            .iter()
            .filter(|target| absent.contains(&target.name()));
        all_of(to_make.map(|target| self.create_table(target, owner))).await?;
        if !absent.is_empty() {
            existing.extend(self.inspect_each(&absent).await?);
        }
        let each = targets.iter();
        all_of(each.map(|target| self.take_over(target, owner, &existing))).await
    }

    async fn create_table(&self, target: &TargetTable, owner: &Owner) -> Result<()> {
        let sql = ddl::create_table(target, Some(owner));
        let made = self.run(&sql, CREATING, STATEMENT_TIMEOUT).await;
        made.map_err(|error| error.with_table(target.source()))
    }

    /// Takes the table that stands for `target` by now, and sees that its view does.
    async fn take_over(
        &self,
        target: &TargetTable,
        owner: &Owner,
        existing: &Existing,
    ) -> Result<()> {
        let tag = |error: Error| error.with_table(target.source());
        let Some(table) = existing.get(target.name()) else {
            return Err(tag(Error::new(
                ErrorKind::DestinationDenied,
                format!("table `{}` was created and is not visible", target.name()),
            )
            .with_hint(format!(
                "GRANT SHOW ON {}.* TO {}",
                ddl::ident(self.database()),
                self.user()
            ))));
        };
        if let Some(occupied) = occupation(target, table, owner) {
            return Err(occupied);
        }
        if let Some(unfit) = unfit(target, &misfits(target, table)) {
            return Err(unfit);
        }
        if table.comment != owner.to_string() {
            let sql = ddl::set_comment(target.database(), target.name(), &owner.to_string());
            self.run(&sql, CREATING, STATEMENT_TIMEOUT)
                .await
                .map_err(tag)?;
        }
        let view = existing.get(&target.view_name());
        if target.is_beside() || view.is_some_and(|view| shows(view, target, table, owner)) {
            return Ok(());
        }
        self.make_view(target, owner, view).await
    }

    pub(super) async fn refresh_view(&self, target: &TargetTable, owner: &Owner) -> Result<()> {
        if target.is_beside() {
            return Ok(());
        }
        let existing = self.inspect(&target.view_name()).await?;
        self.make_view(target, owner, existing.as_ref()).await
    }

    async fn make_view(
        &self,
        target: &TargetTable,
        owner: &Owner,
        existing: Option<&ExistingTable>,
    ) -> Result<()> {
        if let Some(problem) = in_the_way(target, owner, existing) {
            return Err(problem);
        }
        self.run(
            &ddl::create_view(target, Some(owner)),
            Doing::Definition("to create a view"),
            STATEMENT_TIMEOUT,
        )
        .await
        .map_err(|error| error.with_table(target.source()))
    }
}

/// Whether `view` shows the present columns of `table`, which is the target's.
fn shows(view: &ExistingTable, target: &TargetTable, table: &ExistingTable, owner: &Owner) -> bool {
    let shown = target.columns().iter().map(|column| {
        let mut found = table.columns.iter();
        found.find(|existing| existing.name == column.name)
    });
    let is_same = |(shown, column): (Option<&ExistingColumn>, &ExistingColumn)| {
        shown.is_some_and(|shown| {
            (&shown.name, &shown.column_type) == (&column.name, &column.column_type)
        })
    };
    view.engine == "View"
        && view.comment == owner.to_string()
        && view.columns.len() == target.columns().len()
        && shown.zip(&view.columns).all(is_same)
}

/// All of `misfits` as one error, and the statements that mend them.
fn unfit(target: &TargetTable, misfits: &[Misfit]) -> Option<Error> {
    if misfits.is_empty() {
        return None;
    }
    let name = ddl::qualified(target.database(), target.name());
    let remedies: Vec<String> = misfits
        .iter()
        .map(|misfit| remedy(target, misfit))
        .collect();
    let mut distinct = remedies;
    distinct.dedup();
    Some(
        Error::new(
            ErrorKind::DestinationOccupied,
            format!(
                "target {name} exists and does not fit: {}",
                in_words(misfits)
            ),
        )
        .with_hint(distinct.join("; "))
        .with_table(target.source()),
    )
}

/// Does all of `work`, several at the same time.
async fn all_of(work: impl Iterator<Item = impl Future<Output = Result<()>>>) -> Result<()> {
    // As a list: the compiler does not see that a closure's futures may be sent to another thread.
    let work: Vec<_> = work.collect();
    stream::iter(work)
        .buffer_unordered(STATEMENTS_AT_ONCE)
        .try_collect()
        .await
}
