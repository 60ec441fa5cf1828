//! What `culvertd`, `culvert` and `culvert-emu` do alike.
//!
//! * [`log`]: lines on standard error, with a filter that can be changed while the program runs.
//! * [`escaped`]: text that others wrote, such as names, so that it forges no line of a log or a table.
//! * [`manual`]: man pages and completions, made from the definition of the command line.

#![forbid(unsafe_code)]

mod escape;
pub mod log;
pub mod manual;

pub use escape::{Escaped, escaped, escaped_lines};
