//! The types by family: a table each, with the values that it is tried with.

use testbed::SourceKind;

/// A column's definition, and the literals it is tried with; NULL is added to each.
pub(super) type Column<'a> = (&'a str, &'a [&'a str]);

/// A table: its options and its columns. Row n holds every column's n-th literal, going round.
pub(super) struct Family {
    options: String,
    columns: Vec<(String, Vec<String>)>,
}

impl Family {
    pub(super) fn of(options: &str, columns: &[Column<'_>]) -> Self {
        let owned =
            |literals: &[&str]| literals.iter().map(|&literal| literal.to_owned()).collect();
        Self {
            options: options.to_owned(),
            columns: columns
                .iter()
                .map(|&(definition, literals)| (definition.to_owned(), owned(literals)))
                .collect(),
        }
    }

    pub(super) fn row_count(&self) -> usize {
        let counts = self.columns.iter().map(|(_, literals)| literals.len() + 1);
        counts.max().unwrap_or(1)
    }

    pub(super) fn definition(&self, table: &str) -> String {
        let definitions: Vec<String> = self
            .columns
            .iter()
            .enumerate()
            .map(|(n, (definition, _))| format!("c{n} {definition} NULL DEFAULT NULL"))
            .collect();
        format!(
            "CREATE TABLE {table} (id INT AUTO_INCREMENT PRIMARY KEY, {}) {}",
            definitions.join(", "),
            self.options
        )
    }

    /// The statements that write every row once.
    pub(super) fn rows(&self, table: &str) -> Vec<String> {
        (0..self.row_count())
            .map(|row| {
                let values: Vec<&str> = self
                    .columns
                    .iter()
                    .map(|(_, literals)| {
                        let literal = literals.get(row % (literals.len() + 1));
                        literal.map_or("NULL", String::as_str)
                    })
                    .collect();
                format!(
                    "INSERT INTO {table} ({}) VALUES ({})",
                    self.names(),
                    values.join(", ")
                )
            })
            .collect()
    }

    /// The statements that copy the rows, written twice before, and give the copies other keys.
    pub(super) fn moved(&self, table: &str) -> [String; 2] {
        let (names, count) = (self.names(), self.row_count());
        [
            format!(
                "INSERT INTO {table} ({names}) SELECT {names} FROM {table} WHERE id <= {count}"
            ),
            format!("UPDATE {table} SET id = id + 1000 WHERE id > {}", 2 * count),
        ]
    }

    fn names(&self) -> String {
        let names: Vec<String> = (0..self.columns.len()).map(|n| format!("c{n}")).collect();
        names.join(", ")
    }
}

/// All of them, and those of types that not every kind of server has, or that have tests of their own.
pub(super) fn all(kind: SourceKind) -> Vec<Family> {
    vec![
        integers(),
        decimals(),
        floating_points(),
        bits_and_years(),
        dates_and_times(),
        zero_dates(),
        texts(),
        texts_in_other_charsets(),
        bytes(),
        labels(),
        others(kind),
    ]
}

fn others(kind: SourceKind) -> Family {
    const POINT: &str = "ST_GeomFromText('POINT(1.5 -2)')";
    const PLACE: &str = "ST_GeomFromText('POINT(52.5 13.25)', 4326)";
    const MYSQL_VECTOR: Column<'_> = ("VECTOR(2)", &["STRING_TO_VECTOR('[1,-2.5]')"]);
    const MARIADB_VECTOR: Column<'_> = ("VECTOR(2)", &["VEC_FromText('[1,-2.5]')"]);
    let mut columns: Vec<Column<'_>> = vec![
        ("JSON", &["'{\"a\": [1, 2.5, null]}'", "'[]'"]),
        ("GEOMETRY", &[POINT, PLACE]),
        ("POINT", &[PLACE]),
        ("VARCHAR(20)", &["'behind'", "''"]),
    ];
    match kind {
        SourceKind::MySql => columns.push(MYSQL_VECTOR),
        SourceKind::MariaDb => {}
        SourceKind::MariaDb11 => columns.push(MARIADB_VECTOR),
    }
    if kind.is_mariadb() {
        let of_mariadb: [Column<'_>; 5] = [
            (
                "UUID",
                &[
                    "'f47ac10b-58cc-4372-a567-0e02b2c30000'",
                    "'00000000-0000-0000-0000-000000000000'",
                ],
            ),
            ("INET4", &["'10.0.0.0'"]),
            ("INET6", &["'2001:db8::'", "'::'"]),
            ("TEXT COMPRESSED", &["REPEAT('ä€', 500)", "''"]),
            (
                "VARBINARY(3000) COMPRESSED",
                &["REPEAT(X'00', 2000)", "X''"],
            ),
        ];
        columns.extend(of_mariadb);
    }
    Family::of("CHARACTER SET utf8mb4", &columns)
}

