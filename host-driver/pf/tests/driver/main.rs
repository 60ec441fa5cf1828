//! The driver on a board of the test: registers, rings and interrupts by `culvert_abi`, and the real firmware logic.

mod attached;
mod board;
mod commands;
mod fixtures;
mod function;
mod life;
mod packets;
mod soc;
mod state;
mod testbed;
