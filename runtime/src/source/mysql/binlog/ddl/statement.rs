//! From tokens to a class.

use super::clauses::clauses;
use super::tokens::{Quoting, Token, tokens};
use super::{Alter, Class, Classified, Clause, Control, Dialect};
use crate::batch::TableName;
use crate::source::mysql::binlog::event::Query;
use crate::source::mysql::binlog::xa::Xid;
use crate::source::mysql::decode::{Charset, charset_of_collation};

const MODE_ANSI_QUOTES: u64 = 0x4;
const MODE_NO_BACKSLASH_ESCAPES: u64 = 0x10_0000;

/// Statements that begin with one of these words touch neither rows nor definitions of ours.
const WITHOUT_EFFECT: [&str; 22] = [
    "ANALYZE",
    "CACHE",
    "CHANGE",
    "CHECK",
    "CHECKSUM",
    "DEALLOCATE",
    "FLUSH",
    "GRANT",
    "INSTALL",
    "KILL",
    "LOCK",
    "OPTIMIZE",
    "PREPARE",
    "PURGE",
    "REPAIR",
    "RESET",
    "REVOKE",
    "SET",
    "SHOW",
    "UNINSTALL",
    "UNLOCK",
    "USE",
];

/// Kinds of objects that CREATE, ALTER, DROP and RENAME may name without concerning us. SEQUENCE is one: its row events
/// are a sequence's own, and it is no table of ours.
const OTHER_OBJECTS: [&str; 19] = [
    "VIEW",
    "TRIGGER",
    "PROCEDURE",
    "FUNCTION",
    "EVENT",
    "USER",
    "ROLE",
    "SERVER",
    "TABLESPACE",
    "LOGFILE",
    "INSTANCE",
    "RESOURCE",
    "REFERENCE",
    "SEQUENCE",
    "PACKAGE",
    "INDEX",
    "LIBRARY",
    "UNDO",
    "PREPARE",
];

/// Says what the statement of `query` does; its text must be plain.
pub(in super::super) fn classify(query: &Query<'_>, dialect: Dialect) -> Classified {
    let quoting = Quoting {
        ansi_quotes: query.sql_mode & MODE_ANSI_QUOTES != 0,
        no_backslash_escapes: query.sql_mode & MODE_NO_BACKSLASH_ESCAPES != 0,
    };
    let utf8 = in_utf8(query);
    let text = utf8.as_deref().map_or(query.text, str::as_bytes);
    let reader = |rest| Reader {
        rest,
        query,
        dialect,
        tables: Vec::new(),
    };
    let tokens = match tokens(text, quoting) {
        Ok(tokens) => tokens,
        // The body of a routine may be in another language (MySQL's LANGUAGE JAVASCRIPT AS $$ ... $$).
        Err(front) => {
            let mut reader = reader(&front);
            let class = match reader.word("CREATE") && reader.names_other_object() {
                true => Class::NoEffect,
                false => Class::Unknown,
            };
            let tables = Vec::new();
            return Classified { class, tables };
        }
    };
    let statement = without_set_statement(&tokens);
    let mut known = reader(statement);
    match known.statement() {
        Some(class) => Classified {
            class,
            tables: known.tables,
        },
        None => {
            let mut unknown = reader(statement);
            // A table in part of the names tells nothing of the others.
            let tables = match unknown.names_before(&[]) {
                Some(_) => unknown.tables,
                None => Vec::new(),
            };
            Classified {
                class: Class::Unknown,
                tables,
            }
        }
    }
}

/// Statements are logged in the client's charset, where a quote or backslash may be a part of a character; none for one
/// that is UTF-8, or is no text in the client's charset.
fn in_utf8(query: &Query<'_>) -> Option<String> {
    let charset = Charset::named(charset_of_collation(query.client_collation.into())?)?;
    match charset {
        Charset::Utf8 => None,
        charset => charset.text(query.text),
    }
}

