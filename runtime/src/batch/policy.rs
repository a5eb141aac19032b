//! Declared policies that change values, and how often each has done so.
//!
//! A policy is the only way in which a value may arrive as another: whatever changes one says so here, by column, and the
//! numbers end in status and metrics.

use serde::{Deserialize, Serialize};

/// A policy that changes values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// A zero, partial or impossible date became NULL, 1970-01-01 or a real date.
    ZeroDates,
    /// A date that Date32 does not hold became its limit, NULL or 1970-01-01.
    DateRange,
    /// NULL became the type's default, because the target column takes no NULL.
    NullAsDefault,
    /// A TINYINT(1) other than 0 and 1 became true.
    Tinyint1,
    /// A SET that is NULL became an empty array.
    Set,
    /// A JSON document that is no object became the member `value` of one.
    Json,
    /// A text with codes that stand for no character stayed as its stored bytes.
    InvalidText,
}

impl Policy {
    /// The name in status, metrics and state.
    pub fn name(self) -> &'static str {
        match self {
            Policy::ZeroDates => "zero_dates",
            Policy::DateRange => "date_range",
            Policy::NullAsDefault => "null_as_default",
            Policy::Tinyint1 => "tinyint1",
            Policy::Set => "set",
            Policy::Json => "json",
            Policy::InvalidText => "invalid_text",
        }
    }
}

/// How many values of a column a policy has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjustment {
    /// The column.
    pub column: String,
    /// What was done.
    pub policy: Policy,
    /// To how many values.
    pub values: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_one_name_everywhere() {
        for policy in [
            Policy::ZeroDates,
            Policy::DateRange,
            Policy::NullAsDefault,
            Policy::Tinyint1,
            Policy::Set,
            Policy::Json,
            Policy::InvalidText,
        ] {
            let written = serde_json::to_value(policy).expect("a name");
            assert_eq!(written, policy.name());
        }
    }
}
