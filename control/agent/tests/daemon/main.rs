//! The daemon as its clients and its disk meet it.

mod nic;
mod openapi;
mod program;
mod rest;
mod restart;
mod service_manager;
mod strict;
mod support;
mod tcp;