pub(super) fn integers() -> Family {
    Family::of(
        "",
        &[
            ("TINYINT", &["-128", "-1", "0", "1", "127"]),
            ("TINYINT UNSIGNED", &["0", "128", "255"]),
            ("TINYINT(1)", &["-128", "0", "1", "2", "127"]),
            ("BOOLEAN", &["TRUE", "FALSE", "5"]),
            ("SMALLINT", &["-32768", "-1", "0", "32767"]),
            ("SMALLINT UNSIGNED", &["0", "32768", "65535"]),
            ("MEDIUMINT", &["-8388608", "-1", "0", "1", "8388607"]),
            ("MEDIUMINT UNSIGNED", &["0", "8388608", "16777215"]),
            ("INT", &["-2147483648", "-1", "0", "2147483647"]),
            ("INT UNSIGNED", &["0", "2147483648", "4294967295"]),
            ("INT(8) ZEROFILL", &["0", "42", "4294967295"]),
            (
                "BIGINT",
                &["-9223372036854775808", "-1", "0", "9223372036854775807"],
            ),
            (
                "BIGINT UNSIGNED",
                &["0", "9223372036854775808", "18446744073709551615"],
            ),
        ],
    )
}

pub(super) fn decimals() -> Family {
    let nines = "9".repeat(35);
    let fraction = "9".repeat(30);
    let largest = format!("{nines}.{fraction}");
    let smallest = format!("-{nines}.{fraction}");
    let tiny = format!("0.{}1", "0".repeat(29));
    let minus_tiny = format!("-{tiny}");
    let integers = "9".repeat(65);
    let minus_integers = format!("-{integers}");
    Family::of(
        "",
        &[
            (
                "DECIMAL(65,30)",
                &[&largest, &smallest, &tiny, &minus_tiny, "0", "1", "-1.5"],
            ),
            (
                "DECIMAL(65,0)",
                &[&integers, &minus_integers, "0", "1000000000", "999999999"],
            ),
            (
                "DECIMAL(30,30)",
                &[
                    "0.000000000000000000000000000001",
                    "-0.999999999999999999999999999999",
                    "0",
                ],
            ),
            (
                "DECIMAL(10,2)",
                &["99999999.99", "-99999999.99", "0.01", "-0.01", "0", "10.10"],
            ),
            ("DECIMAL(9,9)", &["0.999999999", "-0.000000001", "0"]),
            (
                "DECIMAL(18,9)",
                &["999999999.999999999", "-1.000000001", "0"],
            ),
            (
                "DECIMAL(38,10)",
                &[
                    "9999999999999999999999999999.9999999999",
                    "-0.0000000001",
                    "12",
                ],
            ),
            ("DECIMAL(1,0)", &["9", "-9", "0"]),
            ("DECIMAL(12,4) UNSIGNED", &["99999999.9999", "0", "0.0001"]),
            ("NUMERIC", &["1234567890", "-1"]),
        ],
    )
}

