//! GTID sets against a model, and their text.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

fn set(text: &str) -> GtidSet {
    text.parse().unwrap()
}

fn uuid(text: &str) -> [u8; 16] {
    parse_uuid(text).unwrap()
}

#[test]
fn the_servers_own_rendering_is_read_and_written_back() {
    let printed = format!("{A}:1-5:7:tag_a:1-3:tag_b:9,\n{B}:1-14:mytag:1");
    assert_eq!(set(&printed).to_string(), printed.replace('\n', ""));
    assert_eq!(
        set(&format!(" {} : 3 - 5 : 1-2 ,", A.to_uppercase())).to_string(),
        format!("{A}:1-5")
    );
    assert_eq!(set("").to_string(), "");
    assert!(set(A).is_empty());
}

#[test]
fn text_that_is_no_gtid_set_is_refused() {
    for text in [
        "x:1",
        &format!("{A}:0"),
        &format!("{A}:5-3"),
        &format!("{A}:1-"),
        &format!("{A}:-1"),
        &format!("{A}:1-2-3"),
        &format!("{A}0:1"),
        &format!("{A}:{}:1", "t".repeat(33)),
    ] {
        assert!(text.parse::<GtidSet>().is_err(), "{text}");
    }
}

#[test]
fn a_tag_is_a_set_of_its_own() {
    let mut seen = set(&format!("{A}:1-5"));
    assert!(!seen.contains_set(&set(&format!("{A}:tag:1"))));
    seen.add(uuid(A), "tag", 1);
    assert!(seen.contains_set(&set(&format!("{A}:2:tag:1"))));
    assert_eq!(seen.to_string(), format!("{A}:1-5:tag:1"));
}

#[test]
fn gaps_close_only_when_the_missing_number_arrives() {
    let mut seen = set(&format!("{A}:1-3:5-6"));
    assert!(!seen.contains_set(&set(&format!("{A}:1-6"))));
    seen.add(uuid(A), "", 4);
    assert_eq!(seen.to_string(), format!("{A}:1-6"));
    seen.add(uuid(A), "", u64::MAX);
    seen.add(uuid(A), "", 8);
    assert_eq!(seen.to_string(), format!("{A}:1-6:8:{}", u64::MAX));
}

/// A model: plain numbers in a set for each of four (server, tag) pairs.
type Model = BTreeSet<(u8, u64)>;

fn key(pair: u8) -> ([u8; 16], &'static str) {
    (
        uuid(if pair & 1 == 0 { A } else { B }),
        if pair & 2 == 0 { "" } else { "tag" },
    )
}

fn random(rng: &mut StdRng) -> (GtidSet, Model) {
    let mut built = GtidSet::default();
    let mut model = Model::new();
    for _ in 0..rng.random_range(0..40) {
        let pair = rng.random_range(0..4);
        let number = rng.random_range(1..25);
        let (uuid, tag) = key(pair);
        built.add(uuid, tag, number);
        model.insert((pair, number));
    }
    (built, model)
}

fn of_model(model: &Model) -> GtidSet {
    let mut built = GtidSet::default();
    for &(pair, number) in model.iter().rev() {
        let (uuid, tag) = key(pair);
        built.add(uuid, tag, number);
    }
    built
}

#[test]
fn the_algebra_agrees_with_plain_sets_of_numbers() {
    let mut rng = StdRng::seed_from_u64(7);
    for round in 0..3000 {
        let (left, left_model) = random(&mut rng);
        let (right, right_model) = random(&mut rng);
        assert_eq!(left, of_model(&left_model), "round {round}");
        let mut union = left.clone();
        union.extend(&right);
        assert_eq!(
            union,
            of_model(&(&left_model | &right_model)),
            "round {round}"
        );
        assert_eq!(
            left.difference(&right),
            of_model(&(&left_model - &right_model)),
            "round {round}"
        );
        assert_eq!(
            left.contains_set(&right),
            right_model.is_subset(&left_model),
            "round {round}"
        );
        assert!(union.contains_set(&left) && union.contains_set(&right));
        assert_eq!(set(&left.to_string()), left, "round {round}");
        let pair = rng.random_range(0..4);
        let number = rng.random_range(1..25);
        let (uuid, tag) = key(pair);
        assert_eq!(
            left.contains(&Gtid {
                uuid,
                tag: tag.into(),
                number
            }),
            left_model.contains(&(pair, number)),
            "round {round}"
        );
    }
}
