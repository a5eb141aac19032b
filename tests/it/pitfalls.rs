//! The pitfalls that are claimed as covered (tests/pitfalls.txt, one number a line) against the tests that cite them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use testbed::harness::workspace_folder;

/// Folders with tests, beside or among the code.
const FOLDERS: [&str; 4] = ["tests/it", "runtime/src", "sdk/src", "plugins"];

/// The numbers behind `pitfall` in a comment: `pitfall 4`, `pitfalls 8, 10 and 15`, `pitfalls 24 to 27`.
fn cited(comment: &str) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::new();
    let lower = comment.to_lowercase();
    for (at, word) in lower.match_indices("pitfall") {
        let rest = &lower[at + word.len()..];
        let words = rest.strip_prefix('s').unwrap_or(rest).split_whitespace();
        let (mut last, mut range) = (None::<u32>, false);
        for word in words {
            if matches!(word, "and" | "to") {
                range = word == "to";
                continue;
            }
            let digits = word.trim_end_matches(|letter: char| !letter.is_ascii_digit());
            let Ok(number) = digits.parse() else { break };
            numbers.extend(last.filter(|_| range).unwrap_or(number)..=number);
            (last, range) = (Some(number), false);
            // A list goes on behind a comma, and by a word between numbers.
            let goes_on = word == digits || word.ends_with(',');
            if !goes_on {
                break;
            }
        }
    }
    numbers
}

/// The comments of a file that stand at tests: all of them in a file of tests, those behind `#[cfg(test)]` in another.
fn comments(path: &Path, text: &str) -> Vec<String> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let of_tests = path.components().any(|part| part.as_os_str() == "it")
        || name.is_some_and(|name| name.ends_with("tests.rs"));
    let tests = match of_tests {
        true => text,
        false => text
            .split_once("#[cfg(test)]")
            .map_or("", |(_, tests)| tests),
    };
    // Of several lines one comment, which may name numbers over a line's end.
    let mut comments = vec![String::new()];
    for line in tests.lines() {
        match line.trim_start().strip_prefix("//") {
            Some(words) => {
                let comment = comments.last_mut().expect("one at least");
                comment.push_str(words.trim_start_matches(['/', '!']));
            }
            None => comments.push(String::new()),
        }
    }
    comments
}

fn citations(folder: &Path, found: &mut BTreeMap<u32, BTreeSet<String>>) {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for path in entries.map(|entry| entry.expect("an entry can be read").path()) {
        if path.is_dir() {
            citations(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("it/pitfalls.rs")
        {
            let text = fs::read_to_string(&path).expect("a source file is text");
            for number in comments(&path, &text)
                .iter()
                .flat_map(|comment| cited(comment))
            {
                let file = path.display().to_string();
                found.entry(number).or_default().insert(file);
            }
        }
    }
}

fn claimed() -> BTreeSet<u32> {
    let text = fs::read_to_string(workspace_folder().join("tests/pitfalls.txt"))
        .expect("the list is there");
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            line.parse()
                .unwrap_or_else(|_| panic!("`{line}` in tests/pitfalls.txt is no number"))
        })
        .collect()
}

#[test]
fn every_pitfall_that_is_claimed_as_covered_is_cited_by_a_test() {
    let mut found = BTreeMap::new();
    for folder in FOLDERS {
        citations(&workspace_folder().join(folder), &mut found);
    }
    let claimed = claimed();
    let uncited: Vec<u32> = claimed
        .iter()
        .filter(|number| !found.contains_key(number))
        .copied()
        .collect();
    assert!(
        uncited.is_empty(),
        "claimed in tests/pitfalls.txt, and cited by no test: {uncited:?}"
    );
    let unclaimed: Vec<_> = found
        .iter()
        .filter(|(number, _)| !claimed.contains(number))
        .collect();
    assert!(
        unclaimed.is_empty(),
        "cited by a test, and missing from tests/pitfalls.txt: {unclaimed:?}"
    );
}

#[test]
fn citations_are_read_as_they_are_written() {
    for (comment, numbers) in [
        ("Pitfall 4: four bytes", vec![4]),
        (
            "(pitfalls 8, 10, 15, 22, 46, 47).",
            vec![8, 10, 15, 22, 46, 47],
        ),
        ("pitfalls 24 to 27, and others", vec![24, 25, 26, 27]),
        ("by mistake (pitfalls 44 and 45).", vec![44, 45]),
        ("pitfall 1 and what 3 others say", vec![1]),
        ("pitfall 35 in 10.1; pitfall 36", vec![35, 36]),
        ("a pitfall of its own, 7 of them", vec![]),
    ] {
        assert_eq!(cited(comment), numbers.into_iter().collect(), "{comment}");
    }
}
