//! Two hosts of the software path in one process, their VMs and the wire between them in memory: in any weather, each
//! frame arrives or is counted with a reason.
#![forbid(unsafe_code)]

mod lane;
mod order;
mod threads;
mod weather;
mod world;
