//! Which lines the daemon's log has.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which lines the daemon's log has, until it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLevelView {
    /// A level (`off`, `error`, `warn`, `info`, `debug`, `trace`), and `MODULE=LEVEL` for modules with those below them,
    /// separated by commas.
    pub filter: String,
}
