//! A crate's modules: where each lies, and what it defines, imports and names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Segments of a path as written: `crate`, `super` and `self` included.
pub(in crate::ci) type Segments = Vec<String>;

/// The modules of one target, the root first.
#[derive(Default)]
pub(in crate::ci) struct Crate {
    pub(in crate::ci) files: Vec<PathBuf>,
    pub(in crate::ci) modules: Vec<Module>,
}

/// A module: a file, or a `mod` block within one.
#[derive(Default)]
pub(in crate::ci) struct Module {
    /// Index of the file that holds it.
    pub(in crate::ci) file: usize,
    pub(in crate::ci) parent: Option<usize>,
    pub(in crate::ci) children: BTreeMap<String, usize>,
    pub(in crate::ci) defined: BTreeSet<String>,
    /// Macros by example, which children see without a path.
    pub(in crate::ci) macros: BTreeSet<String>,
    pub(in crate::ci) imports: Vec<Import>,
    /// Paths in code.
    pub(in crate::ci) paths: Vec<Segments>,
    /// Macros that the code invokes by a single name.
    pub(in crate::ci) invoked: Vec<String>,
    /// Inherent methods: the type as written, the method.
    pub(in crate::ci) methods: Vec<(Segments, String)>,
    /// Methods called on `self`: the type as written, the method.
    pub(in crate::ci) self_calls: Vec<(Segments, String)>,
}

/// One name of a `use` item.
pub(in crate::ci) struct Import {
    /// The name in this module; none for a glob.
    pub(in crate::ci) name: Option<String>,
    pub(in crate::ci) path: Segments,
    /// Whether it has a visibility, hence need not be used here.
    pub(in crate::ci) reexport: bool,
}

/// A `mod` item without a body.
pub(in crate::ci) struct Declared {
    pub(in crate::ci) parent: usize,
    pub(in crate::ci) name: String,
    /// The file that a `path` attribute names.
    pub(in crate::ci) path: Option<String>,
    /// Names of the blocks around it.
    pub(in crate::ci) blocks: Segments,
}

impl Crate {
    /// Adds a module to its parent.
    pub(in crate::ci) fn add(&mut self, parent: Option<usize>, name: &str) -> usize {
        let index = self.modules.len();
        let file = parent.map_or(0, |parent| self.modules[parent].file);
        self.modules.push(Module { file, parent, ..Module::default() });
        if let Some(parent) = parent {
            self.modules[parent].children.insert(name.to_owned(), index);
        }
        index
    }
}
