//! What is needed beside a kernel that keeps its address: next hops from it, and its silence about the overlay.
//!
//! Every test makes its own network namespaces. An ordinary user needs user namespaces for that.

mod guard;
#[path = "../../../ports/tests/ports/lan_host.rs"]
#[allow(dead_code, reason = "tests of ports need more of it")]
mod lan_host;
#[path = "../../../ports/tests/ports/namespace.rs"]
#[allow(dead_code, reason = "tests of ports need more of it")]
mod namespace;
mod neighbours;
mod watch;
