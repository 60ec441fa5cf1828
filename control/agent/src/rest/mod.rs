//! The HTTP API: resources under `/networking/v1`, runtime under `/culvert/v1`.

mod body_schema;
mod bundle;
mod configuration_state;
mod guard;
mod log_level;
mod metrics;
mod openapi;
mod reply;
mod request;
mod resources;
mod views;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, OriginalUri};
use axum::http::Method;
use axum::middleware::from_fn;
use axum::routing::{get, post};

use self::request::LONGEST_BODY;
use crate::{Agent, Error};

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
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .layer(from_fn(guard::guard))
        .with_state(agent)
}

/// A method that a path of its own does not have. The router adds `Allow`.
async fn not_allowed(method: Method, OriginalUri(uri): OriginalUri) -> Error {
    Error::Method { method: method.to_string(), path: uri.path().to_owned(), allow: "" }
}
