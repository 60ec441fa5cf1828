//! The daemon as its clients and its disk meet it.

mod nic;
mod rest;
mod restart;
mod support;
