//! Crates of a few lines, and what ties their files.

use std::fs;

use super::graph::Imports;

/// Writes the files to a folder and reads the crate; the first file is its root.
fn read(files: &[(&str, &str)]) -> Imports {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    super::imports(&folder.path().join(files[0].0), folder.path()).expect("a crate")
}

#[test]
fn two_files_that_use_each_other_are_a_circle_with_its_names() {
    let imports = read(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::Queue; pub struct Engine(Queue);"),
        ("b.rs", "pub struct Queue; impl Queue { fn of(_: &super::a::Engine) {} }"),
    ]);
    assert_eq!(
        imports.circles(),
        ["2 files import in a circle\n    b.rs -> a.rs: Engine\n    a.rs -> b.rs: Queue"]
    );
}

#[test]
fn a_longer_circle_is_one_group() {
    let imports = read(&[
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "pub fn a() { crate::b::b(); }"),
        ("b.rs", "use super::c; pub fn b() { c::c(); }"),
        ("c.rs", "use super::a::a; pub fn c() { a(); }"),
        ("d.rs", "pub fn d() { crate::a::a(); }"),
    ]);
    let circles = imports.circles();
    assert_eq!(circles.len(), 1);
    assert!(circles[0].starts_with("3 files"), "{circles:?}");
    assert!(!circles[0].contains("d.rs"), "{circles:?}");
}

#[test]
fn a_name_that_the_parent_reexports_is_the_siblings() {
    let imports = read(&[
        ("lib.rs", "mod ring;"),
        ("ring/mod.rs", "mod entry; mod queue; pub use entry::Entry; pub use queue::*;"),
        ("ring/entry.rs", "pub struct Entry;"),
        ("ring/queue.rs", "use super::Entry; pub struct Queue(Entry);"),
    ]);
    assert_eq!(imports.list(), [("ring/queue.rs", "ring/entry.rs", vec!["Entry"])]);
    assert!(imports.circles().is_empty());
}

#[test]
fn a_child_that_uses_its_parents_type_while_the_parent_uses_the_child_is_a_circle() {
    let imports = read(&[
        ("lib.rs", "mod ring;"),
        ("ring/mod.rs", "mod entry; pub use entry::Entry; pub struct Ring(Vec<Entry>);"),
        ("ring/entry.rs", "pub struct Entry; fn of(_: super::Ring) {}"),
    ]);
    assert_eq!(imports.circles().len(), 1);
}

#[test]
fn a_function_with_its_modules_name_is_found() {
    let imports = read(&[
        ("lib.rs", "mod process; mod table; pub use process::process;"),
        ("process.rs", "use crate::table::Table; pub fn process(_: Table) {}"),
        ("table.rs", "pub struct Table; fn t() { crate::process(Table); }"),
    ]);
    assert_eq!(imports.circles().len(), 1);
}

#[test]
fn methods_in_another_file_tie_the_type_to_it() {
    let files = |call: &str| {
        read(&[
            ("lib.rs", "mod state; mod step;"),
            ("state.rs", &format!("pub struct State; impl State {{ fn run(&self) {{ {call} }} }}")),
            ("step.rs", "use super::state::State; impl State { pub(super) fn step(&self) {} }"),
        ])
    };
    assert_eq!(files("self.step();").circles().len(), 1);
    assert_eq!(files("Self::step(self);").circles().len(), 1);
    assert!(files("self.other();").circles().is_empty());
}

#[test]
fn macros_count_by_where_they_are_written_and_by_what_they_name() {
    let imports = read(&[
        ("lib.rs", "macro_rules! show { () => {} } mod a; pub fn top() { a::a(); }"),
        ("a.rs", "pub fn a() { show!(); }"),
    ]);
    assert_eq!(imports.circles().len(), 1);
    let imports = read(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "bitflags! { pub struct Flags: u32 {} } fn a() { println!(\"{}\", crate::b::B); }"),
        ("b.rs", "pub const B: u32 = super::a::Flags::all().bits();"),
    ]);
    assert_eq!(imports.circles().len(), 1);
}

#[test]
fn tests_and_other_crates_do_not_count() {
    let imports = read(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use std::fmt; use serde::*; pub struct A; #[cfg(test)] mod tests;"),
        ("a/tests.rs", "use crate::b::B; use super::A;"),
        ("b.rs", "use crate::a::A; pub struct B; #[cfg(all(test, unix))] mod tests { use crate::b::C; }"),
    ]);
    assert_eq!(imports.list(), [("b.rs", "a.rs", vec!["A"])]);
    assert_eq!(imports.files(), 3);
}

#[test]
fn blocks_and_path_attributes_lead_to_their_files() {
    let imports = read(&[
        ("lib.rs", "mod outer { pub mod inner; } #[path = \"odd/place.rs\"] mod place;"),
        ("outer/inner.rs", "pub struct Inner;"),
        ("odd/place.rs", "use crate::outer::inner::Inner; mod deep; pub use self::deep::Deep;"),
        ("odd/deep.rs", "pub struct Deep; type I = crate::outer::inner::Inner;"),
    ]);
    assert_eq!(imports.files(), 4);
    assert_eq!(
        imports.list(),
        [("odd/place.rs", "outer/inner.rs", vec!["Inner"]), ("odd/deep.rs", "outer/inner.rs", vec!["Inner"]),]
    );
}
