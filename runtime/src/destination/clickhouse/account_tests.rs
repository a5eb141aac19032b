//! Which settings and quotas stand against an account.

use super::*;

fn setting(value: &str, fixed: u8, least: Option<&str>, most: Option<&str>) -> SettingRow {
    SettingRow {
        name: "max_insert_block_size".to_owned(),
        value: value.to_owned(),
        fixed,
        least: least.map(str::to_owned),
        most: most.map(str::to_owned),
    }
}

#[test]
fn a_setting_is_refused_where_it_is_fixed_at_another_value_or_held_within_bounds() {
    assert!(!setting("5", 0, None, None).refuses("1000"));
    assert!(setting("5", 1, None, None).refuses("1000"));
    assert!(!setting("1000", 1, None, None).refuses("1000"));
    assert!(setting("5", 0, None, Some("999")).refuses("1000"));
    assert!(!setting("5", 0, None, Some("1000")).refuses("1000"));
    assert!(setting("5", 0, Some("1"), None).refuses("0"));
}

#[test]
fn a_quota_is_told_with_each_of_its_limits_and_one_without_is_not() {
    let quota = |query_inserts, written_bytes| QuotaRow {
        name: "q".to_owned(),
        seconds: 3600,
        queries: None,
        query_inserts,
        errors: None,
        written_bytes,
        execution_time: None,
    };
    assert_eq!(limited(&quota(None, None)), None);
    let told = limited(&quota(Some(100), Some(1 << 30))).expect("it limits");
    assert_eq!(told.severity, Severity::Warning);
    assert!(
        told.found
            .contains("100 inserts, 1073741824 written bytes in 3600 s"),
        "{}",
        told.found
    );
    assert!(told.remedy.contains("ALTER QUOTA `q`"), "{}", told.remedy);
}
