//! `docs/CASES.md` names, for each case that loses data elsewhere, the tests that show it: they exist.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use nearbrick_e2e::paths;

/// Names of all functions in the sources below `dir`.
fn functions(dir: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                functions(&path, names);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let found = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            names.extend(found.map(|name| name.trim().to_owned()));
        }
    }
}

#[test]
fn every_test_that_the_table_of_cases_names_exists() {
    let text = std::fs::read_to_string(paths::workspace().join("docs/CASES.md")).unwrap();
    let mut names = BTreeSet::new();
    functions(&paths::workspace(), &mut names);
    let mut cases = 0;
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, id, what, tests, _] = cells[..] else { continue };
        let mut id = id.chars();
        if !id.next().is_some_and(|c| c.is_ascii_uppercase()) || !id.all(|c| c.is_ascii_digit()) {
            continue;
        }
        cases += 1;
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{what}: no test is named");
        for test in tests {
            assert!(names.contains(test), "{what}: there is no test {test}");
        }
    }
    assert!(cases >= 30, "only {cases} cases were found: has the table another form?");
}
