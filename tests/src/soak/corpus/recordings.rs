//! What the corpus is taken of: tables that have every type between them, and statements with every kind of row event.

use crate::SourceKind;

/// One table, and what is done to it.
pub(super) struct Recording {
    /// Behind the server's name, that of its file.
    pub(super) name: &'static str,
    /// The CREATE TABLE of `t`.
    pub(super) table: String,
    /// One after the other, on one connection.
    pub(super) statements: Vec<String>,
}

/// Servers with their settings, and what is recorded of each.
pub(super) fn all() -> Vec<(SourceKind, &'static [&'static str], Vec<Recording>)> {
    let usual = |name, session: &str, more: &[&str]| Recording {
        name,
        table: TABLE.to_owned(),
        statements: [&[session], STATEMENTS, more]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
    };
    let full = "SET SESSION binlog_row_image = 'FULL'";
    let of_mysql = &[MYSQL_STATEMENT];
    vec![
        (
            SourceKind::MySql,
            &[],
            vec![
                usual("full", full, of_mysql),
                usual(
                    "minimal",
                    "SET SESSION binlog_row_image = 'MINIMAL'",
                    of_mysql,
                ),
                usual(
                    "partial",
                    "SET SESSION binlog_row_value_options = 'PARTIAL_JSON'",
                    of_mysql,
                ),
                further(&[GB18030, VECTOR_OF_MYSQL]),
            ],
        ),
        (
            SourceKind::MariaDb,
            &[],
            vec![
                usual("full", full, &[]),
                usual("noblob", "SET SESSION binlog_row_image = 'NOBLOB'", &[]),
                further(&[ADDRESSES, COMPRESSED]),
            ],
        ),
        (
            SourceKind::MariaDb11,
            &[],
            vec![further(&[ADDRESSES, COMPRESSED, VECTOR_OF_MARIADB])],
        ),
        // Times in the layouts of before 10.1.
        (
            SourceKind::MariaDb,
            &["--mysql56-temporal-format=OFF"],
            vec![old_times()],
        ),
    ]
}

/// What both have.
const TABLE: &str = "CREATE TABLE t (id INT UNSIGNED NOT NULL PRIMARY KEY, i1 TINYINT, i3 MEDIUMINT UNSIGNED, i8 BIGINT, \
     y YEAR, b BIT(11), f FLOAT, d DOUBLE, n DECIMAL(20,5), w DECIMAL(60,20), da DATE, ti TIME(3), dt DATETIME(6), \
     ts TIMESTAMP(1) NULL, c CHAR(100) CHARACTER SET utf8mb4, v VARCHAR(20) CHARACTER SET latin1, x TEXT CHARACTER SET ucs2, \
     bi BINARY(16), vb VARBINARY(300), bl BLOB, e ENUM('a','b','long label') CHARACTER SET utf8mb4, \
     s SET('x','y','z') CHARACTER SET latin1, j JSON, k JSON)";

const STATEMENTS: &[&str] = &[
    "INSERT INTO t VALUES (1, -1, 8388608, -9223372036854775808, 2024, b'10000000001', 1.5, -0.1, 123456789.12345, \
     -1234567890.5, '2024-02-29', '-12:34:56.789', '2024-02-29 12:34:56.789012', '2024-01-01 00:00:00.5', 'ünï', 'é', 'ä€', \
     X'0100', X'00FF00', REPEAT('b', 20), 'long label', 'x,z', \
     '{\"a\": [1, -70000, 5000000000, 1.5, true, null, \"text\", {\"deep\": {\"er\": []}}], \"bb\": 18446744073709551615, \
     \"padding\": \"some text that is long enough for a part to be shorter than the whole of it\"}', '[\"k\", 1, 2]')",
    "INSERT INTO t (id) VALUES (2), (3), (4)",
    "UPDATE t SET i1 = 5, v = NULL, j = JSON_SET(j, '$.a[1]', 'changed', '$.new', JSON_ARRAY(1, 2)) WHERE id = 1",
    "UPDATE t SET j = JSON_REMOVE(j, '$.bb'), k = '{\"x\": 0.25}' WHERE id = 1",
    "UPDATE t SET j = JSON_SET(j, '$.a[99]', 'at the end', '$.a[0]', 7), e = 'b', s = '' WHERE id = 1",
    "UPDATE t SET id = id + 10, da = '2023-01-01', bl = X'' WHERE id IN (2, 3)",
    "DELETE FROM t WHERE id > 10 OR id = 1",
];

