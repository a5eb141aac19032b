//! The clauses of an ALTER TABLE, as far as the end state does not tell them.
//!
//! What a column is afterwards stands in the catalog; the text tells which column of before it was, and whether rows
//! moved without row events. What is not recognised is [`Clause::Unknown`], which no caller takes for harmless.

use serde::{Deserialize, Serialize};

use super::tokens::Token;

/// What an ALTER TABLE does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alter {
    /// MariaDB's `ALTER IGNORE TABLE`: rows that do not fit are changed or dropped without row events.
    pub ignore: bool,
    /// The clauses, in order.
    pub clauses: Vec<Clause>,
}

/// One clause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clause {
    /// A new column.
    Add(String, Place),
    /// A column less.
    Drop(String),
    /// RENAME COLUMN.
    Rename(String, String),
    /// CHANGE, or MODIFY with one name twice: a new definition.
    Change(String, String, Place),
    /// Another default than that of its definition, which rows that came before keep.
    Default(String),
    /// CONVERT TO CHARACTER SET: a new definition for every column of text.
    Convert,
    /// Another primary or unique key, perhaps.
    Key,
    /// A CHECK, a foreign key or partitions: the server refuses rows that do not fit, or, where they are copied with
    /// IGNORE, leaves them out.
    Constraint,
    /// The table gets another name.
    RenameTable,
    /// Rows come or go without row events: partitions, tablespaces (pitfall 110).
    Rows,
    /// DISCARD TABLESPACE: the server cannot read the rows until a file brings others (IMPORT TABLESPACE).
    Discard,
    /// Rows leave for a new table that the statement names (MariaDB's CONVERT PARTITION).
    GiveOut,
    /// The rows of another table that the statement names come in, and that table is gone (MariaDB's CONVERT TABLE).
    TakeIn,
    /// What rows come in may not fit their partition (WITHOUT VALIDATION).
    Unvalidated,
    /// Another storage engine, perhaps: it tells whether rows roll back. One that keeps no rows is [`Clause::Rows`].
    Engine,
    /// Rows that cannot be read any more are left out, where the engine repairs anything.
    Repair,
    /// Neither rows nor definitions as far as we replicate them: indexes, comments, AUTO_INCREMENT (pitfall 108).
    Nothing,
    /// Not understood.
    Unknown,
}

/// Where a column is put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// A new one at the end, another where it is.
    Unsaid,
    /// FIRST.
    First,
    /// AFTER that column.
    After(String),
}

/// First words of clauses that change neither rows nor columns.
const NOTHING: [&str; 48] = [
    "ALGORITHM",
    "ANALYZE",
    "AUTOEXTEND_SIZE",
    "AUTO_INCREMENT",
    "AVG_ROW_LENGTH",
    "CHARACTER",
    "CHARSET",
    "CHECK",
    "CHECKSUM",
    "COALESCE",
    "COLLATE",
    "COMMENT",
    "COMPRESSION",
    "CONNECTION",
    "DATA",
    "DEFAULT",
    "DELAY_KEY_WRITE",
    "DISABLE",
    "ENABLE",
    "ENCRYPTION",
    "ENGINE",
    "ENGINE_ATTRIBUTE",
    "FORCE",
    "INDEX",
    "INSERT_METHOD",
    "KEY_BLOCK_SIZE",
    "LOCK",
    "MAX_ROWS",
    "MIN_ROWS",
    "OPTIMIZE",
    "ORDER",
    "PACK_KEYS",
    "PARTITION",
    "PASSWORD",
    "REBUILD",
    "REMOVE",
    "ROW_FORMAT",
    "SECONDARY_ENGINE",
    "SECONDARY_ENGINE_ATTRIBUTE",
    "SECONDARY_LOAD",
    "SECONDARY_UNLOAD",
    "STATS_AUTO_RECALC",
    "STATS_PERSISTENT",
    "STATS_SAMPLE_PAGES",
    "TABLESPACE",
    "TRANSACTIONAL",
    "WITH",
    "WITHOUT",
];

/// Engines that take over every row of the table that they are given.
const KEEPS_ROWS: [&str; 11] = [
    "INNODB",
    "MYISAM",
    "ARIA",
    "MEMORY",
    "HEAP",
    "ARCHIVE",
    "CSV",
    "ROCKSDB",
    "TOKUDB",
    "NDB",
    "NDBCLUSTER",
];

