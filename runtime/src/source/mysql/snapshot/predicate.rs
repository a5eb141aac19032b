//! Ranges of a key as SQL conditions.
//!
//! A cut is a tuple of literals for the leading key columns; a shorter tuple stands before all that it begins. Two
//! neighbouring partitions have one cut in common, as `>=` and as `<`, so that whatever the server makes of the literal,
//! a row without NULL in its key fulfils exactly one of the two. Tuples are written out as OR, since a row constructor
//! would not use the index (pitfall 122).

use super::key_space::Space;

/// One column that cuts, as SQL.
pub(super) struct KeyColumn {
    /// The quoted name.
    pub(super) name: String,
    pub(super) space: Space,
}

/// A comparison with a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Less,
    AtMost,
    Equal,
    AtLeast,
    Greater,
}

impl KeyColumn {
    /// The column compared with a literal of its space.
    pub(super) fn compare(&self, comparison: Comparison, literal: &str) -> String {
        if let Space::Enum { labels } = self.space {
            return self.compare_enum(comparison, literal, labels);
        }
        let operator = match comparison {
            Comparison::Less => "<",
            Comparison::AtMost => "<=",
            Comparison::Equal => "=",
            Comparison::AtLeast => ">=",
            Comparison::Greater => ">",
        };
        format!("{} {operator} {literal}", self.name)
    }

    /// An ENUM sorts by number and compares by label, unless with a number; and only equality with numbers uses the
    /// index (pitfall 121). So a range of them is a list.
    fn compare_enum(&self, comparison: Comparison, literal: &str, labels: u32) -> String {
        let number: u32 = literal.parse().unwrap_or(0);
        let (from, to) = match comparison {
            Comparison::Less if number == 0 => return "FALSE".to_owned(),
            Comparison::Less => (0, number - 1),
            Comparison::AtMost => (0, number),
            Comparison::Equal => (number, number),
            Comparison::AtLeast => (number, labels),
            Comparison::Greater => (number + 1, labels),
        };
        if from > to {
            return "FALSE".to_owned();
        }
        let numbers: Vec<String> = (from..=to).map(|number| number.to_string()).collect();
        format!("{} IN ({})", self.name, numbers.join(", "))
    }
}

/// The condition of the rows from `lower` on and before `upper`; either may be open.
pub(super) fn between(
    columns: &[KeyColumn],
    lower: Option<&[String]>,
    upper: Option<&[String]>,
) -> String {
    match (lower, upper) {
        (None, None) => "TRUE".to_owned(),
        (Some(lower), None) => from(columns, lower),
        (None, Some(upper)) => before(columns, upper),
        (Some(lower), Some(upper)) => {
            let (Some((column, columns_left)), [low, lower_left @ ..], [high, upper_left @ ..]) =
                (columns.split_first(), lower, upper)
            else {
                return "TRUE".to_owned();
            };
            if low != high || upper_left.is_empty() {
                return format!("{} AND {}", from(columns, lower), before(columns, upper));
            }
            let rest = if lower_left.is_empty() {
                before(columns_left, upper_left)
            } else {
                between(columns_left, Some(lower_left), Some(upper_left))
            };
            format!("{} AND {rest}", column.compare(Comparison::Equal, low))
        }
    }
}

fn from(columns: &[KeyColumn], cut: &[String]) -> String {
    match (columns, cut) {
        ([column, ..], [literal]) => column.compare(Comparison::AtLeast, literal),
        ([column, columns @ ..], [literal, cut @ ..]) => format!(
            "({} OR ({} AND {}))",
            column.compare(Comparison::Greater, literal),
            column.compare(Comparison::Equal, literal),
            from(columns, cut)
        ),
        _ => "TRUE".to_owned(),
    }
}

