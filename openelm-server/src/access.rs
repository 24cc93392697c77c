//! Access: the request's host and origin, cross-origin headers, and the API key.

use std::{net::IpAddr, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{api_error::ApiError, app::App, static_files};

/// The path of the API that needs no key.
const HEALTH: &str = "/health";

/// Refuses a request with another host, origin or key, and answers those that browsers make before
/// others (preflight requests).
pub(crate) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let origin = match admitted(&app, &request) {
        Ok(origin) => origin,
        Err(error) => return error.into_response(),
    };
    let is_preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight && origin.is_some() {
        preflight(request.headers())
    } else if has_key(&app, &request) {
        next.run(request).await
    } else {
        ApiError::key().into_response()
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// The origin of another page that may read the response.
///
/// # Errors
/// If the host or the origin is not admitted.
fn admitted(app: &App, request: &Request) -> Result<Option<HeaderValue>, ApiError> {
    let headers = request.headers();
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.or(request.uri().authority().map(|host| host.as_str()));
    let host = host.unwrap_or_default();
    let allowed = |is: &dyn Fn(&str) -> bool| {
        let mut origins = app.options.allowed_origins.iter();
        origins.any(|origin| origin == "*" || is(origin))
    };
    // The part of an origin that the header `Host` of its requests has.
    let is_of_host = |origin: &str| {
        let of_page = origin.split_once("://").map(|(_, of_page)| of_page);
        of_page.is_some_and(|of_page| of_page.eq_ignore_ascii_case(host))
    };
    // A name that an attacker's DNS server resolves to this machine is not a loopback name.
    if app.is_loopback && !is_loopback_name(host) && !allowed(&is_of_host) {
        let message = "the header `Host`: expected a name of this machine, such as localhost";
        return Err(ApiError::forbidden(message));
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(None);
    };
    let text = origin.to_str().unwrap_or_default();
    // Without keys, a page that resolves its own name to this machine could use the server.
    let may_be_rebound = app.is_public && app.options.api_keys.is_empty() && !is_address(host);
    if is_of_host(text) && !may_be_rebound {
        return Ok(None);
    }
    if allowed(&|known| known.eq_ignore_ascii_case(text)) {
        return Ok(Some(origin.clone()));
    }
    let message = "the header `Origin`: this page is not among the server's allowed origins";
    Err(ApiError::forbidden(message))
}

/// True for `localhost` and addresses of the loopback network, with any port.
fn is_loopback_name(host: &str) -> bool {
    let name = without_port(host);
    let address: Option<IpAddr> = name.parse().ok();
    name.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback())
}

/// True for addresses and `localhost`, with any port: names that no DNS server resolves.
fn is_address(host: &str) -> bool {
    is_loopback_name(host) || without_port(host).parse::<IpAddr>().is_ok()
}

/// A host without its port and the brackets of an IPv6 address.
fn without_port(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_prefix('[')
        .map_or(name, |name| name.trim_end_matches(']'))
}

fn preflight(request: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, POST");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    if let Some(names) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static("600"),
    );
    response
}

fn has_key(app: &App, request: &Request) -> bool {
    let keys = &app.options.api_keys;
    let path = request.uri().path();
    if keys.is_empty() || path == HEALTH || static_files::has_path(path) {
        return true;
    }
    let header = request.headers().get(header::AUTHORIZATION);
    let parts = header.and_then(|value| value.as_bytes().split_at_checked(BEARER.len()));
    parts.is_some_and(|(scheme, key)| {
        let is_bearer = scheme.eq_ignore_ascii_case(BEARER.as_bytes());
        is_bearer && keys.contains(key.trim_ascii())
    })
}

const BEARER: &str = "Bearer ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_are_recognised() {
        for host in [
            "localhost",
            "LocalHost:8080",
            "127.0.0.1:1",
            "127.8.0.1",
            "[::1]:80",
            "[::1]",
        ] {
            assert!(is_loopback_name(host) && is_address(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "localhost.example.org:80",
            "127.0.0.1.example.org",
            "10.0.0.1:8080",
            "[::2]:80",
            "localhost:80:80",
            "evil@127.0.0.1",
        ] {
            assert!(!is_loopback_name(host), "{host}");
        }
        for (host, expected) in [
            ("10.0.0.1:8080", true),
            ("[fe80::1]:80", true),
            ("10.0.0.1.example.org", false),
            ("example.org:80", false),
            ("", false),
        ] {
            assert_eq!(is_address(host), expected, "{host}");
        }
    }
}