/// The clauses behind `ALTER TABLE name`.
pub(super) fn clauses(tokens: &[Token]) -> Vec<Clause> {
    let mut found = Vec::new();
    let mut list = List::None;
    for piece in pieces(tokens) {
        if list.goes_on(piece) {
            if reorganized(piece) == Clause::Rows {
                found.push(Clause::Rows);
            }
            continue;
        }
        list = List::begun_by(piece);
        found.extend(clause(piece).unwrap_or_else(|| vec![Clause::Unknown]));
    }
    found
}

/// What a clause lists, with the commas that otherwise part clauses.
#[derive(Clone, Copy)]
enum List {
    None,
    /// ORDER BY a, b DESC.
    Columns,
    /// REORGANIZE PARTITION p0, p1 INTO (...): the last of its statement in either grammar.
    Partitions,
}

impl List {
    fn begun_by(piece: &[Token]) -> Self {
        match piece {
            [order, by, ..] if order.is("ORDER") && by.is("BY") => Self::Columns,
            [add, ..] if add.is("ADD") => Self::None,
            [_, partition, ..] if partition.is("PARTITION") => Self::Partitions,
            _ => Self::None,
        }
    }

    fn goes_on(self, piece: &[Token]) -> bool {
        let piece = without_end(piece);
        match (self, piece) {
            (Self::None, _) => false,
            (Self::Columns, [name]) => name.name().is_some(),
            (Self::Columns, [name, order]) => {
                name.name().is_some() && (order.is("ASC") || order.is("DESC"))
            }
            (Self::Columns, _) => false,
            (Self::Partitions, [name, ..]) => name.name().is_some(),
            (Self::Partitions, []) => false,
        }
    }
}

fn without_end(piece: &[Token]) -> &[Token] {
    match piece {
        [rest @ .., Token::Mark(b';')] => rest,
        piece => piece,
    }
}

/// The parts between commas outside of parentheses.
fn pieces(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0_i32;
    let mut found = Vec::new();
    for piece in tokens.split(|token| {
        match token {
            Token::Mark(b'(') => depth += 1,
            Token::Mark(b')') => depth -= 1,
            _ => {}
        }
        depth == 0 && *token == Token::Mark(b',')
    }) {
        found.push(piece);
    }
    found
}

/// Rows that come in by `clause`, with what the statement says of them at its end.
fn moving(clause: Clause, rest: &[Token]) -> Vec<Clause> {
    match rest {
        [.., without, validation] if without.is("WITHOUT") && validation.is("VALIDATION") => {
            vec![clause, Clause::Unvalidated]
        }
        _ => vec![clause],
    }
}

/// None: not understood.
fn clause(piece: &[Token]) -> Option<Vec<Clause>> {
    let piece = without_end(piece);
    let Some((first, rest)) = piece.split_first() else {
        return Some(vec![Clause::Nothing]);
    };
    let one = |clause| Some(vec![clause]);
    if first.is("ADD") {
        return add(rest);
    }
    if first.is("DROP") {
        return drop_clause(rest).map(|clause| vec![clause]);
    }
    if first.is("MODIFY") || first.is("CHANGE") {
        return redefine(first.is("CHANGE"), rest);
    }
    if first.is("RENAME") {
        return one(rename(rest)?);
    }
    if first.is("CONVERT") {
        return Some(convert(rest));
    }
    if first.is("EXCHANGE") {
        return Some(moving(Clause::Rows, rest));
    }
    if first.is("DISCARD") {
        return one(Clause::Discard);
    }
    if first.is("REORGANIZE") {
        return one(reorganized(piece));
    }
    if first.is("REPAIR") {
        return one(Clause::Repair);
    }
    if ["TRUNCATE", "IMPORT", "UNION"]
        .iter()
        .any(|word| first.is(word))
    {
        return one(Clause::Rows);
    }
    if first.is("ALTER") {
        return one(alter(rest)?);
    }
    let harmless = NOTHING.iter().any(|word| first.is(word))
        || matches!(
            (first, rest.first()),
            (Token::Word(_), Some(Token::Mark(b'=')))
        );
    harmless.then(|| {
        let mut found = vec![options(piece)];
        let parts = |two: &[Token]| two[0].is("PARTITION") && two[1].is("BY");
        if piece.windows(2).any(parts) {
            found.push(Clause::Constraint);
        }
        found
    })
}

