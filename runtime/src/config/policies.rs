//! Policies: what becomes of values that have no equal in ClickHouse, and in which of several forms others arrive. For
//! the whole pipe under `types`, for one column under `tables[].columns`, which wins.

use serde::{Deserialize, Serialize};

use super::field::Field;
use super::node::Value;
use super::section::Section;

/// What becomes of zero, partial and impossible dates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZeroDates {
    /// NULL, or 1970-01-01 where the column takes no NULL.
    #[default]
    Null,
    /// 1970-01-01.
    Epoch,
    /// A zero month or day becomes 01, an impossible day the month's last, the zero date 1900-01-01.
    Clamp,
}

/// What becomes of dates that ClickHouse's Date32 does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DateRange {
    /// The nearest date that it holds.
    #[default]
    Clamp,
    /// NULL, or 1970-01-01 where the column takes no NULL.
    Null,
    /// The column is a String with the source's own text of every value.
    String,
}

/// How TINYINT(1) arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tinyint1 {
    /// As the number that it is.
    #[default]
    Int8,
    /// As Bool: every number but 0 is true.
    Bool,
}

/// How ENUM arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnumForm {
    /// LowCardinality(String), the label.
    #[default]
    Label,
    /// Enum16 with the declared labels and numbers.
    Enum16,
    /// UInt16, the number of the label.
    Integer,
}

/// How SET arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetForm {
    /// String, the labels joined by commas.
    #[default]
    String,
    /// Array(String).
    Array,
}

/// How BINARY, VARBINARY and BLOB arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BinaryForm {
    /// The bytes.
    #[default]
    Raw,
    /// Two upper-case hexadecimal digits a byte.
    Hex,
    /// Base64 with padding and without line ends.
    Base64,
}

/// How JSON arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JsonForm {
    /// String, the server's own text.
    #[default]
    String,
    /// ClickHouse's JSON.
    Json,
}

/// How DECIMAL arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecimalForm {
    /// Decimal of the same digits.
    #[default]
    Decimal,
    /// String, with all digits of the fraction.
    String,
}

/// How the geometry types arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GeometryForm {
    /// The text that the source's `ST_AsText` prints, with coordinates in stored order.
    #[default]
    Wkt,
    /// `SRID=4326;` and the text; with `SRID=0;` too.
    Ewkt,
    /// Well-known binary without the SRID, byte by byte as stored.
    Wkb,
}

/// What was chosen; none where nothing was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TypePolicies {
    /// Zero, partial and impossible dates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_dates: Option<ZeroDates>,
    /// Dates that Date32 does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date_range: Option<DateRange>,
    /// TINYINT(1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tinyint1: Option<Tinyint1>,
    /// ENUM.
    #[serde(rename = "enum", skip_serializing_if = "Option::is_none")]
    pub enum_form: Option<EnumForm>,
    /// SET.
    #[serde(rename = "set", skip_serializing_if = "Option::is_none")]
    pub set_form: Option<SetForm>,
    /// BINARY, VARBINARY and BLOB.
    #[serde(rename = "binary", skip_serializing_if = "Option::is_none")]
    pub binary_form: Option<BinaryForm>,
    /// JSON.
    #[serde(rename = "json", skip_serializing_if = "Option::is_none")]
    pub json_form: Option<JsonForm>,
    /// DECIMAL.
    #[serde(rename = "decimal", skip_serializing_if = "Option::is_none")]
    pub decimal_form: Option<DecimalForm>,
    /// The geometry types.
    #[serde(rename = "geometry", skip_serializing_if = "Option::is_none")]
    pub geometry_form: Option<GeometryForm>,
}

impl TypePolicies {
    /// Whether nothing was chosen.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These choices, and `wider`'s where there is none.
    #[must_use]
    pub fn or(self, wider: Self) -> Self {
        Self {
            zero_dates: self.zero_dates.or(wider.zero_dates),
            date_range: self.date_range.or(wider.date_range),
            tinyint1: self.tinyint1.or(wider.tinyint1),
            enum_form: self.enum_form.or(wider.enum_form),
            set_form: self.set_form.or(wider.set_form),
            binary_form: self.binary_form.or(wider.binary_form),
            json_form: self.json_form.or(wider.json_form),
            decimal_form: self.decimal_form.or(wider.decimal_form),
            geometry_form: self.geometry_form.or(wider.geometry_form),
        }
    }
}

/// What was chosen for one column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ColumnConfig {
    /// The ClickHouse type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub column_type: Option<String>,
    /// Whether NULL stays NULL; the pipe's `nullable` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nullable: Option<bool>,
    /// The policies, which win over the pipe's.
    #[serde(flatten)]
    pub policies: TypePolicies,
}

impl ColumnConfig {
    /// A column whose type was chosen by hand.
    pub fn of_type(column_type: impl Into<String>) -> Self {
        Self {
            column_type: Some(column_type.into()),
            ..Self::default()
        }
    }
}

