//! Refuses what no client of ours sends: requests of web pages, requests for other hosts, changes by readers.

use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::Error;
use crate::peer::{Peer, Role};

/// The one request of a method other than GET that changes nothing.
const TRACE: &str = "/culvert/v1/trace";

/// Passes a request on, or answers it.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    match check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check(request: &Request) -> Result<(), Error> {
    let refused = |status, message: String, remedy| Err(Error::Foreign { status, message, remedy });
    let headers = request.headers();
    let peer = request.extensions().get::<Peer>();
    if let Err(message) = host(request, headers, peer) {
        return refused(
            400,
            message,
            "send one Host header: localhost, an address, or a name of --listen-name",
        );
    }
    if headers.contains_key(header::ORIGIN) {
        return refused(
            403,
            "the request comes from a web page".into(),
            "use a client that is not a browser",
        );
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD) || request.uri().path() == TRACE;
    if peer.is_some_and(|p| p.role == Role::Read) && !reads {
        return refused(
            403,
            "this client's certificate is a reader's".into(),
            "use a certificate that --tls-client-ca has signed",
        );
    }
    let takes_body = matches!(*request.method(), Method::PUT | Method::POST);
    if takes_body && request.body().size_hint().exact() != Some(0) && !is_json(headers) {
        return refused(
            415,
            "the body's Content-Type is not application/json".into(),
            "send Content-Type: application/json",
        );
    }
    Ok(())
}

/// RFC 9110 7.2: a server refuses what is not meant for it. A page whose name is made to resolve to this host sends that
/// name.
fn host(request: &Request, headers: &HeaderMap, peer: Option<&Peer>) -> Result<(), String> {
    let mut all = headers.get_all(header::HOST).iter();
    let Some(host) = all.next() else {
        let needed = request.version() >= Version::HTTP_11;
        return if needed { Err("the request has no Host header".into()) } else { Ok(()) };
    };
    if all.next().is_some() {
        return Err("the request has two Host headers".into());
    }
    let text = host.to_str().unwrap_or("?");
    let authority: Result<axum::http::uri::Authority, _> = text.parse();
    let Ok(authority) = authority else { return Err(format!("the Host header is \"{text}\"")) };
    let name = authority.host();
    let known = ["localhost", "culvertd"]
        .into_iter()
        .chain(peer.iter().flat_map(|p| p.names.iter().map(String::as_str)));
    let literal = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    if literal || known.into_iter().any(|k| k.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    Err(format!("the Host header is \"{text}\", which is no name of this daemon"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