/// CHANGE, or MODIFY, which names the column once.
fn redefine(renames: bool, rest: &[Token]) -> Option<Vec<Clause>> {
    let (from, rest) = column(rest)?;
    let (to, definition) = match renames {
        true => named(rest)?,
        false => (from.clone(), rest),
    };
    let change = Clause::Change(from, to, place(definition));
    Some(with_constraint(change, definition))
}

fn rename(rest: &[Token]) -> Option<Clause> {
    match rest.split_first() {
        Some((word, rest)) if word.is("COLUMN") => {
            let (from, rest) = column(rest)?;
            let (to, rest) = rest.split_first()?;
            let to = to.is("TO").then(|| named(rest))??.0;
            Some(Clause::Rename(from, to))
        }
        Some((word, _)) if word.is("INDEX") || word.is("KEY") => Some(Clause::Nothing),
        _ => Some(Clause::RenameTable),
    }
}

fn convert(rest: &[Token]) -> Vec<Clause> {
    match rest.first() {
        Some(to) if to.is("TO") => vec![Clause::Convert],
        Some(table) if table.is("TABLE") => moving(Clause::TakeIn, rest),
        Some(partition) if partition.is("PARTITION") => vec![Clause::GiveOut],
        _ => vec![Clause::Rows],
    }
}

/// ALTER INDEX i INVISIBLE; ALTER [COLUMN] c SET DEFAULT 5, or DROP DEFAULT, or SET INVISIBLE.
fn alter(rest: &[Token]) -> Option<Clause> {
    let other = ["INDEX", "KEY", "CHECK", "CONSTRAINT"];
    match rest.first() {
        Some(word) if other.iter().any(|known| word.is(known)) => Some(Clause::Nothing),
        _ => Some(Clause::Default(column(rest)?.0)),
    }
}

/// A column's clause, with what its definition says of rows.
fn with_constraint(clause: Clause, definition: &[Token]) -> Vec<Clause> {
    let constrains = |token: &Token| token.is("CHECK") || token.is("REFERENCES");
    match at_top(definition).any(constrains) {
        true => vec![clause, Clause::Constraint],
        false => vec![clause],
    }
}

/// What REORGANIZE PARTITION does, by the partitions that it makes. Ranges stay what they are together, but of partitions
/// by LIST both servers drop rows in silence whose value none lists any more; MariaDB's DEFAULT takes those.
fn reorganized(piece: &[Token]) -> Clause {
    let lists = |two: &[Token]| matches!(two, [values, of] if values.is("VALUES") && of.is("IN"));
    let rest = piece.iter().any(|token| token.is("DEFAULT"));
    match piece.windows(2).any(lists) && !rest {
        true => Clause::Rows,
        false => Clause::Nothing,
    }
}

/// Options of the table stand behind one another, without commas.
fn options(piece: &[Token]) -> Clause {
    let mut found = Clause::Nothing;
    let mut rest = piece;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if !first.is("ENGINE") {
            continue;
        }
        let behind = match behind {
            [Token::Mark(b'='), behind @ ..] => behind,
            behind => behind,
        };
        let engine = match behind.first() {
            Some(Token::Word(name) | Token::Name(name) | Token::Text(name)) => name.as_slice(),
            Some(Token::Mark(_)) | None => &[],
        };
        if !KEEPS_ROWS
            .iter()
            .any(|known| engine.eq_ignore_ascii_case(known.as_bytes()))
        {
            return Clause::Rows;
        }
        found = Clause::Engine;
    }
    found
}

