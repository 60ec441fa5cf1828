//! Words that the field does not use, and what to say instead. The list is in `table.rs`.

mod table;
#[cfg(test)]
mod tests;
mod text;

use std::fs;

use self::table::{NAMES, PHRASES};
use self::text::{Word, words};
use crate::failure::Result;
use crate::workspace::Workspace;

/// Files that speak of old words.
const EXEMPT: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    // RISC-V's own exceptions.
    "nic-firmware/image/src/trap.rs",
    "xtask/src/ci/words/",
];

pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let mut problems = Vec::new();
    for file in workspace.files()? {
        let name = file.display().to_string();
        if EXEMPT.iter().any(|exempt| name.starts_with(exempt)) {
            continue;
        }
        problems.extend(in_name(&name));
        // Captures and other binary files are not text.
        let Ok(text) = fs::read_to_string(workspace.root.join(&file)) else { continue };
        problems.extend(in_text(&name, &text));
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    println!("{} banned names and phrases, {} uses", NAMES.len() + PHRASES.len(), problems.len());
    if problems.is_empty() { Ok(()) } else { Err(format!("{} banned words", problems.len()).into()) }
}

/// Banned names among the folders and the file's stem.
fn in_name(name: &str) -> Vec<String> {
    let parts = name.split('/').map(|part| part.split('.').next().unwrap_or_default());
    parts
        .filter_map(|part| {
            let banned = NAMES.iter().find(|banned| banned.forbids(part) && banned.applies_to(name))?;
            Some(format!("{name}: \"{part}\": say {}", banned.say))
        })
        .collect()
}

/// Banned names in code and banned phrases anywhere, in the order of their lines.
fn in_text(name: &str, text: &str) -> Vec<String> {
    let words = words(text, name.ends_with(".rs"));
    let mut problems = Vec::new();
    for (at, word) in words.iter().enumerate() {
        if word.is_code
            && let Some(banned) =
                NAMES.iter().find(|banned| banned.forbids(word.text) && banned.applies_to(name))
        {
            problems.push(format!("{name}:{}: \"{}\": say {}", word.line, word.text, banned.say));
        }
        for (phrase, say) in PHRASES {
            if starts_with(&words[at..], phrase) {
                problems.push(format!("{name}:{}: \"{phrase}\": say {say}", word.line));
            }
        }
    }
    problems
}

/// Whether the words begin with the phrase, in any case, over the ends of lines.
fn starts_with(words: &[Word<'_>], phrase: &str) -> bool {
    phrase.split(' ').enumerate().all(|(at, part)| {
        words
            .get(at)
            .is_some_and(|word| word.text.eq_ignore_ascii_case(part) && (at == 0 || word.follows_space))
    })
}
