//! The whole deployment on one machine, for the demo and the end-to-end tests: the provider network in namespaces
//! ([`netns`]), boards and daemons ([`deployment`], [`process`]), guests ([`vm`], [`linux_guest`], [`kernel_vm`]), a switch
//! that is not ours ([`openvswitch`]), captures read back ([`tshark`]), frames accounted for ([`accounting`]).

pub mod accounting;
pub mod deployment;
pub mod kernel_vm;
pub mod linux_guest;
pub mod netns;
pub mod openvswitch;
pub mod process;
pub mod tshark;
pub mod vm;
