//! The dependencies that documents show, generated from the rule in `edges.rs`.
//!
//! A document holds a block between `<!-- edges: list -->` or `<!-- edges: picture -->` and `<!-- /edges -->`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::edges::{ALLOWED, EXCEPTIONS, TOP};
use crate::failure::{Context, Result};
use crate::workspace::Workspace;

/// Documents with a block.
const DOCUMENTS: &[&str] = &["ARCHITECTURE.md", "docs/pictures.md"];
const END: &str = "<!-- /edges -->";

/// Compares the documents with the rule.
pub(super) fn check(workspace: &Workspace) -> Result<()> {
    for document in DOCUMENTS {
        let (old, new) = texts(workspace, document)?;
        if old != new {
            return Err(format!("{document} shows other edges: run `cargo xtask edges --write`").into());
        }
    }
    Ok(())
}

/// Writes the blocks anew.
pub(super) fn write(workspace: &Workspace) -> Result<()> {
    for document in DOCUMENTS {
        let (old, new) = texts(workspace, document)?;
        if old != new {
            fs::write(workspace.root.join(document), new).context(|| format!("cannot write {document}"))?;
            println!("{document}: written");
        }
    }
    Ok(())
}

/// A document as it is, and as it should be.
fn texts(workspace: &Workspace, document: &str) -> Result<(String, String)> {
    let old =
        fs::read_to_string(workspace.root.join(document)).context(|| format!("cannot read {document}"))?;
    let folders = folders(&workspace.metadata, &workspace.root);
    let new = replaced(&old, &[("list", list(ALLOWED)), ("picture", picture(ALLOWED, &folders))])
        .context(|| document.to_owned())?;
    Ok((old, new))
}

/// The text with its blocks replaced. There must be one at least.
fn replaced(text: &str, blocks: &[(&str, String)]) -> std::result::Result<String, String> {
    let mut text = text.to_owned();
    let mut found = false;
    for (name, block) in blocks {
        let start = format!("<!-- edges: {name} -->");
        let Some(at) = text.find(&start) else { continue };
        let from = at + start.len();
        let len = text[from..].find(END).ok_or_else(|| format!("{start} without {END}"))?;
        text.replace_range(from..from + len, &format!("\n{block}"));
        found = true;
    }
    if found { Ok(text) } else { Err("no block of edges".to_owned()) }
}

/// A table: each crate and what it may use directly.
fn list(allowed: &[(&str, &[&str])]) -> String {
    let mut text = "| crate | may use, with all that those use |\n| --- | --- |\n".to_owned();
    for (from, to) in allowed {
        let to = if to.is_empty() { "nothing of ours".to_owned() } else { names(to) };
        let _ = writeln!(text, "| `{from}` | {to} |");
    }
    let _ = writeln!(text, "| {} | any of the above; nothing uses them |", names(TOP));
    for (from, to) in EXCEPTIONS {
        let _ = writeln!(text, "| `{from}` | also `{to}` |");
    }
    text
}

fn names(crates: &[&str]) -> String {
    let names: Vec<String> = crates.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// A mermaid graph with a box for each folder.
fn picture(allowed: &[(&str, &[&str])], folders: &BTreeMap<String, String>) -> String {
    let node = |name: &str| name.replace('-', "_");
    let short = |name: &str| name.strip_prefix("culvert-").unwrap_or(name).to_owned();
    let mut boxes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, _) in allowed {
        boxes.entry(folders.get(*name).map_or("", String::as_str)).or_default().push(name);
    }
    let mut text = "```mermaid\nflowchart TB\n".to_owned();
    for (folder, crates) in boxes {
        let _ = writeln!(text, "  subgraph {}[\"{folder}\"]", node(folder));
        for name in crates {
            let _ = writeln!(text, "    {}[\"{}\"]", node(name), short(name));
        }
        text.push_str("  end\n");
    }
    for (from, to) in allowed {
        for to in *to {
            let _ = writeln!(text, "  {} --> {}", node(from), node(to));
        }
    }
    text.push_str("```\n");
    text
}

/// The top folder of each crate.
fn folders(metadata: &Value, root: &Path) -> BTreeMap<String, String> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages
        .filter_map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str()?).strip_prefix(root).ok()?;
            let folder = manifest.components().next()?.as_os_str().to_string_lossy().into_owned();
            Some((package["name"].as_str()?.to_owned(), folder))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{list, picture, replaced};

    const RULE: &[(&str, &[&str])] = &[("culvert-low", &[]), ("culvert-high", &["culvert-low"])];

    #[test]
    fn a_block_is_replaced_and_the_rest_stays() {
        let text = "a\n<!-- edges: list -->\nold\n<!-- /edges -->\nb\n";
        let new = replaced(text, &[("list", "new\n".to_owned()), ("picture", String::new())]);
        assert_eq!(new.as_deref(), Ok("a\n<!-- edges: list -->\nnew\n<!-- /edges -->\nb\n"));
    }

    #[test]
    fn a_document_without_a_whole_block_is_refused() {
        assert!(replaced("text", &[("list", String::new())]).is_err());
        assert!(replaced("<!-- edges: list -->", &[("list", String::new())]).is_err());
    }

    #[test]
    fn list_and_picture_show_every_edge() {
        assert!(list(RULE).contains("| `culvert-high` | `culvert-low` |\n"));
        let folders = BTreeMap::from([("culvert-low".to_owned(), "dataplane".to_owned())]);
        let picture = picture(RULE, &folders);
        assert!(picture.contains("  culvert_high --> culvert_low\n"), "{picture}");
        assert!(
            picture.contains("  subgraph dataplane[\"dataplane\"]\n    culvert_low[\"low\"]\n  end\n"),
            "{picture}"
        );
    }
}
