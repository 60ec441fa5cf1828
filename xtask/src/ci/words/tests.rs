//! Lines with banned words, and lines that only look so.

use super::table::{NAMES, PHRASES};
use super::{in_name, in_text};

#[test]
fn a_banned_name_is_told_with_its_line_and_replacement() {
    let text = format!("struct A;\nfn of(_: {}{}) {{}}\n", "Stat", "ion");
    assert_eq!(in_text("a/b.rs", &text), ["a/b.rs:2: \"Station\": say FdbEntry"]);
}

#[test]
fn names_are_whole_words_of_code() {
    assert!(in_text("a.rs", "// Station\nstruct Stations; // see https://Station").is_empty());
    assert_eq!(in_text("a.rs", "// a `Station` of").len(), 1);
    assert_eq!(in_text("a.md", "Station, a `Station` of").len(), 1);
    assert_eq!(in_text("a.rs", "let url = \"http://x\"; Station").len(), 1);
}

#[test]
fn phrases_are_found_in_any_case_and_over_the_ends_of_lines() {
    let problems = in_text("a.rs", "//! The Straight\n//! line of\n");
    assert_eq!(problems, ["a.rs:1: \"straight line\": say fast path"]);
    assert_eq!(in_text("a.md", "a straight\n  line").len(), 1);
    assert!(in_text("a.md", "a straight, line; straight/line; straightline").is_empty());
}

#[test]
fn constants_may_be_banned_by_their_first_letters() {
    assert_eq!(in_text("a.rs", "const MOST_VFS: u16 = 1;").len(), 1);
    assert!(in_text("a.rs", "const ALMOST_VFS: u16 = 1;").is_empty());
}

#[test]
fn some_names_are_banned_in_one_folder_only() {
    assert_eq!(in_text("benches/src/a.rs", "let theirs = 1;").len(), 1);
    assert!(in_text("control/src/a.rs", "let theirs = 1;").is_empty());
}

#[test]
fn names_of_files_and_folders_count() {
    assert_eq!(in_name("host-driver/softpath/src/lib.rs").len(), 1);
    assert_eq!(in_name("a/weather.rs").len(), 1);
    assert!(in_name("host-driver/switch/src/lib.rs").is_empty());
}

/// A bulk rename must not rename the table's left column.
#[test]
fn no_replacement_is_banned() {
    for banned in NAMES {
        assert!(!banned.forbids(banned.say), "{} is its own replacement", banned.say);
    }
    assert!(PHRASES.iter().all(|(phrase, say)| !say.eq_ignore_ascii_case(phrase)));
}
