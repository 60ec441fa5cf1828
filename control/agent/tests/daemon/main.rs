//! The daemon as its clients and its disk meet it.

mod rest;
mod restart;
mod support;
