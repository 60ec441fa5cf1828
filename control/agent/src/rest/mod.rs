//! The HTTP API: resources under `/networking/v1`, runtime under `/culvert/v1`.

mod bundle;
mod configuration_state;
mod log_level;
mod metrics;
mod openapi;
mod reply;
mod resources;
mod views;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use crate::Agent;

/// Longest request body: a policy of some hundred thousand interfaces.
const LONGEST_BODY: usize = 256 << 20;

/// All routes. Paths under `/networking/v1` are read in any case, as MS-NCNBI clients write them.
pub fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/culvert/v1/bundle", post(bundle::apply).get(bundle::show))
        .route("/culvert/v1/nic", get(views::nic))
        .route("/culvert/v1/vports", get(views::vports))
        .route("/culvert/v1/flows", get(views::flows).delete(views::flush))
        .route("/culvert/v1/talkers", get(views::talkers))
        .route("/culvert/v1/rules", get(views::rules))
        .route("/culvert/v1/counters", get(views::counters))
        .route("/culvert/v1/drops", get(views::drops))
        .route("/culvert/v1/mappings", get(views::mappings))
        .route("/culvert/v1/trace", post(views::trace))
        .route("/culvert/v1/health", get(views::health))
        .route("/culvert/v1/metrics", get(metrics::metrics))
        .route("/culvert/v1/log-level", get(log_level::show).put(log_level::set))
        .route("/culvert/v1/openapi.json", get(openapi::document))
        .fallback(resources::any)
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .with_state(agent)
}
