//! `cargo xtask clauses`: clauses of RFCs, virtio and PCIe that comments name, by file.

use std::fs;

use crate::failure::Result;
use crate::workspace::Workspace;

/// Prints each clause with its file and line.
pub(crate) fn execute(workspace: &Workspace) -> Result<()> {
    let mut count = 0;
    for (file, line, clause) in list(workspace)? {
        println!("{file}:{line}: {clause}");
        count += 1;
    }
    println!("{count} clauses");
    Ok(())
}

fn list(workspace: &Workspace) -> Result<Vec<(String, usize, String)>> {
    let mut list = Vec::new();
    for file in workspace.files()?.iter().filter(|file| file.extension().is_some_and(|end| end == "rs")) {
        let Ok(text) = fs::read_to_string(workspace.root.join(file)) else { continue };
        let name = file.display().to_string();
        list.extend(clauses(&text).into_iter().map(|(line, clause)| (name.clone(), line, clause)));
    }
    Ok(list)
}

/// `RFC n section n`, `virtio n.n, n.n`, `PCIe n.n section n.n` and `PCIe n.n` in the comments of a text.
fn clauses(text: &str) -> Vec<(usize, String)> {
    let mut clauses = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // In a string it is no comment.
        let Some(at) = line.find("//").filter(|&at| line[..at].matches('"').count() % 2 == 0) else {
            continue;
        };
        let words: Vec<&str> = line[at..].split_whitespace().collect();
        for (index, word) in words.iter().enumerate() {
            let after = &words[index + 1..];
            let clause = match word.trim_matches(|c: char| !c.is_alphanumeric()) {
                "RFC" => rfc(after),
                "virtio" | "Virtio" => virtio(after),
                "PCIe" => pcie(after),
                _ => None,
            };
            clauses.extend(clause.map(|clause| (number + 1, clause)));
        }
    }
    clauses
}

fn rfc(words: &[&str]) -> Option<String> {
    let number = words.first()?.trim_end_matches(|c: char| !c.is_ascii_digit());
    let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    let is_section = words.get(1).is_some_and(|word| ["section", "sections"].contains(word));
    let section = section(words.get(2)?)?;
    (is_number && is_section).then(|| format!("RFC {number} section {section}"))
}

fn virtio(words: &[&str]) -> Option<String> {
    let version = section(words.first()?)?;
    let skip = usize::from(words.get(1) == Some(&"section"));
    let section = section(words.get(1 + skip)?)?;
    Some(format!("virtio {version} section {section}"))
}

fn pcie(words: &[&str]) -> Option<String> {
    let first = section(words.first()?)?;
    match words.get(1..3) {
        Some(["section", second]) => Some(format!("PCIe {first} section {}", section(second)?)),
        _ => Some(format!("PCIe {first}")),
    }
}

/// Numbers with dots between them, at least one dot or digit.
fn section(word: &str) -> Option<&str> {
    let word = word.trim_matches(|c: char| !c.is_ascii_digit());
    let fits = !word.is_empty() && word.split('.').all(|part| part.parse::<u32>().is_ok());
    fits.then_some(word)
}

#[cfg(test)]
mod tests {
    use super::{clauses, list};
    use crate::workspace::Workspace;

    fn found(text: &str) -> Vec<String> {
        clauses(text).into_iter().map(|(_, clause)| clause).collect()
    }

    #[test]
    fn clauses_are_read_from_comments() {
        assert_eq!(
            found("/// A tag (RFC 7348 section 4.3, RFC 7637 section 4.4)."),
            ["RFC 7348 section 4.3", "RFC 7637 section 4.4"]
        );
        assert_eq!(found("//! A ring (virtio 1.2, 2.7), in memory"), ["virtio 1.2 section 2.7"]);
        assert_eq!(found("// virtio 1.2 section 2.7.13.4: x"), ["virtio 1.2 section 2.7.13.4"]);
        assert_eq!(found("/// Adds the capability (PCIe 7.5.3)."), ["PCIe 7.5.3"]);
        assert_eq!(found("/// NumVFs (PCIe 6.0 section 9.3.3.7)."), ["PCIe 6.0 section 9.3.3.7"]);
        assert!(found("// RFC 791, virtio 1.2 over PCI\nlet x = \"RFC 7348 section 5\";").is_empty());
    }

    /// Outer headers, encapsulation and split rings are written beside their specifications.
    #[test]
    fn the_files_that_follow_a_specification_name_its_clauses() {
        let workspace = Workspace::find().expect("the workspace");
        let list = list(&workspace).expect("the clauses");
        for (part, clause) in [
            ("outer", "RFC 7348 section"),
            ("outer", "RFC 7637 section"),
            ("encap", "RFC 7348 section"),
            ("ring", "virtio 1.2 section 2.7"),
        ] {
            let named = |file: &str| {
                let code = file.starts_with("dataplane/") || file.starts_with("hdl-model/");
                code && file.contains("/src/") && file.split(['/', '.']).any(|name| name == part)
            };
            assert!(
                list.iter().any(|(file, _, found)| named(file) && found.starts_with(clause)),
                "no file of {part} names {clause}"
            );
        }
    }
}
