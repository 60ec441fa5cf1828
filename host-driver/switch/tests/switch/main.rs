//! Two hosts of the software path in one process, their VMs and the wire between them in memory: in any weather, each
//! frame arrives or is counted with a reason.
#![forbid(unsafe_code)]

mod fault_injection;
mod mem_port;
mod order;
mod testbed;
mod threads;
