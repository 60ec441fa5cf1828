//! Collects what a file's modules define, import and name.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Ident, ImplItem, Item, Macro, Path, Type, UseTree, Visibility};

use super::tree::{Crate, Declared, Import, Segments};

/// Walks one file.
pub(super) struct Collector<'a> {
    krate: &'a mut Crate,
    module: usize,
    blocks: Segments,
    declared: Vec<Declared>,
    /// The type of the `impl` around.
    self_type: Option<Segments>,
}

impl<'a> Collector<'a> {
    /// Fills the module and those written within it; returns the modules that are other files.
    pub(super) fn collect(krate: &'a mut Crate, module: usize, file: &syn::File) -> Vec<Declared> {
        let mut collector =
            Self { krate, module, blocks: Segments::new(), declared: Vec::new(), self_type: None };
        collector.visit_file(file);
        collector.declared
    }

    fn define(&mut self, name: &Ident) {
        self.krate.modules[self.module].defined.insert(name.to_string());
    }

    fn name(&mut self, path: Segments) {
        let module = &mut self.krate.modules[self.module];
        match path.as_slice() {
            [first, method, ..] if first == "Self" => {
                if let Some(own) = &self.self_type {
                    module.self_calls.push((own.clone(), method.clone()));
                }
            }
            [] => {}
            _ => module.paths.push(path),
        }
    }

