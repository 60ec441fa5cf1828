//! Reads a crate from its root file on.

use std::fs;
use std::path::Path;

use super::names::Collector;
use super::tree::Crate;
use crate::failure::{Context, Result};

/// Reads the root file and every file that it declares.
pub(in crate::ci) fn read(root: &Path) -> Result<Crate> {
    let mut krate = Crate::default();
    let top = krate.add(None, "");
    let folder = root.parent().unwrap_or(root).to_owned();
    let mut open = vec![(root.to_owned(), top, folder)];
    while let Some((file, module, folder)) = open.pop() {
        let shown = file.display();
        let text = fs::read_to_string(&file).context(|| format!("cannot read {shown}"))?;
        let syntax = syn::parse_file(&text).context(|| format!("cannot parse {shown}"))?;
        krate.modules[module].file = krate.files.len();
        krate.files.push(file.clone());
        for declared in Collector::collect(&mut krate, module, &syntax) {
            let child = krate.add(Some(declared.parent), &declared.name);
            let base = declared.blocks.iter().fold(folder.clone(), |path, block| path.join(block));
            open.push(match declared.path {
                Some(path) => {
                    let file = file.parent().unwrap_or(&folder).join(path);
                    let folder = file.parent().unwrap_or(&folder).to_owned();
                    (file, child, folder)
                }
                None => {
                    let folder = base.join(&declared.name);
                    let flat = base.join(format!("{}.rs", declared.name));
                    let file = if flat.is_file() { flat } else { folder.join("mod.rs") };
                    (file, child, folder)
                }
            });
        }
    }
    Ok(krate)
}
