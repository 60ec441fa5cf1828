//! The list of all targets.

use crate::target::Target;
use crate::{
    board_rings, bundle, capture, connections, firmware, frame, outer, pf_rings, pipeline, rest, vfio_client,
    vfio_server, vhost, virtqueue,
};

/// All targets, by name.
pub const TARGETS: &[Target] = &[
    board_rings::TARGET,
    bundle::TARGET,
    capture::TARGET,
    connections::TARGET,
    firmware::TARGET,
    frame::TARGET,
    outer::TARGET,
    pf_rings::TARGET,
    pipeline::TARGET,
    rest::TARGET,
    vfio_client::TARGET,
    vfio_server::TARGET,
    vhost::TARGET,
    virtqueue::TARGET,
];