pub(super) fn floating_points() -> Family {
    Family::of(
        "",
        &[
            (
                "FLOAT",
                &[
                    "0",
                    "-0e0",
                    "0.1",
                    "-0.1",
                    "3.4028234e38",
                    "-3.4028234e38",
                    "1.17549435e-38",
                    "1e-45",
                    "16777217",
                    "1234567.8",
                    "0.33333334",
                ],
            ),
            (
                "DOUBLE",
                &[
                    "0",
                    "-0e0",
                    "0.1",
                    "1.7976931348623157e308",
                    "-1.7976931348623157e308",
                    "2.2250738585072014e-308",
                    "5e-324",
                    "9007199254740993",
                    "0.30000000000000004",
                    "1e22",
                    "123456789.12345679",
                ],
            ),
            ("FLOAT(7,3)", &["1234.567", "-0.001", "0"]),
            ("DOUBLE(15,4)", &["12345678901.2345", "-0.0001"]),
            ("FLOAT UNSIGNED", &["0", "1.5"]),
            ("REAL", &["2.718281828459045"]),
        ],
    )
}

pub(super) fn bits_and_years() -> Family {
    let ones = format!("b'{}'", "1".repeat(64));
    let high = format!("b'1{}'", "0".repeat(63));
    Family::of(
        "",
        &[
            ("BIT", &["b'0'", "b'1'"]),
            ("BIT(8)", &["b'0'", "b'10000000'", "b'11111111'"]),
            ("BIT(9)", &["b'0'", "b'100000000'", "b'1'"]),
            ("BIT(33)", &["b'0'", "b'100000000000000000000000000000001'"]),
            ("BIT(64)", &["b'0'", "b'1'", &ones, &high]),
            ("YEAR", &["0", "1901", "1970", "2024", "2155"]),
        ],
    )
}

pub(super) fn dates_and_times() -> Family {
    Family::of(
        "",
        &[
            (
                "DATE",
                &[
                    "'1000-01-01'",
                    "'1899-12-31'",
                    "'1900-01-01'",
                    "'1970-01-01'",
                    "'2024-02-29'",
                    "'2299-12-31'",
                    "'2300-01-01'",
                    "'9999-12-31'",
                ],
            ),
            (
                "TIME",
                &[
                    "'-838:59:59'",
                    "'838:59:59'",
                    "'00:00:00'",
                    "'-00:00:01'",
                    "'23:59:59'",
                    "'24:00:00'",
                ],
            ),
            (
                "TIME(1)",
                &[
                    "'-00:00:00.1'",
                    "'12:34:56.7'",
                    "'-838:59:58.9'",
                    "'838:59:59.9'",
                    "'-838:59:59.9'",
                ],
            ),
            ("TIME(2)", &["'-00:00:00.01'", "'12:34:56.78'"]),
            (
                "TIME(3)",
                &["'-00:00:00.001'", "'12:34:56.789'", "'-100:00:00.999'"],
            ),
            ("TIME(4)", &["'-00:00:00.0001'", "'12:34:56.7891'"]),
            ("TIME(5)", &["'-00:00:00.00001'", "'12:34:56.78912'"]),
            (
                "TIME(6)",
                &[
                    "'-00:00:00.000001'",
                    "'12:34:56.789012'",
                    "'-838:59:58.999999'",
                    "'838:59:58.999999'",
                    // The ends of MariaDB's range; MySQL's has no fraction there.
                    "'838:59:59.999999'",
                    "'-838:59:59.999999'",
                    "'-01:00:00.000000'",
                ],
            ),
            (
                "DATETIME",
                &[
                    "'1000-01-01 00:00:00'",
                    "'1969-12-31 23:59:59'",
                    "'1970-01-01 00:00:00'",
                    "'2024-02-29 23:59:59'",
                    "'9999-12-31 23:59:59'",
                    "'1900-01-01 00:00:00'",
                    "'2299-12-31 23:59:59'",
                ],
            ),
            (
                "DATETIME(1)",
                &["'2024-01-01 00:00:00.1'", "'1969-12-31 23:59:59.9'"],
            ),
            ("DATETIME(2)", &["'2024-01-01 00:00:00.12'"]),
            (
                "DATETIME(3)",
                &["'2024-01-01 00:00:00.123'", "'1960-06-01 12:00:00.001'"],
            ),
            ("DATETIME(4)", &["'2024-01-01 00:00:00.1234'"]),
            ("DATETIME(5)", &["'2024-01-01 00:00:00.12345'"]),
            (
                "DATETIME(6)",
                &[
                    "'2024-01-01 00:00:00.123456'",
                    "'1000-01-01 00:00:00.000001'",
                    "'9999-12-31 23:59:59.999999'",
                ],
            ),
            (
                "TIMESTAMP",
                &[
                    "'1970-01-01 00:00:01'",
                    "'2038-01-19 03:14:07'",
                    "'2024-02-29 12:00:00'",
                ],
            ),
            ("TIMESTAMP(1)", &["'1970-01-01 00:00:01.1'"]),
            ("TIMESTAMP(2)", &["'2038-01-19 03:14:07.49'"]),
            (
                "TIMESTAMP(3)",
                &["'1970-01-01 00:00:01.001'", "'2038-01-19 03:14:07.499'"],
            ),
            ("TIMESTAMP(4)", &["'1970-01-01 00:00:01.0001'"]),
            ("TIMESTAMP(5)", &["'2038-01-19 03:14:07.49999'"]),
            (
                "TIMESTAMP(6)",
                &[
                    "'1970-01-01 00:00:01.000001'",
                    "'2038-01-19 03:14:07.499999'",
                ],
            ),
        ],
    )
}

