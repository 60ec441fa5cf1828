//! What a handler takes from a request: a body of limited length, a query, and whether it is read leniently.

use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use culvert_api::Unknown;
use serde::de::DeserializeOwned;

use crate::Error;

/// Longest request body: a policy of a hundred thousand interfaces.
pub(super) const LONGEST_BODY: usize = 64 << 20;
/// How long a client may take to send it.
const BODY_TIME: Duration = Duration::from_secs(60);
/// Header that asks for lenient reading.
const LENIENT: &str = "culvert-lenient";

/// A request's body.
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let too_long = Error::TooLong { limit: LONGEST_BODY };
        if request.body().size_hint().lower() > LONGEST_BODY as u64 {
            return Err(too_long);
        }
        match tokio::time::timeout(BODY_TIME, Bytes::from_request(request, state)).await {
            Ok(Ok(bytes)) => Ok(Self(bytes)),
            Ok(Err(rejection)) if rejection.status().as_u16() == 413 => Err(too_long),
            Ok(Err(rejection)) => Err(Error::BadRequest {
                message: format!("the body cannot be read: {}", rejection.body_text()),
                remedy: "send the whole body".into(),
            }),
            Err(_) => Err(Error::Foreign {
                status: 408,
                message: format!("the body was not complete after {} s", BODY_TIME.as_secs()),
                remedy: "send the body at once",
            }),
        }
    }
}

/// A request's query.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(Error::BadRequest {
                message: format!("the query cannot be read: {}", rejection.body_text()),
                remedy: "see the parameters of this path in /culvert/v1/openapi.json".into(),
            }),
        }
    }
}

/// Query of requests that read documents.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ReadQuery {
    lenient: bool,
}

/// Whether the header asks for lenient reading.
///
/// # Errors
/// It is neither true nor false.
pub(super) fn lenient_header(headers: &axum::http::HeaderMap) -> Result<bool, Error> {
    match headers.get(LENIENT).map(|v| v.to_str().unwrap_or("?").to_ascii_lowercase()).as_deref() {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(other) => Err(Error::BadRequest {
            message: format!("the header Culvert-Lenient is \"{other}\""),
            remedy: "write true or false, or leave it out".into(),
        }),
    }
}

/// How the request's document is read: `?lenient=true`, or the header of that name.
pub(super) async fn how_to_read(parts: &mut Parts) -> Result<Unknown, Error> {
    let Query(query) = Query::<ReadQuery>::from_request_parts(parts, &()).await?;
    let header = lenient_header(&parts.headers)?;
    Ok(unknown(query.lenient || header))
}

pub(super) fn unknown(lenient: bool) -> Unknown {
    if lenient { Unknown::Ignored } else { Unknown::Refused }
}
