//! `/networking/v1/{collection}/{id}[/{child}/{id}]`: GET, PUT, DELETE.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use culvert_api::{Collection, ResourcePath};
use serde_json::{Value, json};

use super::configuration_state::configuration_state;
use super::reply::{self, Reply, blocking};
use crate::agent::Current;
use crate::{Agent, Error, Precondition};

/// What a path under `/networking/v1` names.
enum Target {
    /// Nothing below: the list of collections.
    Root,
    /// A collection, or the child collection of a resource.
    List(Option<ResourcePath>, String),
    /// A resource.
    One(ResourcePath),
}

/// Handles every path without a route of its own.
pub(super) async fn any(
    State(agent): State<Arc<Agent>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Reply {
    let target = target(uri.path())?;
    let precondition = Precondition {
        if_match: text(&headers, header::IF_MATCH),
        if_none_match: text(&headers, header::IF_NONE_MATCH).is_some_and(|v| v.trim() == "*"),
    };
    match (method, target) {
        (Method::GET, Target::Root) => {
            let names: Vec<Value> =
                Collection::names().into_iter().map(|n| json!({"resourceRef": format!("/{n}")})).collect();
            reply::ok(&json!({ "value": names }))
        }
        (Method::GET, Target::List(parent, name)) => list(&agent.current(), parent.as_ref(), &name),
        (Method::GET, Target::One(path)) => get(&agent.current(), &path, &headers),
        (Method::PUT, Target::One(path)) => put(agent, path, precondition, &body).await,
        (Method::DELETE, Target::One(path)) => delete(agent, path, precondition).await,
        (method, _) => Ok(reply::json(
            StatusCode::METHOD_NOT_ALLOWED,
            &culvert_api::ErrorReply {
                error: culvert_api::ErrorBody::new(
                    "MethodNotAllowed",
                    format!("{method} is not allowed here"),
                    uri.path(),
                    "use GET on collections, and GET, PUT or DELETE on resources",
                ),
            },
        )),
    }
}

fn target(path: &str) -> Result<Target, Error> {
    let not_found = || Error::NotFound { path: path.to_owned() };
    let mut parts = path.trim_matches('/').split('/');
    let prefix = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if !prefix.0.eq_ignore_ascii_case("networking") || !prefix.1.eq_ignore_ascii_case("v1") {
        return Err(not_found());
    }
    let rest: Vec<&str> = parts.collect();
    match rest.split_last() {
        None => Ok(Target::Root),
        Some((name, [])) => {
            Ok(Target::List(None, Collection::from_name(name).map_err(form)?.name().to_owned()))
        }
        Some((name, parent)) if rest.len() % 2 == 1 => {
            let parent = ResourcePath::parse(&parent.join("/")).map_err(form)?;
            let children = parent.collection.children();
            let child = children.get(parent.children.len()).filter(|c| c.eq_ignore_ascii_case(name));
            let child = (*child.ok_or_else(not_found)?).to_owned();
            Ok(Target::List(Some(parent), child))
        }
        Some(_) => Ok(Target::One(ResourcePath::parse(&rest.join("/")).map_err(form)?)),
    }
}

fn form(error: culvert_api::Error) -> Error {
    match error {
        culvert_api::Error::UnknownCollection { name, .. } => {
            Error::NotFound { path: format!("the collection {name}") }
        }
        other => Error::Form(vec![other]),
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
}

fn list(current: &Current, parent: Option<&ResourcePath>, name: &str) -> Reply {
    let documents = &current.stored.documents;
    let values: Vec<Value> = match parent {
        None => {
            let collection = Collection::from_name(name).map_err(form)?;
            documents.list(collection).into_iter().map(|v| with_state(v.as_ref().clone(), current)).collect()
        }
        Some(path) => {
            let parent = documents.get(path).ok_or_else(|| Error::NotFound { path: path.to_string() })?;
            let list = parent.pointer(&format!("/properties/{name}")).and_then(Value::as_array);
            list.into_iter().flatten().map(|v| with_state(v.clone(), current)).collect()
        }
    };
    reply::ok(&json!({ "value": values, "nextLink": "" }))
}

fn get(current: &Current, path: &ResourcePath, headers: &HeaderMap) -> Reply {
    let value =
        current.stored.documents.get(path).ok_or_else(|| Error::NotFound { path: path.to_string() })?.clone();
    let etag = value.get("etag").and_then(Value::as_str).unwrap_or_default().to_owned();
    if text(headers, header::IF_NONE_MATCH).is_some_and(|known| known.split(',').any(|k| k.trim() == etag)) {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    Ok(with_etag(reply::json(StatusCode::OK, &with_state(value, current)), &etag))
}

async fn put(agent: Arc<Agent>, path: ResourcePath, precondition: Precondition, body: &[u8]) -> Reply {
    let body = reply::read(body)?;
    let (is_new, value, etag) = blocking(agent, move |agent| {
        let change = agent.change(None, |documents| documents.put(&path, &body, &precondition))?;
        let (is_new, warnings) = change.value;
        for warning in warnings {
            tracing::warn!(target = warning.target, "{}", warning.message);
        }
        let value = change.after.get(&path).cloned().unwrap_or_default();
        let etag = value.get("etag").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok((is_new, with_state(value, &agent.current()), etag))
    })
    .await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(with_etag(reply::json(status, &value), &etag))
}

async fn delete(agent: Arc<Agent>, path: ResourcePath, precondition: Precondition) -> Reply {
    let existed = blocking(agent, move |agent| {
        let change = agent.change(Some(&path), |documents| documents.delete(&path, &precondition))?;
        Ok(change.value)
    })
    .await?;
    // MS-NCNBI: deleting a resource that does not exist is not an error.
    Ok(if existed { StatusCode::OK } else { StatusCode::NO_CONTENT }.into_response())
}

fn with_etag(mut response: Response, etag: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

/// Adds the configuration state: whether the host carries the resource out.
fn with_state(mut value: Value, current: &Current) -> Value {
    let reference = value.get("resourceRef").and_then(Value::as_str).unwrap_or_default();
    let state = configuration_state(reference, current);
    if let Some(properties) = value.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("configurationState".into(), state);
    }
    value
}
