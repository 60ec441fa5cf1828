//! The driver on a board that is played by the test: registers, rings and interrupts as `culvert_abi` says, and the
//! firmware's real logic behind them.

mod board;
mod commands;
mod function;
mod life;
mod packets;
mod soc;
mod state;
