//! The one way for a test to be skipped, where the machine lacks what the test needs.
//!
//! The test runner shows nothing of a test that passes. So a skipped test writes its name and the reason to the file that
//! [`REPORT`] names, which `cargo xtask test` prints at the end; where [`FORBIDDEN`] is set, as in CI, it fails.
//!
//! ```no_run
//! let tun = std::fs::File::open("/dev/net/tun");
//! if let Err(error) = tun {
//!     return culvert_skip::skip(format_args!("/dev/net/tun: {error}"));
//! }
//! ```

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::fs::File;
use std::io::Write as _;

/// Environment variable with the path of the file that skipped tests are written to, one a line.
pub const REPORT: &str = "CULVERT_SKIPPED_TESTS";
/// Environment variable that makes a skipped test fail, whatever its value.
pub const FORBIDDEN: &str = "CULVERT_NO_SKIP";

/// Says that the running test is skipped, and why; its caller returns.
///
/// # Panics
/// Skipping is forbidden.
pub fn skip(reason: impl Display) {
    let test = name();
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os(REPORT) {
        // In one write, since tests run side by side.
        let line = format!("{test}: {reason}\n");
        let written = File::options().create(true).append(true).open(&path);
        if let Err(error) = written.and_then(|mut file| file.write_all(line.as_bytes())) {
            eprintln!("{}: {error}", path.display());
        }
    }
    assert!(std::env::var_os(FORBIDDEN).is_none(), "{test} is skipped, which {FORBIDDEN} forbids: {reason}");
}

/// Program and test.
fn name() -> String {
    let program = std::env::args().next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    // Cargo puts a hash behind a test program's name.
    let program = program.rsplit_once('-').map_or(program, |(name, _)| name);
    // The runner names a test's thread after it, unless it runs one test at a time.
    let test = std::env::var("NEXTEST_TEST_NAME").ok();
    let test = test.or_else(|| std::thread::current().name().map(str::to_owned)).unwrap_or_default();
    format!("{program} {test}")
}
