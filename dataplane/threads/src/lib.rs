//! Critical threads: those without which the process must not go on, such as packet threads and engines.
//!
//! A thread that panics otherwise ends alone, and the process keeps its sockets open with nobody behind them. When a thread
//! of [`spawn`] panics, the process says which thread and where, and ends with [`EXIT_CODE`], so that a service manager
//! starts it again. It ends in the panic hook, before the stack unwinds: a destructor may wait for a thread that waits for
//! this one.
//!
//! A thread that hangs does not panic: its loop gives signs of life ([`beat`]), and a [`Watch`] names the threads that have
//! stopped to, for a watchdog.

#![forbid(unsafe_code)]

mod pulse;

use std::cell::Cell;
use std::io::{self, Write as _};
use std::panic::{self, AssertUnwindSafe, Location, PanicHookInfo};
use std::sync::Once;
use std::thread::{Builder, JoinHandle, Thread};

pub use pulse::{Watch, beat};

/// Exit code of a process that a critical thread has ended: `EX_SOFTWARE` of sysexits.h.
pub const EXIT_CODE: u8 = 70;

thread_local! {
    /// Whether the process ends with this thread.
    static CRITICAL: Cell<bool> = const { Cell::new(false) };
}

/// Starts a critical thread. Returning from `work` ends the thread alone; a panic in it ends the process.
///
/// # Errors
/// The process has no thread left.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    install_hook();
    Builder::new().name(name.into()).spawn(move || {
        CRITICAL.set(true);
        // Catches a panic only if the hook has been replaced.
        match panic::catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => {
                CRITICAL.set(false);
                result
            }
            Err(payload) => end_process(message(payload.as_ref()), None),
        }
    })
}

/// Ends the process because the current thread cannot go on, with `why` as the last word.
pub fn fail(why: &str) -> ! {
    end_process(why, None)
}

fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            previous(info);
            // A thread that is being torn down has no flag any more, and nothing left to do.
            if CRITICAL.try_with(Cell::get).unwrap_or(false) {
                end_process(message(info.payload()), info.location());
            }
        }));
    });
}

fn message(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

fn end_process(why: &str, place: Option<&Location<'_>>) -> ! {
    let current = std::thread::current();
    let thread = Thread::name(&current).unwrap_or("without a name");
    let place = place.map_or_else(|| "an unknown place".to_owned(), Location::to_string);
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(thread, place, why, "a thread that the process needs has failed; the process ends");
    } else {
        // If stderr is closed, the exit code is all that is left.
        let _ = writeln!(
            io::stderr(),
            "thread {thread} has failed at {place}: {why}\n       -> the process ends; report this"
        );
    }
    std::process::exit(EXIT_CODE.into())
}