/// Reads `types`.
pub(super) fn pipe(field: &Field<'_>) -> Option<TypePolicies> {
    let mut section = field.section()?;
    let policies = policies(&mut section);
    section.finish();
    policies
}

/// Reads one entry of `columns`.
pub(super) fn column(field: &Field<'_>) -> Option<ColumnConfig> {
    let mut section = field.section()?;
    let type_field = section.get("type");
    let column_type = match &type_field {
        Some(field) => field.text().map(|text| Some(text.to_owned())),
        None => Some(None),
    };
    let nullable = section.maybe("nullable", |field| field.boolean());
    let policies = policies(&mut section);
    section.finish();
    let (column_type, nullable, policies) = (column_type?, nullable?, policies?);
    if column_type.is_none() && nullable.is_none() && policies.is_empty() {
        field.problem(
            "no choice",
            "a ClickHouse type or a policy",
            "add `type:`, such as `type: String`, `nullable:`, or a key of `types`, or remove the entry",
        );
        return None;
    }
    if let (Some(field), Some(key)) = (type_field, form(&policies)) {
        field.problem(
            format!("a type beside `{key}`"),
            "one of the two, since both choose the column's type",
            format!("remove `type` or `{key}`"),
        );
        return None;
    }
    if policies.date_range == Some(DateRange::String) && policies.zero_dates.is_some() {
        field.problem(
            "`zero_dates` beside `date_range: string`",
            "one of the two, since the text of every date is kept",
            "remove `zero_dates` or `date_range`",
        );
        return None;
    }
    Some(ColumnConfig {
        column_type,
        nullable,
        policies,
    })
}

/// The first policy that decides the column's type.
fn form(policies: &TypePolicies) -> Option<&'static str> {
    [
        ("date_range", policies.date_range.is_some()),
        ("tinyint1", policies.tinyint1.is_some()),
        ("enum", policies.enum_form.is_some()),
        ("set", policies.set_form.is_some()),
        ("binary", policies.binary_form.is_some()),
        ("json", policies.json_form.is_some()),
        ("decimal", policies.decimal_form.is_some()),
        ("geometry", policies.geometry_form.is_some()),
    ]
    .into_iter()
    .find_map(|(key, chosen)| chosen.then_some(key))
}

fn policies(section: &mut Section<'_>) -> Option<TypePolicies> {
    let zero_dates = or_null(
        section,
        "zero_dates",
        &[
            ("null", ZeroDates::Null),
            ("epoch", ZeroDates::Epoch),
            ("clamp", ZeroDates::Clamp),
        ],
    );
    let date_range = or_null(
        section,
        "date_range",
        &[
            ("null", DateRange::Null),
            ("clamp", DateRange::Clamp),
            ("string", DateRange::String),
        ],
    );
    let tinyint1 = [("int8", Tinyint1::Int8), ("bool", Tinyint1::Bool)];
    let tinyint1 = section.maybe("tinyint1", |field| field.choice(&tinyint1, &[]));
    let enum_form = [
        ("label", EnumForm::Label),
        ("enum16", EnumForm::Enum16),
        ("integer", EnumForm::Integer),
    ];
    let enum_form = section.maybe("enum", |field| field.choice(&enum_form, &[]));
    let set_form = [("string", SetForm::String), ("array", SetForm::Array)];
    let set_form = section.maybe("set", |field| field.choice(&set_form, &[]));
    let binary_form = [
        ("raw", BinaryForm::Raw),
        ("hex", BinaryForm::Hex),
        ("base64", BinaryForm::Base64),
    ];
    let binary_form = section.maybe("binary", |field| field.choice(&binary_form, &[]));
    let json_form = [("string", JsonForm::String), ("json", JsonForm::Json)];
    let json_form = section.maybe("json", |field| field.choice(&json_form, &[]));
    let decimal_form = [
        ("decimal", DecimalForm::Decimal),
        ("string", DecimalForm::String),
    ];
    let decimal_form = section.maybe("decimal", |field| field.choice(&decimal_form, &[]));
    let geometry_form = [
        ("wkt", GeometryForm::Wkt),
        ("ewkt", GeometryForm::Ewkt),
        ("wkb", GeometryForm::Wkb),
    ];
    let geometry_form = section.maybe("geometry", |field| field.choice(&geometry_form, &[]));
    Some(TypePolicies {
        zero_dates: zero_dates?,
        date_range: date_range?,
        tinyint1: tinyint1?,
        enum_form: enum_form?,
        set_form: set_form?,
        binary_form: binary_form?,
        json_form: json_form?,
        decimal_form: decimal_form?,
        geometry_form: geometry_form?,
    })
}

/// A choice of which `null` is one, written bare or as a string; the first of `choices` is what it means.
fn or_null<T: Copy>(
    section: &mut Section<'_>,
    name: &'static str,
    choices: &[(&'static str, T)],
) -> Option<Option<T>> {
    let Some(field) = section.get_or_null(name) else {
        return Some(None);
    };
    match (&field.node.value, choices.first()) {
        (Value::Null, Some((_, null))) => Some(Some(*null)),
        _ => field.choice(choices, &[]).map(Some),
    }
}
