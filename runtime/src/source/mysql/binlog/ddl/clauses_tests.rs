//! What the clauses of ALTER TABLE say.

use super::super::tokens::{Quoting, tokens};
use super::*;

fn read(text: &str) -> Vec<Clause> {
    clauses(&tokens(text.as_bytes(), Quoting::default()).expect("tokens"))
}

fn s(text: &str) -> String {
    text.to_owned()
}

#[test]
fn columns_come_go_and_change_names() {
    for (text, expected) in [
        (
            "ADD COLUMN a INT NOT NULL DEFAULT 5 AFTER `b c`, ADD d DECIMAL(10,2) FIRST",
            vec![
                Clause::Add(s("a"), Place::After(s("b c"))),
                Clause::Add(s("d"), Place::First),
            ],
        ),
        (
            "ADD x INT AFTER first, ADD y INT AFTER after, MODIFY first INT FIRST",
            vec![
                Clause::Add(s("x"), Place::After(s("first"))),
                Clause::Add(s("y"), Place::After(s("after"))),
                Clause::Change(s("first"), s("first"), Place::First),
            ],
        ),
        (
            "ADD COLUMN IF NOT EXISTS (a INT, b ENUM('x,y', 'first') COMMENT 'after z', KEY (a))",
            vec![
                Clause::Add(s("a"), Place::Unsaid),
                Clause::Add(s("b"), Place::Unsaid),
                Clause::Nothing,
            ],
        ),
        (
            "ADD id BIGINT AUTO_INCREMENT PRIMARY KEY",
            vec![Clause::Add(s("id"), Place::Unsaid), Clause::Key],
        ),
        (
            "ADD `index` INT",
            vec![Clause::Add(s("index"), Place::Unsaid)],
        ),
        (
            "ADD vector VECTOR(3)",
            vec![Clause::Add(s("vector"), Place::Unsaid)],
        ),
        (
            "DROP a, DROP COLUMN IF EXISTS `b`;",
            vec![Clause::Drop(s("a")), Clause::Drop(s("b"))],
        ),
        ("RENAME COLUMN a TO b", vec![Clause::Rename(s("a"), s("b"))]),
        (
            "CHANGE COLUMN a b VARCHAR(5) CHARACTER SET latin1 AFTER c, MODIFY d INT FIRST",
            vec![
                Clause::Change(s("a"), s("b"), Place::After(s("c"))),
                Clause::Change(s("d"), s("d"), Place::First),
            ],
        ),
        ("CONVERT TO CHARACTER SET utf8mb4", vec![Clause::Convert]),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
}

/// pitfall 104: what leaves rows out of a copy that is made with IGNORE.
#[test]
fn what_refuses_rows_is_told_from_what_does_nothing() {
    let add = || Clause::Add(s("a"), Place::Unsaid);
    for (text, expected) in [
        (
            "ADD FOREIGN KEY (a) REFERENCES t (a)",
            vec![Clause::Constraint],
        ),
        ("ADD CHECK (a > 0)", vec![Clause::Constraint]),
        (
            "ADD CONSTRAINT c CHECK (a > 0)",
            vec![Clause::Key, Clause::Constraint],
        ),
        ("ADD CONSTRAINT c UNIQUE (a)", vec![Clause::Key]),
        (
            "ADD PARTITION (PARTITION p3 VALUES LESS THAN (30))",
            vec![Clause::Constraint],
        ),
        (
            "ENGINE=InnoDB PARTITION BY HASH (a) PARTITIONS 4",
            vec![Clause::Engine, Clause::Constraint],
        ),
        ("ADD a INT CHECK (a > 0)", vec![add(), Clause::Constraint]),
        (
            "ADD (a INT REFERENCES t (b), CHECK (a > 0))",
            vec![add(), Clause::Constraint, Clause::Constraint],
        ),
        (
            "MODIFY a INT CHECK (a > 0)",
            vec![
                Clause::Change(s("a"), s("a"), Place::Unsaid),
                Clause::Constraint,
            ],
        ),
        ("ADD a VARCHAR(9) DEFAULT 'CHECK'", vec![add()]),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
}

/// pitfall 108, pitfall 110: what touches neither rows nor columns is told from what moves rows.
#[test]
fn what_moves_rows_is_told_from_what_does_nothing() {
    for text in [
        "ADD INDEX i (a, b)",
        "ADD FULLTEXT KEY f (a)",
        "ADD VECTOR INDEX v (e)",
        "DROP FOREIGN KEY f",
        "RENAME INDEX a TO b",
        "ALTER INDEX i INVISIBLE",
        "REORGANIZE PARTITION p0, p1 INTO (PARTITION a VALUES LESS THAN (5), PARTITION b VALUES LESS THAN (9))",
        "REBUILD PARTITION p0, p1;",
        "CHECK PARTITION p0, `p1` FOR UPGRADE",
        "ORDER BY a, b DESC, `c`",
        "COMMENT = 'DROP COLUMN a, EXCHANGE'",
        "AUTO_INCREMENT = 100",
        "PAGE_COMPRESSED=1",
        "DISABLE KEYS",
        "FORCE",
        "REORGANIZE PARTITION p0 INTO (PARTITION a VALUES LESS THAN (5), PARTITION b VALUES LESS THAN (9))",
        "REORGANIZE PARTITION z INTO (PARTITION a VALUES IN (5), PARTITION z DEFAULT)",
        "ALGORITHM=INPLACE",
        "DEFAULT CHARACTER SET utf8mb4",
        "",
    ] {
        assert_eq!(read(text), [Clause::Nothing], "{text}");
    }
    for text in [
        "ENGINE=InnoDB ROW_FORMAT=COMPRESSED",
        "COMMENT 'x' ENGINE MyISAM",
        "COMMENT 'x' ENGINE=InnoDB ENGINE 'MyISAM'",
    ] {
        assert_eq!(read(text), [Clause::Engine], "{text}");
    }
    for text in [
        "EXCHANGE PARTITION p0 WITH TABLE b",
        "TRUNCATE PARTITION ALL",
        "DROP PARTITION p0, p1",
        "IMPORT PARTITION p0, p1 TABLESPACE",
        "REORGANIZE PARTITION p0 INTO (PARTITION a VALUES IN (1, 2), PARTITION b VALUES IN (NULL))",
        "ENGINE = BLACKHOLE",
        "COMMENT 'x' ENGINE=InnoDB ENGINE 'BLACKHOLE'",
    ] {
        assert_eq!(read(text), [Clause::Rows], "{text}");
    }
    for text in ["DISCARD TABLESPACE", "DISCARD PARTITION p0, p1 TABLESPACE"] {
        assert_eq!(read(text), [Clause::Discard], "{text}");
    }
    assert_eq!(
        read("CONVERT PARTITION p0 TO TABLE b WITHOUT VALIDATION"),
        [Clause::GiveOut]
    );
    assert_eq!(
        read("CONVERT TABLE b TO PARTITION p0 VALUES LESS THAN (5) WITHOUT VALIDATION"),
        [Clause::TakeIn, Clause::Unvalidated]
    );
    assert_eq!(
        read("EXCHANGE PARTITION p0 WITH TABLE b WITHOUT VALIDATION;"),
        [Clause::Rows, Clause::Unvalidated]
    );
    assert_eq!(
        read("EXCHANGE PARTITION p0 WITH TABLE b WITH VALIDATION"),
        [Clause::Rows]
    );
    assert_eq!(
        read("REORGANIZE PARTITION p0, p1 INTO (PARTITION a VALUES IN ((1, 2), (3, 4)))"),
        [Clause::Nothing, Clause::Rows]
    );
    assert_eq!(read("REPAIR PARTITION p0"), [Clause::Repair]);
    assert_eq!(
        read("CONVERT TABLE b TO PARTITION p0 VALUES LESS THAN (5)"),
        [Clause::TakeIn]
    );
    assert_eq!(
        read("ORDER BY a, b, DROP c, d"),
        [Clause::Nothing, Clause::Drop(s("c")), Clause::Unknown]
    );
    for text in ["ALTER COLUMN a SET DEFAULT 3", "ALTER `a` DROP DEFAULT"] {
        assert_eq!(read(text), [Clause::Default(s("a"))], "{text}");
    }
    for text in [
        "ADD PRIMARY KEY (a)",
        "DROP PRIMARY KEY",
        "ADD UNIQUE u (a)",
        "DROP INDEX i",
    ] {
        assert_eq!(read(text), [Clause::Key], "{text}");
    }
    for text in [
        "ADD SYSTEM VERSIONING",
        "SOMETHING NEW",
        "RENAME COLUMN a b",
        "NOWAIT DROP COLUMN a",
    ] {
        assert_eq!(read(text), [Clause::Unknown], "{text}");
    }
}
