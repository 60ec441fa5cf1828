//! Replies: JSON, and every error in one form.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use culvert_api::{ErrorReply, Findings, json_error};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Agent, Error};

/// A handler's result.
pub(super) type Reply = Result<Response, Error>;

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json(status, &ErrorReply { error: self.body().bounded() });
        if let Error::Method { allow, .. } = self
            && !allow.is_empty()
        {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// A JSON reply.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let json = HeaderValue::from_static("application/json; charset=utf-8");
            (status, [(header::CONTENT_TYPE, json)], bytes).into_response()
        }
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

/// A JSON reply of status 200.
pub(super) fn ok(body: &impl Serialize) -> Reply {
    Ok(json(StatusCode::OK, body))
}

/// Runs work that blocks on disk or NIC on a blocking thread.
pub(super) async fn blocking<T: Send + 'static>(
    agent: Arc<Agent>,
    work: impl FnOnce(&Agent) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(move || work(&agent)).await {
        Ok(result) => result,
        Err(e) => {
            Err(crate::DatapathError::Failed { detail: format!("the request's thread ended: {e}") }.into())
        }
    }
}

/// Reads a body as JSON.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|e| Error::Form(Findings::one(json_error(&e))))
}
