//! `culvert log-level`.

use culvert_api::view::LogLevelView;

use crate::client::Client;
use crate::error::Error;
use crate::output::show;

const PATH: &str = "/culvert/v1/log-level";

pub(super) fn run(filter: Option<&str>, client: &Client, json: bool) -> Result<String, Error> {
    let level: LogLevelView = match filter {
        None => client.get(PATH)?,
        Some(filter) => {
            let asked = LogLevelView { filter: filter.to_owned() };
            client.put(PATH, serde_json::to_string(&asked).unwrap_or_default())?
        }
    };
    Ok(show(&level, json, |level| format!("{}\n", level.filter)))
}