pub(super) fn zero_dates() -> Family {
    Family::of(
        "",
        &[
            (
                "DATE",
                &[
                    "'0000-00-00'",
                    "'2024-00-00'",
                    "'2024-05-00'",
                    "'2024-01-01'",
                ],
            ),
            (
                "DATETIME",
                &[
                    "'0000-00-00 00:00:00'",
                    "'2024-00-00 00:00:00'",
                    "'2024-05-00 12:30:00'",
                    "'2024-01-01 00:00:00'",
                ],
            ),
            (
                "DATETIME(6)",
                &[
                    "'0000-00-00 00:00:00'",
                    "'0000-00-00 00:00:00.000000'",
                    "'2024-01-01 00:00:00.5'",
                ],
            ),
            (
                "TIMESTAMP",
                &["'0000-00-00 00:00:00'", "'2024-01-01 00:00:00'"],
            ),
            (
                "TIMESTAMP(3)",
                &["'0000-00-00 00:00:00'", "'2024-01-01 00:00:00.5'"],
            ),
        ],
    )
}

pub(super) fn texts() -> Family {
    let long = format!("REPEAT('aé€😀', {})", 20_000);
    Family::of(
        "CHARACTER SET utf8mb4",
        &[
            (
                "CHAR(10)",
                &["''", "'a'", "'ends in  '", "'äöü€😀'", "'0123456789'"],
            ),
            ("CHAR(200)", &["''", "REPEAT('😀', 200)", "'short'"]),
            (
                "VARCHAR(20)",
                &[
                    "''",
                    "'trailing  '",
                    "'日本語テキスト'",
                    "'tab\\tnewline\\nzero\\0end'",
                    "'quote '' \\\\ back'",
                ],
            ),
            ("VARCHAR(255)", &["REPEAT('x', 255)", "''"]),
            ("VARCHAR(256)", &["REPEAT('x', 256)", "'s'"]),
            ("VARCHAR(3000)", &["REPEAT('😀', 3000)", "'s'"]),
            ("TINYTEXT", &["''", "REPEAT('y', 255)"]),
            ("TEXT", &["''", "REPEAT('z', 60000)", "'\\r\\n'"]),
            ("MEDIUMTEXT", &["''", &long]),
            ("LONGTEXT", &["''", &long, "'NULL'"]),
            ("VARCHAR(20) CHARACTER SET utf8mb3", &["'äöü€'", "''"]),
            ("VARCHAR(20) CHARACTER SET ascii", &["'plain'", "''"]),
            ("VARCHAR(20) COLLATE utf8mb4_bin", &["'Binary'", "''"]),
        ],
    )
}

