//! `/networking/v1/{collection}/{id}[/{child}/{id}]`: GET, PUT, DELETE.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use culvert_api::{Collection, Findings, Node, ResourcePath, Unknown};
use serde_json::{Value, json};

use super::configuration_state::ConfigurationStates;
use super::reply::{self, Reply, blocking};
use super::request::{Body, how_to_read};
use crate::documents::lists;
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
pub(super) async fn any(State(agent): State<Arc<Agent>>, request: Request) -> Reply {
    let (mut parts, body) = request.into_parts();
    let target = target(parts.uri.path())?;
    let precondition = Precondition {
        if_match: text(&parts.headers, header::IF_MATCH),
        if_none_match: text(&parts.headers, header::IF_NONE_MATCH),
    };
    match (parts.method.clone(), target) {
        (Method::GET | Method::HEAD, Target::Root) => {
            let names: Vec<Value> =
                Collection::names().into_iter().map(|n| json!({"resourceRef": format!("/{n}")})).collect();
            reply::ok(&json!({ "value": names }))
        }
        (Method::GET | Method::HEAD, Target::List(parent, name)) => {
            list(&ConfigurationStates::new(&agent), parent.as_ref(), &name)
        }
        (Method::GET | Method::HEAD, Target::One(path)) => {
            get(&ConfigurationStates::new(&agent), &path, precondition)
        }
        (Method::PUT, Target::One(path)) => {
            let unknown = how_to_read(&mut parts).await?;
            let Body(body) = Body::from_request(Request::from_parts(parts, body), &()).await?;
            put(agent, path, precondition, body, unknown).await
        }
        (Method::DELETE, Target::One(path)) => delete(agent, path, precondition).await,
        (method, target) => {
            let allow = match target {
                Target::One(_) => "GET, HEAD, PUT, DELETE",
                Target::Root | Target::List(..) => "GET, HEAD",
            };
            Err(Error::Method { method: method.to_string(), path: parts.uri.path().to_owned(), allow })
        }
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
        other => Error::Form(Findings::one(other)),
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
}

fn list(states: &ConfigurationStates, parent: Option<&ResourcePath>, name: &str) -> Reply {
    let documents = &states.current().stored.documents;
    let values: Vec<Value> = match parent {
        None => {
            let collection = Collection::from_name(name).map_err(form)?;
            documents.list(collection).map(|r| with_state(r.json(), states)).collect()
        }
        Some(path) => {
            let parent = documents.node(path).ok_or_else(|| Error::NotFound { path: path.to_string() })?;
            parent.children_json().into_iter().map(|v| with_state(v, states)).collect()
        }
    };
    reply::ok(&json!({ "value": values, "nextLink": "" }))
}

fn get(states: &ConfigurationStates, path: &ResourcePath, mut precondition: Precondition) -> Reply {
    let node = states.current().stored.documents.node(path);
    let node = node.ok_or_else(|| Error::NotFound { path: path.to_string() })?;
    let etag = node.etag();
    // RFC 9110 13.2.2: If-Match first; If-None-Match then only decides between 200 and 304.
    let known = precondition.if_none_match.take();
    precondition.check(path, Some(etag))?;
    if known.is_some_and(|tags| lists(&tags, Some(etag))) {
        return Ok(with_etag(StatusCode::NOT_MODIFIED.into_response(), etag));
    }
    Ok(with_etag(reply::json(StatusCode::OK, &with_state(node.json(), states)), etag))
}

async fn put(
    agent: Arc<Agent>,
    path: ResourcePath,
    precondition: Precondition,
    body: Bytes,
    unknown: Unknown,
) -> Reply {
    let (is_new, value, etag) = blocking(agent, move |agent| {
        let change = agent.change(None, |documents| documents.put(&path, &body, unknown, &precondition))?;
        let (is_new, findings) = change.value;
        for warning in findings.warnings {
            tracing::warn!(target = warning.target, "{}", warning.message);
        }
        let node = change.after.node(&path);
        let etag = node.map(Node::etag).unwrap_or_default().to_owned();
        let value = node.map(Node::json).unwrap_or_default();
        Ok((is_new, with_state(value, &ConfigurationStates::new(agent)), etag))
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
fn with_state(mut value: Value, states: &ConfigurationStates) -> Value {
    let reference = value.get("resourceRef").and_then(Value::as_str).unwrap_or_default();
    let state = states.of(reference);
    if let Some(properties) = value.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("configurationState".into(), state);
    }
    value
}
