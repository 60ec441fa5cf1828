//! Clauses of the tunnel RFCs stand as comments at the lines that implement them: `// RFC 7348 section 5: ...`.

const ENCAP: &str = include_str!("../src/encap.rs");
const OUTER: &str = include_str!("../src/outer.rs");
const EDIT: &str = include_str!("../src/edit.rs");
const VXLAN: &str = include_str!("../src/vxlan.rs");
const NVGRE: &str = include_str!("../src/nvgre.rs");

/// Each clause, what it asks for, and the files that implement it.
const CLAUSES: &[(&str, &[&str])] = &[
    // IPv4 header: version, length, checksum.
    ("RFC 791 section 3.1", &[ENCAP, OUTER]),
    // GRE: bits that a receiver refuses or ignores.
    ("RFC 2784 section 2.3", &[OUTER, NVGRE]),
    // ECN: the outer header gets a copy.
    ("RFC 6040 section 4.1", &[ENCAP, EDIT]),
    // ECN: the inner header learns of congestion.
    ("RFC 6040 section 4.2", &[EDIT]),
    // IPv4 identification of packets that are not fragmented.
    ("RFC 6864 section 4.1", &[ENCAP]),
    // UDP checksum 0 over IPv6.
    ("RFC 6935 section 5", &[ENCAP, OUTER]),
    // VXLAN: no fragments.
    ("RFC 7348 section 4.3", &[ENCAP, OUTER]),
    // VXLAN: header, ports, checksum.
    ("RFC 7348 section 5", &[ENCAP, OUTER, VXLAN]),
    // NVGRE: GRE header and key.
    ("RFC 7637 section 3.2", &[ENCAP, OUTER, NVGRE]),
    // NVGRE: no fragments.
    ("RFC 7637 section 4.4", &[ENCAP, OUTER]),
    // IPv6 header: version and payload length.
    ("RFC 8200 section 3", &[ENCAP, OUTER]),
];

/// The clause that a comment line begins with.
fn clause(line: &str) -> Option<&str> {
    let comment = line.trim_start().strip_prefix("// ")?;
    let (clause, _) = comment.split_once(": ")?;
    let number = clause.strip_prefix("RFC ")?;
    let (rfc, section) = number.split_once(" section ")?;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    (digits(rfc) && section.split('.').all(digits)).then_some(clause)
}

#[test]
fn each_clause_is_cited_where_it_is_implemented() {
    for (wanted, files) in CLAUSES {
        for file in *files {
            let title = file.lines().next().unwrap();
            assert!(file.lines().any(|line| clause(line) == Some(wanted)), "{wanted} is missing in: {title}");
        }
    }
}

#[test]
fn each_cited_clause_is_in_the_list() {
    for file in [ENCAP, OUTER, EDIT, VXLAN, NVGRE] {
        for cited in file.lines().filter_map(clause) {
            assert!(CLAUSES.iter().any(|(listed, _)| *listed == cited), "{cited} is not listed here");
        }
    }
}
