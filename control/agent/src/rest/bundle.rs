//! `/culvert/v1/bundle`: a whole policy at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Query, State};
use culvert_api::{ApplyMode, ApplyReply, Bundle};
use serde::Deserialize;
use serde_json::Value;

use super::reply::{self, Reply, blocking};
use crate::{Agent, Change, Error};

/// Query of [`apply`].
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ApplyQuery {
    mode: ApplyMode,
    dry_run: bool,
}

/// POST: replaces the desired policy, or merges into it.
pub(super) async fn apply(
    State(agent): State<Arc<Agent>>,
    Query(query): Query<ApplyQuery>,
    body: Bytes,
) -> Reply {
    let body = reply::read(&body)?;
    let answer = blocking(agent, move |agent| {
        let parsed = Bundle::from_value(&body).map_err(Error::Form)?;
        let keep = query.mode == ApplyMode::Merge;
        let edit = |documents: &mut crate::Documents| documents.put_bundle(&parsed, keep);
        let change = if query.dry_run { agent.dry_run(edit)? } else { agent.change(None, edit)? };
        let mut answer = compare(&change);
        answer.progress = agent.progress();
        answer.warnings = parsed.warnings;
        answer.warnings.extend(change.warnings);
        Ok(answer)
    })
    .await?;
    reply::ok(&answer)
}

/// GET: the desired policy, in the form that POST takes.
pub(super) async fn show(State(agent): State<Arc<Agent>>) -> Reply {
    let mut all: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let documents = agent.documents();
    for ((collection, _), value) in documents.iter() {
        all.entry(collection.name()).or_default().push(value.as_ref().clone());
    }
    reply::ok(&all)
}

fn compare(change: &Change<()>) -> ApplyReply {
    let before: BTreeMap<_, _> = change.before.iter().collect();
    let after: BTreeMap<_, _> = change.after.iter().collect();
    let path = |value: &Value| value["resourceRef"].as_str().unwrap_or_default().to_owned();
    let mut answer = ApplyReply { version: change.version, ..ApplyReply::default() };
    for (key, value) in &after {
        match before.get(key) {
            None => answer.created.push(path(value)),
            Some(old) if old == value => answer.unchanged += 1,
            Some(_) => answer.updated.push(path(value)),
        }
    }
    answer.deleted = before.iter().filter(|(k, _)| !after.contains_key(*k)).map(|(_, v)| path(v)).collect();
    answer.applied = change.applied.problem.is_none();
    answer.problem = change.applied.problem.as_ref().map(ToString::to_string).unwrap_or_default();
    answer
}