fn add(rest: &[Token]) -> Option<Vec<Clause>> {
    let first = rest.first()?;
    let is = |words: &[&str]| words.iter().any(|word| first.is(word));
    if is(&["PRIMARY", "UNIQUE"]) {
        return Some(vec![Clause::Key]);
    }
    if is(&["CONSTRAINT"]) {
        let key = |token: &Token| token.is("PRIMARY") || token.is("UNIQUE");
        return Some(match at_top(rest).any(key) {
            true => vec![Clause::Key],
            false => vec![Clause::Key, Clause::Constraint],
        });
    }
    if is(&["FOREIGN", "CHECK", "PARTITION"]) {
        return Some(vec![Clause::Constraint]);
    }
    // Indexes of a kind of their own are told from columns of that name by the word behind.
    let index = |token: Option<&Token>| {
        token.is_some_and(|token| {
            token.is("INDEX") || token.is("KEY") || *token == Token::Mark(b'(')
        })
    };
    if is(&["INDEX", "KEY", "FULLTEXT", "SPATIAL"]) || (is(&["VECTOR"]) && index(rest.get(1))) {
        return Some(vec![Clause::Nothing]);
    }
    if is(&["SYSTEM", "PERIOD"]) {
        return None;
    }
    let rest = skip_words(rest, &["COLUMN"]);
    let rest = skip_words(rest, &["IF", "NOT", "EXISTS"]);
    if let [Token::Mark(b'('), inner @ .., Token::Mark(b')')] = rest {
        let columns = pieces(inner).into_iter().map(|piece| {
            // Keys may stand among the columns.
            let word = piece.first()?;
            let is = |words: &[&str]| words.iter().any(|known| word.is(known));
            if is(&["PRIMARY", "UNIQUE"]) {
                return Some(vec![Clause::Key]);
            }
            if is(&["CONSTRAINT"]) {
                return Some(vec![Clause::Key, Clause::Constraint]);
            }
            if is(&["FOREIGN", "CHECK"]) {
                return Some(vec![Clause::Constraint]);
            }
            if is(&["INDEX", "KEY", "FULLTEXT", "SPATIAL"]) {
                return Some(vec![Clause::Nothing]);
            }
            let (name, definition) = named(piece)?;
            let add = Clause::Add(name, Place::Unsaid);
            Some(with_constraint(add, definition))
        });
        let columns: Option<Vec<Vec<Clause>>> = columns.collect();
        return columns.map(|columns| columns.concat());
    }
    let (name, definition) = named(rest)?;
    let mut found = with_constraint(Clause::Add(name, place(definition)), definition);
    if at_top(definition).any(|token| token.is("PRIMARY") || token.is("UNIQUE")) {
        found.push(Clause::Key);
    }
    Some(found)
}

fn drop_clause(rest: &[Token]) -> Option<Clause> {
    let first = rest.first()?;
    let is = |words: &[&str]| words.iter().any(|word| first.is(word));
    if is(&["PRIMARY", "INDEX", "KEY", "CONSTRAINT"]) {
        return Some(Clause::Key);
    }
    if is(&["FOREIGN", "CHECK"]) {
        return Some(Clause::Nothing);
    }
    if is(&["PARTITION"]) {
        return Some(Clause::Rows);
    }
    if is(&["SYSTEM", "PERIOD"]) {
        return None;
    }
    column(rest).map(|(name, _)| Clause::Drop(name))
}

/// `[COLUMN] [IF EXISTS] name`, and what follows.
fn column(tokens: &[Token]) -> Option<(String, &[Token])> {
    named(skip_words(
        skip_words(tokens, &["COLUMN"]),
        &["IF", "EXISTS"],
    ))
}

fn named(tokens: &[Token]) -> Option<(String, &[Token])> {
    let (first, rest) = tokens.split_first()?;
    let name = String::from_utf8(first.name()?.to_vec()).ok()?;
    Some((name, rest))
}

/// `tokens` without `words`, where they begin with all of them.
fn skip_words<'a>(tokens: &'a [Token], words: &[&str]) -> &'a [Token] {
    let found =
        tokens.len() > words.len() && tokens.iter().zip(words).all(|(token, word)| token.is(word));
    match found {
        true => tokens.get(words.len()..).unwrap_or_default(),
        false => tokens,
    }
}

/// Where the definition puts its column: its last words outside of parentheses.
fn place(definition: &[Token]) -> Place {
    let mut found = Place::Unsaid;
    let mut top = at_top(definition);
    while let Some(token) = top.next() {
        if token.is("FIRST") {
            found = Place::First;
        } else if token.is("AFTER")
            // FIRST and AFTER are names too.
            && let Some(name) = top.next().and_then(Token::name)
        {
            found = Place::After(String::from_utf8_lossy(name).into_owned());
        }
    }
    found
}

/// The tokens outside of parentheses.
fn at_top(tokens: &[Token]) -> impl Iterator<Item = &Token> {
    let mut depth = 0_i32;
    tokens.iter().filter(move |token| {
        match token {
            Token::Mark(b'(') => depth += 1,
            Token::Mark(b')') => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

#[cfg(test)]
#[path = "clauses_tests.rs"]
mod tests;