/// What only MySQL's documents hold.
const MYSQL_STATEMENT: &str = "INSERT INTO t (id, j) VALUES (5, JSON_OBJECT('d', CAST(1.50 AS DECIMAL(10,2)), \
     'day', CAST('2024-02-29' AS DATE), 'at', CAST('2024-02-29 01:02:03.5' AS DATETIME(6)), 't', CAST('-01:02:03' AS TIME), \
     'raw', CAST('bytes' AS BINARY), 'many', JSON_ARRAY(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)))";

/// Definitions of some columns, their names, and two rows of values.
struct Columns {
    definitions: &'static str,
    names: &'static str,
    values: [&'static str; 2],
}

const PLACES: Columns = Columns {
    definitions: "g GEOMETRY, p POINT, l LINESTRING, po POLYGON, mp MULTIPOINT, ml MULTILINESTRING, mo MULTIPOLYGON, \
         gc GEOMETRYCOLLECTION",
    names: "g, p, l, po, mp, ml, mo, gc",
    values: [
        "ST_GeomFromText('LINESTRING(0 0,1.5 -2,1e100 -1e-100)'), ST_GeomFromText('POINT(52.5 13.25)', 4326), \
         ST_GeomFromText('LINESTRING(1 2,-3 4)'), \
         ST_GeomFromText('POLYGON((0 0,10 0,10 10,0 0),(1 1,2 1,2 2,1 1))'), ST_GeomFromText('MULTIPOINT(1 2,3 4)'), \
         ST_GeomFromText('MULTILINESTRING((0 0,1 1),(2 2,3 3,4 5))'), \
         ST_GeomFromText('MULTIPOLYGON(((0 0,9 0,9 9,0 0)),((20 20,30 20,30 30,20 20)))'), \
         ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 2),MULTIPOINT(3 4,5 6),POLYGON((0 0,1 0,1 1,0 0)))')",
        "ST_GeomFromText('GEOMETRYCOLLECTION EMPTY'), NULL, NULL, NULL, NULL, NULL, NULL, \
         ST_GeomFromText('GEOMETRYCOLLECTION EMPTY')",
    ],
};

const EAST_ASIAN: Columns = Columns {
    definitions: "b5 VARCHAR(20) CHARACTER SET big5, sj VARCHAR(20) CHARACTER SET sjis, uj TEXT CHARACTER SET ujis, \
         ek CHAR(100) CHARACTER SET euckr, gk VARCHAR(300) CHARACTER SET gbk, u6 VARCHAR(20) CHARACTER SET utf16, \
         u3 CHAR(80) CHARACTER SET utf32, es ENUM('表', 'ソ') CHARACTER SET sjis, \
         ss SET('一', '丂') CHARACTER SET gbk",
    names: "b5, sj, uj, ek, gk, u6, u3, es, ss",
    values: [
        "'一七', '表ソｱ', '丂ア', '가각', '一丂c', 'a😀', '𠀀b', '表', '一,丂'",
        "'', 'plain', _ujis X'8FA2AF41', 'x', _gbk X'FE50', '', NULL, 2, ''",
    ],
};

const ODD: Columns = Columns {
    definitions: "sg INT GENERATED ALWAYS AS (id * 2) STORED, vg VARCHAR(20) GENERATED ALWAYS AS (CONCAT(id, '!')) VIRTUAL, \
         z INT(6) ZEROFILL, lb LONGBLOB, tt TINYTEXT, c1 CHAR(255) CHARACTER SET utf8mb4",
    names: "z, lb, tt, c1",
    values: [
        "42, REPEAT(X'00FF', 300), 'tiny', REPEAT('ü', 255)",
        "4294967295, X'', '', ''",
    ],
};

const GB18030: Columns = Columns {
    definitions: "g8 VARCHAR(40) CHARACTER SET gb18030",
    names: "g8",
    values: ["'一é😀'", "''"],
};

const VECTOR_OF_MYSQL: Columns = Columns {
    definitions: "v VECTOR(4)",
    names: "v",
    values: ["STRING_TO_VECTOR('[1,-2.5,0.1,3e38]')", "X'0000803F'"],
};

const VECTOR_OF_MARIADB: Columns = Columns {
    definitions: "v VECTOR(4)",
    names: "v",
    values: ["VEC_FromText('[1,-2.5,0.1,300]')", "NULL"],
};

const ADDRESSES: Columns = Columns {
    definitions: "u UUID, a4 INET4, a6 INET6",
    names: "u, a4, a6",
    values: [
        "'f47ac10b-58cc-4372-a567-0e02b2c30000', '10.0.0.0', '2001:db8::1'",
        "'00000000-0000-0000-0000-000000000000', '255.255.255.255', '::'",
    ],
};

const COMPRESSED: Columns = Columns {
    definitions: "ct TEXT COMPRESSED, cv VARCHAR(300) COMPRESSED CHARACTER SET latin1, cb LONGBLOB COMPRESSED",
    names: "ct, cv, cb",
    values: [
        "REPEAT('compressed ', 60), REPEAT('é', 200), REPEAT(X'00FF', 500)",
        "'plain', '', X''",
    ],
};

/// The types that few tables have: geometries, vectors, addresses, compressed columns, charsets of several bytes.
fn further(of_server: &[Columns]) -> Recording {
    let columns: Vec<&Columns> = [&PLACES, &EAST_ASIAN, &ODD]
        .into_iter()
        .chain(of_server)
        .collect();
    let join = |part: &dyn Fn(&Columns) -> &'static str| -> String {
        let parts: Vec<&str> = columns.iter().map(|columns| part(columns)).collect();
        parts.join(", ")
    };
    let names = join(&|columns| columns.names);
    let row = |id: u32, which: usize| {
        let values = join(&|columns| columns.values[which]);
        format!("INSERT INTO t (id, {names}) VALUES ({id}, {values})")
    };
    Recording {
        name: "further",
        table: format!(
            "CREATE TABLE t (id INT NOT NULL PRIMARY KEY, {}) CHARACTER SET utf8mb4",
            join(&|columns| columns.definitions)
        ),
        statements: vec![
            "SET NAMES utf8mb4".to_owned(),
            row(1, 0),
            row(2, 1),
            "INSERT INTO t (id) VALUES (3), (4)".to_owned(),
            "UPDATE t SET p = ST_GeomFromText('POINT(-1 2)'), sj = 'ソ表', z = 7 WHERE id < 4"
                .to_owned(),
            "UPDATE t SET id = id + 10, uj = NULL, gc = NULL WHERE id IN (1, 3)".to_owned(),
            "SET SESSION binlog_row_image = 'MINIMAL'".to_owned(),
            "UPDATE t SET ek = '한', es = 1 WHERE id = 2".to_owned(),
            "SET SESSION binlog_row_image = 'FULL'".to_owned(),
            "DELETE FROM t WHERE id > 3".to_owned(),
        ],
    }
}