pub(super) fn texts_in_other_charsets() -> Family {
    // Bytes 80 to 9F are Windows-1252 in the server's latin1, and five of them nothing at all.
    let all = (0x20..=0xff)
        .map(|byte| format!("{byte:02X}"))
        .collect::<String>();
    let every_byte = format!("_latin1 X'{all}'");
    Family::of(
        "CHARACTER SET latin1",
        &[
            (
                "VARCHAR(300)",
                &[
                    &every_byte,
                    "''",
                    "_latin1 X'E9'",
                    "_latin1 X'80'",
                    "'plain'",
                ],
            ),
            (
                "CHAR(20)",
                &["_latin1 X'FC6265722020'", "''", "_latin1 X'819D'"],
            ),
            ("TEXT", &[&every_byte, "''"]),
            ("ENUM('caf\u{e9}', 'th\u{e9}')", &["1", "2"]),
            ("VARCHAR(20) CHARACTER SET ucs2", &["'ä€'", "''"]),
            ("VARCHAR(20) CHARACTER SET utf16", &["'ä€😀'", "''"]),
            ("VARCHAR(20) CHARACTER SET utf16le", &["'ä€😀'", "''"]),
            ("VARCHAR(20) CHARACTER SET utf32", &["'ä€😀'", "''"]),
            ("TEXT CHARACTER SET utf8mb4", &["'ä€😀'", "''"]),
        ],
    )
}

pub(super) fn bytes() -> Family {
    Family::of(
        "",
        &[
            (
                "BINARY(8)",
                &[
                    "X'0102030000000000'",
                    "X'01'",
                    "X'0000000000000000'",
                    "'ab '",
                    "X'2020202020202020'",
                ],
            ),
            ("BINARY(1)", &["X'00'", "X'20'", "X'FF'"]),
            ("BINARY(255)", &["X'01'", "REPEAT(X'00', 255)"]),
            ("VARBINARY(20)", &["X''", "X'00'", "X'FF00FE00'", "X'2020'"]),
            ("VARBINARY(300)", &["REPEAT(X'00FF', 150)", "X''"]),
            ("TINYBLOB", &["X''", "REPEAT(X'AB', 255)"]),
            ("BLOB", &["X''", "X'C328'", "REPEAT(X'00', 1000)"]),
            ("MEDIUMBLOB", &["X''", "REPEAT(X'FE', 70000)"]),
            ("LONGBLOB", &["X''", "X'00'"]),
            ("CHAR(4) CHARACTER SET binary", &["X'00'", "'a'"]),
            ("VARCHAR(9) CHARACTER SET binary", &["X'FF00'", "X''"]),
        ],
    )
}

pub(super) fn labels() -> Family {
    let many: Vec<String> = (0..300).map(|n| format!("'label {n}'")).collect();
    let many = format!("ENUM({})", many.join(","));
    let wide: Vec<String> = (0..64).map(|n| format!("'m{n}'")).collect();
    let wide = format!("SET({})", wide.join(","));
    Family::of(
        "CHARACTER SET utf8mb4",
        &[
            // Index 0 is what a server without strict mode stores for an unknown label.
            (
                "ENUM('a','b','c d','ü','it''s','x,y',',')",
                &["'a'", "'c d'", "'ü'", "5", "'x,y'", "','", "'unknown'"],
            ),
            (&many, &["'label 0'", "'label 255'", "'label 299'"]),
            ("ENUM('','x')", &["''", "'x'"]),
            ("SET('a','b','c','ü')", &["''", "'a'", "'a,c'", "'a,b,c,ü'"]),
            (&wide, &["''", "'m0'", "'m63'", "'m0,m31,m32,m63'"]),
            ("SET('one')", &["''", "'one'"]),
        ],
    )
}