fn before(columns: &[KeyColumn], cut: &[String]) -> String {
    match (columns, cut) {
        ([column, ..], [literal]) => column.compare(Comparison::Less, literal),
        ([column, columns @ ..], [literal, cut @ ..]) => format!(
            "({} OR ({} AND {}))",
            column.compare(Comparison::Less, literal),
            column.compare(Comparison::Equal, literal),
            before(columns, cut)
        ),
        _ => "FALSE".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<KeyColumn> {
        ["`a`", "`b`"]
            .map(|name| KeyColumn {
                name: name.to_owned(),
                space: Space::Integer,
            })
            .into()
    }

    fn cut(literals: &[&str]) -> Vec<String> {
        literals.iter().map(|&literal| literal.to_owned()).collect()
    }

    #[test]
    fn the_outer_ranges_are_open() {
        let columns = columns();
        assert_eq!(between(&columns, None, None), "TRUE");
        assert_eq!(between(&columns, None, Some(&cut(&["5"]))), "`a` < 5");
        assert_eq!(between(&columns, Some(&cut(&["5"])), None), "`a` >= 5");
    }

    #[test]
    fn a_range_within_one_leading_value_is_an_equality_and_a_range_of_the_next_column() {
        let columns = columns();
        assert_eq!(
            between(&columns, Some(&cut(&["5", "1"])), Some(&cut(&["5", "9"]))),
            "`a` = 5 AND `b` >= 1 AND `b` < 9"
        );
        assert_eq!(
            between(&columns, Some(&cut(&["5"])), Some(&cut(&["5", "9"]))),
            "`a` = 5 AND `b` < 9"
        );
    }

    #[test]
    fn a_range_over_leading_values_is_written_out() {
        assert_eq!(
            between(&columns(), Some(&cut(&["5", "1"])), Some(&cut(&["7"]))),
            "(`a` > 5 OR (`a` = 5 AND `b` >= 1)) AND `a` < 7"
        );
    }

    #[test]
    fn an_enum_is_compared_by_number_through_equality() {
        let column = KeyColumn {
            name: "`e`".to_owned(),
            space: Space::Enum { labels: 4 },
        };
        assert_eq!(column.compare(Comparison::Less, "2"), "`e` IN (0, 1)");
        assert_eq!(column.compare(Comparison::AtLeast, "3"), "`e` IN (3, 4)");
        assert_eq!(column.compare(Comparison::Greater, "4"), "FALSE");
        assert_eq!(column.compare(Comparison::Less, "0"), "FALSE");
    }

    #[test]
    fn every_pair_of_keys_lies_in_exactly_one_of_the_ranges_between_cuts() {
        // The conditions are evaluated here by the same few rules as at the server.
        fn holds(condition: &str, a: i64, b: i64) -> bool {
            let text = condition
                .replace("`a`", &a.to_string())
                .replace("`b`", &b.to_string());
            eval(
                &mut text
                    .split_whitespace()
                    .flat_map(tokens)
                    .collect::<Vec<_>>()
                    .as_slice(),
            )
        }
        fn tokens(word: &str) -> Vec<String> {
            let mut out = Vec::new();
            let mut rest = word;
            while let Some(tail) = rest.strip_prefix('(') {
                out.push("(".to_owned());
                rest = tail;
            }
            let body = rest.trim_end_matches(')');
            out.push(body.to_owned());
            out.extend(std::iter::repeat_n(")".to_owned(), rest.len() - body.len()));
            out
        }
        fn eval(tokens: &mut &[String]) -> bool {
            let mut value = term(tokens);
            while let Some(operator) = tokens
                .first()
                .filter(|t| *t == "AND" || *t == "OR")
                .cloned()
            {
                *tokens = &tokens[1..];
                let right = term(tokens);
                value = if operator == "AND" {
                    value && right
                } else {
                    value || right
                };
            }
            value
        }
        fn term(tokens: &mut &[String]) -> bool {
            if tokens[0] == "(" {
                *tokens = &tokens[1..];
                let value = eval(tokens);
                assert_eq!(tokens[0], ")");
                *tokens = &tokens[1..];
                return value;
            }
            if tokens[0] == "TRUE" {
                *tokens = &tokens[1..];
                return true;
            }
            let left: i64 = tokens[0].parse().unwrap();
            let right: i64 = tokens[2].parse().unwrap();
            let value = match tokens[1].as_str() {
                "<" => left < right,
                ">" => left > right,
                "=" => left == right,
                ">=" => left >= right,
                other => panic!("{other}"),
            };
            *tokens = &tokens[3..];
            value
        }
        let cuts = [
            cut(&["1"]),
            cut(&["2", "3"]),
            cut(&["2", "5"]),
            cut(&["3"]),
            cut(&["3", "2"]),
            cut(&["4", "4"]),
        ];
        let columns = columns();
        let conditions: Vec<String> = (0..=cuts.len())
            .map(|i| {
                let lower = i.checked_sub(1).map(|i| cuts[i].as_slice());
                between(&columns, lower, cuts.get(i).map(Vec::as_slice))
            })
            .collect();
        for a in 0..6 {
            for b in 0..7 {
                let count = conditions.iter().filter(|c| holds(c, a, b)).count();
                assert_eq!(count, 1, "({a}, {b}) in {conditions:?}");
            }
        }
    }
}
