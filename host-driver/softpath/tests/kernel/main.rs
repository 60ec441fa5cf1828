//! What is needed beside a kernel that keeps its address: next hops from it, and its silence about the overlay.
//!
//! Every test makes its own network namespaces. An ordinary user needs user namespaces for that.

mod guard;
#[path = "../ports/namespace.rs"]
#[allow(dead_code, reason = "tests of ports need more of it")]
mod namespace;
mod neighbours;
#[path = "../ports/station.rs"]
#[allow(dead_code, reason = "tests of ports need more of it")]
mod station;
mod watch;
