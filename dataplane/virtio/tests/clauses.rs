//! The clauses of virtio 1.2 that the ring implements stand beside the lines that do: one comment
//! `// virtio 1.2 section N: what it says` at each.

/// Sections that must be found in the ring's source.
const SECTIONS: [&str; 14] = [
    "2.7.4.2",
    "2.7.5",
    "2.7.5.2",
    "2.7.5.3.1",
    "2.7.5.3.2",
    "2.7.6",
    "2.7.6.1",
    "2.7.7.2",
    "2.7.8",
    "2.7.8.2",
    "2.7.10",
    "2.7.10.2",
    "2.7.7.2",
    "2.7.5.3.1",
];

/// Section numbers of a source's comments, and what each says.
fn clauses(source: &str) -> Vec<(&str, &str)> {
    let comments = source.lines().filter_map(|line| line.trim().strip_prefix("// virtio 1.2 section "));
    comments.map(|comment| comment.split_once(": ").expect("a section and what it says")).collect()
}

#[test]
fn each_clause_stands_at_its_line_of_the_ring() {
    let found = clauses(include_str!("../src/ring.rs"));
    for (n, section) in SECTIONS.iter().enumerate() {
        let wanted = SECTIONS[..=n].iter().filter(|other| *other == section).count();
        let there = found.iter().filter(|(other, _)| other == section).count();
        assert!(there >= wanted, "section {section} stands {there} times, not {wanted}");
    }
    for (section, text) in found {
        assert!(SECTIONS.contains(&section), "section {section} is not in the list");
        assert!(!text.is_empty(), "section {section} says nothing");
    }
}

#[test]
fn the_receive_buffers_name_theirs() {
    let found = clauses(include_str!("../src/receive.rs"));
    assert!(found.iter().any(|(section, _)| *section == "5.1.6.3.1"));
}
