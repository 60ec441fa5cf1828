//! `/culvert/v1/log-level`: which lines the daemon's log has.

use culvert_api::view::LogLevelView;
use culvert_program::log;

use super::reply::{self, Reply};
use super::request::Body;
use crate::Error;

pub(super) async fn show() -> Reply {
    reply::ok(&LogLevelView { filter: log::filter().unwrap_or_default() })
}

pub(super) async fn set(Body(body): Body) -> Reply {
    let asked: LogLevelView = reply::read(&body)?;
    let before = log::filter().unwrap_or_default();
    let filter = log::set_filter(&asked.filter)
        .map_err(|e| Error::BadRequest { message: e.to_string(), remedy: e.remedy().to_owned() })?;
    tracing::info!(before, filter, "log level changed");
    reply::ok(&LogLevelView { filter })
}
