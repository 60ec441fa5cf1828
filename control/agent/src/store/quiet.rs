//! Calls of the database, which panics on some damaged files.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::format::Outcome;

thread_local! {
    /// This thread's panics are errors that someone handles: they write nothing.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls `work`; its panic becomes an error.
pub(super) fn quiet<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                before(panic);
            }
        }));
    });
    let outer = QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(outer);
    result.unwrap_or_else(|_| {
        Err("it is damaged; restore it from a backup, or move it away and apply the policy again".into())
    })
}