fn old_times() -> Recording {
    let columns: Vec<String> = (0..=6)
        .map(|digits| format!("ti{digits} TIME({digits}), dt{digits} DATETIME({digits}), ts{digits} TIMESTAMP({digits}) NULL"))
        .collect();
    let row = |id: u32, time: &str, moment: &str, stamp: &str| {
        let values = vec![format!("'{time}', '{moment}', '{stamp}'"); 7];
        format!("INSERT INTO t VALUES ({id}, {})", values.join(", "))
    };
    Recording {
        name: "old-times",
        table: format!(
            "CREATE TABLE t (id INT NOT NULL PRIMARY KEY, {})",
            columns.join(", ")
        ),
        statements: vec![
            "SET sql_mode = '', time_zone = '+00:00'".to_owned(),
            row(1, "-12:34:56.789123", "2024-02-29 12:34:56.789123", "2024-02-29 12:34:56.789123"),
            row(2, "838:59:58.999999", "9999-12-31 23:59:59.999999", "2038-01-19 03:14:07.499999"),
            row(3, "00:00:00", "0000-00-00 00:00:00", "0000-00-00 00:00:00"),
            "UPDATE t SET ti3 = NULL, dt6 = '1000-01-01 00:00:00', ts1 = '1970-01-01 00:00:01' WHERE id < 3".to_owned(),
            "UPDATE t SET id = id + 10".to_owned(),
            "DELETE FROM t WHERE id > 11".to_owned(),
        ],
    }
}
