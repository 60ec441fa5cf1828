//! The switch on its threads, with injected faults: two hosts in memory, where every
//! frame arrives or is counted with a reason.
#![forbid(unsafe_code)]

mod fault_injection;
mod mem_port;
mod order;
mod reading;
mod shares;
mod testbed;
mod threads;
mod turns;
