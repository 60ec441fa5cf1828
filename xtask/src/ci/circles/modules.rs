//! A crate's modules: where each lies, and what it defines, imports and names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Segments of a path as written: `crate`, `super` and `self` included.
pub(super) type Segments = Vec<String>;

/// The modules of one target, the root first.
#[derive(Default)]
pub(super) struct Crate {
    pub(super) files: Vec<PathBuf>,
    pub(super) modules: Vec<Module>,
}

/// A module: a file, or a `mod` block within one.
#[derive(Default)]
pub(super) struct Module {
    /// Index of the file that holds it.
    pub(super) file: usize,
    pub(super) parent: Option<usize>,
    pub(super) children: BTreeMap<String, usize>,
    pub(super) defined: BTreeSet<String>,
    /// Macros by example, which children see without a path.
    pub(super) macros: BTreeSet<String>,
    pub(super) imports: Vec<Import>,
    /// Paths in code.
    pub(super) paths: Vec<Segments>,
    /// Macros that the code invokes by a single name.
    pub(super) invoked: Vec<String>,
    /// Inherent methods: the type as written, the method.
    pub(super) methods: Vec<(Segments, String)>,
    /// Methods called on `self`: the type as written, the method.
    pub(super) self_calls: Vec<(Segments, String)>,
}

/// One name of a `use` item.
pub(super) struct Import {
    /// The name in this module; none for a glob.
    pub(super) name: Option<String>,
    pub(super) path: Segments,
    /// Whether it has a visibility, hence need not be used here.
    pub(super) reexport: bool,
}

/// A `mod` item without a body.
pub(super) struct Declared {
    pub(super) parent: usize,
    pub(super) name: String,
    /// The file that a `path` attribute names.
    pub(super) path: Option<String>,
    /// Names of the blocks around it.
    pub(super) blocks: Segments,
}

impl Crate {
    /// Adds a module to its parent.
    pub(super) fn add(&mut self, parent: Option<usize>, name: &str) -> usize {
        let index = self.modules.len();
        let file = parent.map_or(0, |parent| self.modules[parent].file);
        self.modules.push(Module { file, parent, ..Module::default() });
        if let Some(parent) = parent {
            self.modules[parent].children.insert(name.to_owned(), index);
        }
        index
    }
}
