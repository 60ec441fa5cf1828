//! Finds the file that defines what a path names, through imports and re-exports.

use std::collections::{BTreeMap, BTreeSet};

use super::super::modules::{Crate, Segments};

/// What a path leads to.
enum Found {
    Module(usize),
    Item {
        /// The module that defines it.
        module: usize,
        name: String,
        /// What follows the item's name: a variant or a method.
        rest: Segments,
    },
}

/// A type, by the module that defines it and its name.
type TypeName = (usize, String);

/// Answers questions about one crate.
pub(super) struct Resolver<'a> {
    krate: &'a Crate,
    /// Files that hold an inherent method, by type and method.
    methods: BTreeMap<(TypeName, String), BTreeSet<usize>>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(krate: &'a Crate) -> Self {
        let mut resolver = Self { krate, methods: BTreeMap::new() };
        let mut methods: BTreeMap<(TypeName, String), BTreeSet<usize>> = BTreeMap::new();
        for (index, module) in krate.modules.iter().enumerate() {
            for (own, method) in &module.methods {
                if let Some(own) = resolver.type_name(index, own) {
                    methods.entry((own, method.clone())).or_default().insert(module.file);
                }
            }
        }
        resolver.methods = methods;
        resolver
    }

    /// Files whose items the module's code names, with the names.
    pub(super) fn used_by(&self, index: usize) -> Vec<(usize, String)> {
        let module = &self.krate.modules[index];
        let mut used = Vec::new();
        let imports = module.imports.iter().filter(|import| !import.reexport && import.name.is_some());
        for path in imports.map(|import| &import.path).chain(&module.paths) {
            let Some(Found::Item { module: target, name, rest }) =
                self.resolve(index, path, &mut BTreeSet::new())
            else {
                continue;
            };
            if let Some(method) = rest.first() {
                used.extend(self.elsewhere(&(target, name.clone()), method, module.file));
            }
            used.push((self.krate.modules[target].file, name));
        }
        for (own, method) in &module.self_calls {
            if let Some(own) = self.type_name(index, own) {
                used.extend(self.elsewhere(&own, method, module.file));
            }
        }
        for name in &module.invoked {
            let mut scope = Some(index);
            while let Some(at) = scope {
                if self.krate.modules[at].macros.contains(name) {
                    used.push((self.krate.modules[at].file, format!("{name}!")));
                    break;
                }
                scope = self.krate.modules[at].parent;
            }
        }
        used
    }

    /// Files that hold this method of the type, unless `file` does itself.
    fn elsewhere(&self, own: &TypeName, method: &str, file: usize) -> Vec<(usize, String)> {
        match self.methods.get(&(own.clone(), method.to_owned())) {
            Some(files) if !files.contains(&file) => {
                files.iter().map(|&file| (file, format!("{}::{method}", own.1))).collect()
            }
            _ => Vec::new(),
        }
    }

    fn type_name(&self, from: usize, path: &[String]) -> Option<TypeName> {
        match self.resolve(from, path, &mut BTreeSet::new())? {
            Found::Item { module, name, .. } => Some((module, name)),
            Found::Module(_) => None,
        }
    }

    /// Follows a path from a module; `seen` breaks imports that name themselves.
    fn resolve(
        &self,
        from: usize,
        path: &[String],
        seen: &mut BTreeSet<(usize, String, bool)>,
    ) -> Option<Found> {
        let mut at = from;
        let mut rest = path;
        while let [first, tail @ ..] = rest {
            match first.as_str() {
                "crate" => at = 0,
                "self" => {}
                "super" => at = self.krate.modules[at].parent?,
                _ => break,
            }
            rest = tail;
        }
        while let [first, tail @ ..] = rest {
            match self.look_up(at, first, tail.is_empty(), seen)? {
                Found::Module(module) => at = module,
                Found::Item { module, name, rest } => {
                    let rest = rest.into_iter().chain(tail.iter().cloned()).collect();
                    return Some(Found::Item { module, name, rest });
                }
            }
            rest = tail;
        }
        Some(Found::Module(at))
    }

    /// Finds a name in a module. A module and a function may share it: the last segment means the function.
    fn look_up(
        &self,
        at: usize,
        name: &str,
        last: bool,
        seen: &mut BTreeSet<(usize, String, bool)>,
    ) -> Option<Found> {
        if !seen.insert((at, name.to_owned(), last)) {
            return None;
        }
        let module = &self.krate.modules[at];
        let child = module.children.get(name).map(|&child| Found::Module(child));
        if child.is_some() && !last {
            return child;
        }
        if module.defined.contains(name) {
            return Some(Found::Item { module: at, name: name.to_owned(), rest: Segments::new() });
        }
        let named = module.imports.iter().filter(|import| import.name.as_deref() == Some(name));
        for import in named {
            match self.resolve(at, &import.path, seen) {
                Some(Found::Module(found)) if child.is_none() => return Some(Found::Module(found)),
                Some(item @ Found::Item { .. }) => return Some(item),
                _ => {}
            }
        }
        if child.is_some() {
            return child;
        }
        let globs = module.imports.iter().filter(|import| import.name.is_none());
        for glob in globs {
            if let Some(Found::Module(inner)) = self.resolve(at, &glob.path, &mut seen.clone())
                && let Some(found) = self.look_up(inner, name, last, seen)
            {
                return Some(found);
            }
        }
        None
    }
}
