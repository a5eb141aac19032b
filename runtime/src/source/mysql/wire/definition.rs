//! What an answer says of its columns, as far as the form of their values depends on it.

use super::super::catalog::SourceColumn;

/// The type of a column of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The type number of the protocol.
    pub wire_type: u8,
    /// The flag UNSIGNED.
    pub unsigned: bool,
}

const UNSIGNED: u16 = 32;

impl Definition {
    /// Reads a column definition; none for one that is malformed.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let mut rest = packet;
        // Catalog, schema, table and name, the last two under their own and their original names.
        for _ in 0..6 {
            let length = super::connection::length(&mut rest).flatten()?;
            rest = rest.get(length..)?;
        }
        // MariaDB may put more between the names and what has a fixed length, which it does not unless asked.
        let [12, _, _, _, _, _, _, wire_type, low, high, ..] = *rest else {
            return None;
        };
        Some(Self {
            wire_type,
            unsigned: u16::from_le_bytes([low, high]) & UNSIGNED != 0,
        })
    }

    /// Whether values of this type have the form that the decoder of `column` reads. A table whose definition changed
    /// since it was recorded may have another one; then nothing of the answer may be decoded.
    pub fn fits(self, column: &SourceColumn) -> bool {
        let integer = |wire_type| self.wire_type == wire_type && self.unsigned == column.unsigned;
        match column.data_type.as_str() {
            "tinyint" => integer(1),
            "smallint" => integer(2),
            "mediumint" => integer(9),
            "int" | "integer" => integer(3),
            "bigint" => integer(8),
            "float" => self.wire_type == 4,
            "double" => self.wire_type == 5,
            "year" => self.wire_type == 13,
            "decimal" | "numeric" => matches!(self.wire_type, 0 | 246),
            "bit" => self.wire_type == 16,
            "date" => matches!(self.wire_type, 10 | 14),
            "time" => matches!(self.wire_type, 11 | 19),
            "datetime" => matches!(self.wire_type, 12 | 18),
            "timestamp" => matches!(self.wire_type, 7 | 17),
            // All of these come as bytes behind their length.
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "binary"
            | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "json" => {
                matches!(self.wire_type, 15 | 245 | 247..=254)
            }
            // By number: see the load's SELECT.
            "enum" | "set" => self.wire_type == 8,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(wire_type: u8, flags: u16) -> Vec<u8> {
        let mut packet = Vec::new();
        for name in ["def", "shop", "t", "t", "a", "a"] {
            packet.push(u8::try_from(name.len()).unwrap());
            packet.extend(name.as_bytes());
        }
        packet.extend([12, 63, 0, 11, 0, 0, 0, wire_type]);
        packet.extend(flags.to_le_bytes());
        packet.extend([0, 0, 0]);
        packet
    }

    #[test]
    fn a_definition_has_type_and_sign() {
        let definition = Definition::parse(&packet(3, UNSIGNED | 1)).unwrap();
        assert_eq!((definition.wire_type, definition.unsigned), (3, true));
        let whole = packet(8, 0);
        for length in 0..whole.len() - 3 {
            assert_eq!(Definition::parse(&whole[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_column_of_another_type_or_sign_does_not_fit() {
        let int = SourceColumn {
            name: "a".into(),
            ..SourceColumn::sample("int")
        };
        let of = |wire_type, flags| Definition::parse(&packet(wire_type, flags)).unwrap();
        assert!(of(3, 0).fits(&int));
        assert!(!of(3, UNSIGNED).fits(&int));
        assert!(!of(4, 0).fits(&int));
        assert!(!of(253, 0).fits(&int));
        let text = SourceColumn {
            data_type: "varchar".into(),
            ..int
        };
        assert!(of(253, 0).fits(&text));
        assert!(of(252, 0).fits(&text));
        assert!(!of(3, 0).fits(&text));
    }
}
