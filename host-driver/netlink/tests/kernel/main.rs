//! Next hops from the kernel, and the guard that keeps the overlay's packets from it.
//!
//! Every test makes its own network namespaces. Without root it needs user namespaces.

#[path = "../../../ports/tests/ports/frames.rs"]
#[allow(dead_code, reason = "tests of ports need more of it")]
mod frames;
mod guard;
#[path = "../../../ports/tests/ports/namespace.rs"]
#[allow(dead_code, reason = "tests of ports need more of it")]
mod namespace;
mod neighbours;
mod route_events;
#[path = "../../../ports/tests/ports/test_port.rs"]
#[allow(dead_code, reason = "tests of ports need more of it")]
mod test_port;
mod watch;