    fn import(&mut self, tree: &UseTree, prefix: &mut Segments, reexport: bool) {
        let (name, last) = match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import(&path.tree, prefix, reexport);
                prefix.pop();
                return;
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|item| self.import(item, prefix, reexport));
                return;
            }
            UseTree::Glob(_) => (None, None),
            UseTree::Name(name) => (Some(name.ident.to_string()), Some(name.ident.to_string())),
            UseTree::Rename(rename) => (Some(rename.rename.to_string()), Some(rename.ident.to_string())),
        };
        let mut path = prefix.clone();
        path.extend(last);
        let mut name = name;
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
            name = name.map(|name| if name == "self" { path[path.len() - 1].clone() } else { name });
        }
        self.krate.modules[self.module].imports.push(Import { name, path, reexport });
    }

    /// Paths among a macro's tokens; `definitions`: also the items that it seems to define.
    fn tokens(&mut self, tokens: TokenStream, definitions: bool) {
        let mut path = Segments::new();
        let mut colons = 0;
        let mut keyword = false;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.token_path(&mut path);
                    }
                    let capital = ident.to_string().starts_with(|c: char| c.is_ascii_uppercase());
                    if definitions && path.is_empty() && (keyword || capital) {
                        self.define(&ident);
                    }
                    keyword = ["struct", "enum", "union", "fn", "const", "static", "type", "trait"]
                        .contains(&ident.to_string().as_str());
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    if group.delimiter() == Delimiter::Parenthesis && path.len() == 1 {
                        self.name(std::mem::take(&mut path));
                    }
                    self.token_path(&mut path);
                    colons = 0;
                    self.tokens(group.stream(), false);
                }
                _ => {
                    self.token_path(&mut path);
                    colons = 0;
                }
            }
        }
        self.token_path(&mut path);
    }

    /// Records a path that ended. A single word in lower case is most likely a variable.
    fn token_path(&mut self, path: &mut Segments) {
        let path = std::mem::take(path);
        if path.len() > 1 || path.first().is_some_and(|word| !starts_low(word)) {
            self.name(path);
        }
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_test(attributes(item)) {
            return;
        }
        match item {
            Item::Const(item) => self.define(&item.ident),
            Item::Enum(item) => self.define(&item.ident),
            Item::Fn(item) => self.define(&item.sig.ident),
            Item::Static(item) => self.define(&item.ident),
            Item::Struct(item) => self.define(&item.ident),
            Item::Trait(item) => self.define(&item.ident),
            Item::Type(item) => self.define(&item.ident),
            Item::Union(item) => self.define(&item.ident),
            Item::Macro(item) => {
                if let Some(name) = &item.ident {
                    self.krate.modules[self.module].macros.insert(name.to_string());
                } else {
                    self.visit_path(&item.mac.path);
                    if let Some(name) = item.mac.path.get_ident() {
                        self.krate.modules[self.module].invoked.push(name.to_string());
                    }
                    self.tokens(item.mac.tokens.clone(), true);
                }
                return;
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        if let Some((_, items)) = &item.content {
            let inner = self.krate.add(Some(self.module), &name);
            let outer = std::mem::replace(&mut self.module, inner);
            self.blocks.push(name);
            items.iter().for_each(|item| self.visit_item(item));
            self.blocks.pop();
            self.module = outer;
        } else {
            let path = item.attrs.iter().find_map(path_attribute);
            self.declared.push(Declared { parent: self.module, name, path, blocks: self.blocks.clone() });
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            let reexport = !matches!(item.vis, Visibility::Inherited);
            self.import(&item.tree, &mut Segments::new(), reexport);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let own = match &*item.self_ty {
            Type::Path(own) if own.qself.is_none() => Some(segments(&own.path)),
            _ => None,
        };
        if let (Some(own), None) = (&own, &item.trait_) {
            let names = item.items.iter().filter_map(|item| match item {
                ImplItem::Fn(item) if !is_test(&item.attrs) => Some(item.sig.ident.to_string()),
                ImplItem::Const(item) => Some(item.ident.to_string()),
                _ => None,
            });
            self.krate.modules[self.module].methods.extend(names.map(|name| (own.clone(), name)));
        }
        let outer = std::mem::replace(&mut self.self_type, own);
        visit::visit_item_impl(self, item);
        self.self_type = outer;
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        if let ImplItem::Fn(function) = item
            && is_test(&function.attrs)
        {
            return;
        }
        visit::visit_impl_item(self, item);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if let (Expr::Path(receiver), Some(own)) = (&*call.receiver, &self.self_type)
            && receiver.path.is_ident("self")
        {
            let call = (own.clone(), call.method.to_string());
            self.krate.modules[self.module].self_calls.push(call);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr(&mut self, expr: &'ast Expr) {
        match expr {
            Expr::Call(call) => {
                if let Expr::Path(function) = &*call.func
                    && function.path.get_ident().is_some()
                {
                    self.name(segments(&function.path));
                }
            }
            // A single word in lower case is most likely a variable.
            Expr::Path(path) if path.path.get_ident().is_some_and(|name| starts_low(&name.to_string())) => {
                return;
            }
            _ => {}
        }
        visit::visit_expr(self, expr);
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if path.leading_colon.is_none() {
            self.name(segments(path));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invoked: &'ast Macro) {
        if let Some(name) = invoked.path.get_ident() {
            self.krate.modules[self.module].invoked.push(name.to_string());
        }
        self.visit_path(&invoked.path);
        self.tokens(invoked.tokens.clone(), false);
    }

    // Attributes name derives and lints, and configuration that is not code.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

fn segments(path: &Path) -> Segments {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

fn starts_low(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
}

/// Whether `cfg(test)` or `cfg(all(test, ..))` is among the attributes.
fn is_test(attributes: &[Attribute]) -> bool {
    fn has(tokens: TokenStream) -> bool {
        let mut negated = false;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if ident == "test" => return true,
                TokenTree::Ident(ident) => negated = ident == "not",
                TokenTree::Group(group) if !negated && has(group.stream()) => return true,
                _ => negated = false,
            }
        }
        false
    }
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| has(list.tokens.clone()))
    })
}

fn path_attribute(attribute: &Attribute) -> Option<String> {
    let value = attribute.meta.require_name_value().ok()?;
    match &value.value {
        Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) if value.path.is_ident("path") => {
            Some(path.value())
        }
        _ => None,
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