/// MariaDB's `SET STATEMENT a = b, ... FOR statement` is the statement (pitfall 88).
fn without_set_statement(tokens: &[Token]) -> &[Token] {
    match tokens {
        [set, statement, rest @ ..] if set.is("SET") && statement.is("STATEMENT") => rest
            .iter()
            .position(|token| token.is("FOR"))
            .and_then(|index| rest.get(index + 1..))
            .unwrap_or_default(),
        _ => tokens,
    }
}

struct Reader<'a> {
    rest: &'a [Token],
    query: &'a Query<'a>,
    dialect: Dialect,
    tables: Vec<TableName>,
}

/// None everywhere means: not understood.
impl Reader<'_> {
    fn statement(&mut self) -> Option<Class> {
        while self.mark(b'(') {}
        let Some(Token::Word(first)) = self.rest.first() else {
            // Nothing but comments does nothing.
            return self.rest.is_empty().then_some(Class::NoEffect);
        };
        let first = String::from_utf8_lossy(first).to_ascii_uppercase();
        self.advance();
        match first.as_str() {
            "BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" | "XA" => {
                self.control(&first).map(Class::Control)
            }
            "TRUNCATE" => {
                self.word("TABLE");
                self.table().map(Class::Truncate)
            }
            "ALTER" => self.alter(),
            "CREATE" => self.create(),
            "DROP" => self.drop(),
            "RENAME" => self.rename(),
            "INSERT" | "REPLACE" => self.insert(),
            "DELETE" => self.delete(),
            "UPDATE" => self.update(),
            "LOAD" => self.load(),
            word if WITHOUT_EFFECT.contains(&word) => Some(Class::NoEffect),
            _ => None,
        }
    }

    fn control(&mut self, first: &str) -> Option<Control> {
        Some(match first {
            "BEGIN" => Control::Begin,
            "START" if self.word("TRANSACTION") => Control::Begin,
            "COMMIT" => Control::Commit,
            "ROLLBACK" => {
                self.word("WORK");
                if !self.word("TO") {
                    return Some(Control::Rollback);
                }
                self.word("SAVEPOINT");
                Control::RollbackTo(self.savepoint()?)
            }
            "SAVEPOINT" => Control::Savepoint(self.savepoint()?),
            "RELEASE" => Control::Release,
            "XA" if self.word("START") || self.word("BEGIN") => Control::XaStart,
            "XA" if self.word("END") => Control::XaEnd,
            "XA" if self.word("COMMIT") => Control::XaCommit(Xid::in_statement(self.query.text)?),
            "XA" if self.word("ROLLBACK") => {
                Control::XaRollback(Xid::in_statement(self.query.text)?)
            }
            _ => return None,
        })
    }

    fn savepoint(&mut self) -> Option<Vec<u8>> {
        let name = self.rest.first()?.name()?.to_ascii_lowercase();
        self.advance();
        Some(name)
    }

    fn alter(&mut self) -> Option<Class> {
        let mut ignore = false;
        loop {
            if self.word("IGNORE") {
                ignore = true;
            } else if !self.word("ONLINE") && !self.word("OFFLINE") {
                break;
            }
        }
        if !self.word("TABLE") {
            let other = self.word("DATABASE") || self.word("SCHEMA") || self.names_other_object();
            return other.then_some(Class::NoEffect);
        }
        self.if_exists();
        let table = self.table()?;
        self.lock_wait();
        let clauses = clauses(self.rest);
        self.tables_of_alter()?;
        Some(Class::AlterTable {
            table,
            alter: Alter { ignore, clauses },
        })
    }

    /// ALTER TABLE names a second table in RENAME TO, EXCHANGE PARTITION ... WITH TABLE, CONVERT TABLE ... TO PARTITION
    /// and CONVERT PARTITION ... TO TABLE.
    fn tables_of_alter(&mut self) -> Option<()> {
        let mut depth = 0_u32;
        while let Some(token) = self.rest.first() {
            match token {
                Token::Mark(b'(') => depth += 1,
                Token::Mark(b')') => depth = depth.saturating_sub(1),
                _ => {}
            }
            let rename = depth == 0 && token.is("RENAME");
            let with = depth == 0 && token.is("WITH");
            let convert = depth == 0 && token.is("CONVERT");
            self.advance();
            if rename {
                let part = ["COLUMN", "INDEX", "KEY"];
                if part.into_iter().any(|part| self.word(part)) {
                    continue;
                }
                let _ = self.word("TO") || self.word("AS") || self.mark(b'=');
                self.table()?;
            } else if (with || convert) && self.word("TABLE") {
                self.table()?;
            } else if convert && self.word("PARTITION") {
                self.name()?;
                if !(self.word("TO") && self.word("TABLE")) {
                    return None;
                }
                self.table()?;
            }
        }
        Some(())
    }

    fn create(&mut self) -> Option<Class> {
        let replaces = self.word("OR") && self.word("REPLACE");
        if self.word("DATABASE") || self.word("SCHEMA") {
            return match replaces {
                true => self.database().map(Class::DropDatabase),
                false => Some(Class::NoEffect),
            };
        }
        let temporary = self.word("TEMPORARY");
        // OR REPLACE may put an index that is none in the place of one that is unique.
        let kinds = ["FULLTEXT", "SPATIAL", "VECTOR"];
        let of_kind = replaces && kinds.iter().any(|kind| self.word(kind));
        if (self.word("UNIQUE") || of_kind || replaces) && self.word("INDEX") {
            return self.key_of_table();
        }
        if !self.word("TABLE") {
            return self.names_other_object().then_some(Class::NoEffect);
        }
        if temporary {
            return Some(Class::NoEffect);
        }
        let keeps = self.word("IF");
        if keeps {
            let _ = self.word("NOT") && self.word("EXISTS");
        }
        let table = self.table()?;
        let rows_follow = matches!(
            self.rest,
            [.., start, transaction] if start.is("START") && transaction.is("TRANSACTION")
        );
        Some(Class::CreateTable {
            table,
            rows_follow,
            keeps,
        })
    }

    fn drop(&mut self) -> Option<Class> {
        if self.word("TEMPORARY") {
            return Some(Class::NoEffect);
        }
        if self.word("DATABASE") || self.word("SCHEMA") {
            self.if_exists();
            return self.database().map(Class::DropDatabase);
        }
        if self.word("INDEX") {
            return self.key_of_table();
        }
        if !self.word("TABLE") && !self.word("TABLES") {
            return self.names_other_object().then_some(Class::NoEffect);
        }
        self.if_exists();
        let mut tables = vec![self.table()?];
        while self.mark(b',') {
            tables.push(self.table()?);
        }
        Some(Class::DropTable(tables))
    }

    /// What follows CREATE UNIQUE INDEX and DROP INDEX: `[IF [NOT] EXISTS] i [USING kind] ON t`.
    fn key_of_table(&mut self) -> Option<Class> {
        if self.word("IF") {
            self.word("NOT");
            self.word("EXISTS");
        }
        self.name()?;
        if self.word("USING") || self.word("TYPE") {
            self.advance();
        }
        if !self.word("ON") {
            return None;
        }
        let table = self.table()?;
        let alter = Alter {
            ignore: false,
            clauses: vec![Clause::Key],
        };
        Some(Class::AlterTable { table, alter })
    }

    fn rename(&mut self) -> Option<Class> {
        if self.word("USER") {
            return Some(Class::NoEffect);
        }
        if !self.word("TABLE") && !self.word("TABLES") {
            return None;
        }
        self.if_exists();
        let mut pairs = Vec::new();
        loop {
            let from = self.table()?;
            self.lock_wait();
            if !self.word("TO") {
                return None;
            }
            pairs.push((from, self.table()?));
            if !self.mark(b',') {
                return Some(Class::RenameTable(pairs));
            }
        }
    }

    fn insert(&mut self) -> Option<Class> {
        while self.skip_modifier() {}
        self.word("INTO");
        self.table()?;
        Some(Class::Rows)
    }

    fn delete(&mut self) -> Option<Class> {
        while self.skip_modifier() {}
        if !self.word("FROM") {
            return self.names_before(&["WHERE", "ORDER", "LIMIT"]);
        }
        let table = self.table()?;
        if self.rest.iter().all(|token| *token == Token::Mark(b';')) {
            return Some(Class::Truncate(table));
        }
        if self.rest.first().is_some_and(|token| token.is("WHERE")) {
            return Some(Class::Rows);
        }
        self.names_before(&["WHERE", "ORDER", "LIMIT"])
    }

    fn update(&mut self) -> Option<Class> {
        while self.skip_modifier() {}
        self.names_before(&["SET"])
    }

    fn load(&mut self) -> Option<Class> {
        while !self.rest.is_empty() {
            if self.word("INTO") && self.word("TABLE") {
                self.table()?;
                return Some(Class::Rows);
            }
            self.advance();
        }
        // LOAD INDEX INTO CACHE ends here as well, and is never logged.
        None
    }

    /// Takes every name up to one of `ends` for a table: an alias too many costs a look, a table missed costs rows.
    fn names_before(&mut self, ends: &[&str]) -> Option<Class> {
        while let Some(token) = self.rest.first() {
            if ends.iter().any(|end| token.is(end)) {
                break;
            }
            if token.name().is_some() {
                self.table()?;
            } else {
                self.advance();
            }
        }
        Some(Class::Rows)
    }

    fn skip_modifier(&mut self) -> bool {
        [
            "LOW_PRIORITY",
            "HIGH_PRIORITY",
            "DELAYED",
            "QUICK",
            "IGNORE",
        ]
        .into_iter()
        .any(|modifier| self.word(modifier))
    }

    /// Whether the kind of object that follows CREATE, ALTER or DROP is none of ours. Its modifiers (DEFINER, SQL
    /// SECURITY, UNIQUE ...) stand before it, and a TABLE among them would be one of ours.
    fn names_other_object(&self) -> bool {
        self.rest
            .iter()
            .find(|token| {
                token.is("TABLE")
                    || token.is("TABLES")
                    || OTHER_OBJECTS.iter().any(|object| token.is(object))
            })
            .is_some_and(|token| !token.is("TABLE") && !token.is("TABLES"))
    }

    /// MariaDB's WAIT n or NOWAIT behind the name of a table; n may have a fraction.
    fn lock_wait(&mut self) {
        if self.word("WAIT") {
            self.advance();
            if self.mark(b'.') {
                self.advance();
            }
        } else {
            self.word("NOWAIT");
        }
    }

    fn if_exists(&mut self) {
        if self.word("IF") {
            self.word("EXISTS");
        }
    }

    /// `table`, `database.table` or `.table`, recorded among the tables named.
    fn table(&mut self) -> Option<TableName> {
        let dotted = self.mark(b'.');
        let first = self.name()?;
        let name = if !dotted && self.mark(b'.') {
            // After a dot a word is a name whatever it is; MySQL's lexer lets `db.1t` pass as well.
            TableName::new(first, self.name()?)
        } else {
            // Always UTF-8, whatever the client's charset.
            let database = String::from_utf8(self.query.database.to_vec()).ok()?;
            TableName::new(self.fold(database), first)
        };
        if !self.tables.contains(&name) {
            self.tables.push(name.clone());
        }
        Some(name)
    }

    fn database(&mut self) -> Option<String> {
        if self.word("IF") {
            let _ = self.word("NOT");
            self.word("EXISTS");
        }
        self.name()
    }

    fn name(&mut self) -> Option<String> {
        let bytes = self.rest.first()?.name()?.to_vec();
        let name = self.fold(String::from_utf8(bytes).ok()?);
        self.advance();
        Some(name)
    }

    fn fold(&self, name: String) -> String {
        match self.dialect.lower_case_names {
            true => name.to_lowercase(),
            false => name,
        }
    }

    fn word(&mut self, keyword: &str) -> bool {
        let found = self.rest.first().is_some_and(|token| token.is(keyword));
        if found {
            self.advance();
        }
        found
    }

    fn mark(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&Token::Mark(byte));
        if found {
            self.advance();
        }
        found
    }

    fn advance(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }
}

#[cfg(test)]
#[path = "statement_tests.rs"]
mod tests;
