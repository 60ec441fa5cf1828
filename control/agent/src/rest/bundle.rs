//! `/culvert/v1/bundle`: a whole policy at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use culvert_api::{ApplyMode, ApplyReply, Bundle, Collection, MAX_LISTED, Warning};
use serde::Deserialize;
use serde_json::Value;

use super::reply::{self, Reply, blocking};
use super::request::{Body, Query, lenient_header, unknown};
use crate::{Agent, Change, Documents, Error};

/// Query of [`apply`].
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct ApplyQuery {
    mode: ApplyMode,
    dry_run: bool,
    lenient: bool,
    force: bool,
}

/// POST: replaces the desired policy, or merges into it.
pub(super) async fn apply(
    State(agent): State<Arc<Agent>>,
    Query(query): Query<ApplyQuery>,
    headers: HeaderMap,
    Body(body): Body,
) -> Reply {
    let header = lenient_header(&headers)?;
    let unknown = unknown(query.lenient || header);
    let answer = blocking(agent, move |agent| {
        let mut parsed = Bundle::read(&body, unknown).map_err(Error::Form)?;
        drop(body);
        let keep = query.mode == ApplyMode::Merge;
        let bundle = std::mem::take(&mut parsed.bundle);
        let edit = |documents: &mut Documents| {
            let before = documents.clone();
            documents.put_bundle(bundle, keep);
            let many = most_deleted(&before, documents);
            match many {
                Some((deleted, of)) if !query.force && !query.dry_run => {
                    Err(Error::ManyDeleted { deleted, of })
                }
                many => Ok(many),
            }
        };
        let change = if query.dry_run { agent.dry_run(edit) } else { agent.change(None, edit) };
        let change = change.map_err(|e| with_warnings(e, &parsed.warnings, parsed.more_warnings))?;
        let mut answer = compare(&change);
        answer.progress = agent.progress();
        answer.warnings = parsed.warnings;
        answer.warnings.extend(change.warnings);
        if let Some((deleted, of)) = change.value.filter(|_| !query.force) {
            let message = format!("{deleted} of {of} would be deleted: this needs force=true (--force)");
            answer.warnings.insert(0, Warning { target: "/networkInterfaces".into(), message });
        }
        answer.more_warnings =
            parsed.more_warnings + change.more_warnings + answer.warnings.len().saturating_sub(MAX_LISTED);
        answer.warnings.truncate(MAX_LISTED);
        Ok(answer)
    })
    .await?;
    reply::ok(&answer)
}

/// How many network interfaces a change deletes, and of how many, if it is more than half.
fn most_deleted(before: &Documents, after: &Documents) -> Option<(usize, usize)> {
    let interfaces = |(key, _): &(&crate::documents::Key, _)| key.0 == Collection::NetworkInterfaces;
    let (mut deleted, mut of) = (0, 0);
    for (key, _) in before.iter().filter(interfaces) {
        of += 1;
        deleted += usize::from(after.top(key).is_none());
    }
    (2 * deleted > of).then_some((deleted, of))
}

/// The warnings of reading, beside what the checks found.
fn with_warnings(error: Error, warnings: &[Warning], more: usize) -> Error {
    match error {
        Error::Policy(mut problems) => {
            problems.warnings.splice(0..0, warnings.iter().cloned());
            problems.more_warnings += more + problems.warnings.len().saturating_sub(MAX_LISTED);
            problems.warnings.truncate(MAX_LISTED);
            Error::Policy(problems)
        }
        other => other,
    }
}

/// GET: the desired policy, in the form that POST takes.
pub(super) async fn show(State(agent): State<Arc<Agent>>) -> Reply {
    let mut all: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let documents = agent.documents();
    for ((collection, _), resource) in documents.iter() {
        all.entry(collection.name()).or_default().push(resource.json());
    }
    reply::ok(&all)
}

fn compare<T>(change: &Change<T>) -> ApplyReply {
    let mut answer = ApplyReply { version: change.version, ..ApplyReply::default() };
    for (key, resource) in change.after.iter() {
        match change.before.top(key) {
            None => answer.created.push(resource.path().to_owned()),
            Some(old) if old == resource => answer.unchanged += 1,
            Some(_) => answer.updated.push(resource.path().to_owned()),
        }
    }
    let gone = change.before.iter().filter(|(key, _)| change.after.top(key).is_none());
    answer.deleted = gone.map(|(_, resource)| resource.path().to_owned()).collect();
    answer.applied = change.applied.problem.is_none();
    answer.problem = change.applied.problem.as_ref().map(ToString::to_string).unwrap_or_default();
    answer
}
