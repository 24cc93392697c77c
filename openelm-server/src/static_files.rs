//! The files of the server's page, which are part of the program.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest, Sha256};

use crate::app::App;

/// A file of the page.
#[derive(Debug, Clone, Copy)]
struct StaticFile {
    path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// All files.
const FILES: &[StaticFile] = &[
    file("/", HTML, include_str!("page/index.html")),
    file("/page/page.css", CSS, include_str!("page/page.css")),
    file("/page/controls.css", CSS, include_str!("page/controls.css")),
    file(
        "/page/transcript.css",
        CSS,
        include_str!("page/transcript.css"),
    ),
    file("/page/icon.svg", SVG, include_str!("page/icon.svg")),
    file("/page/page.js", JAVASCRIPT, include_str!("page/page.js")),
    file("/page/api.js", JAVASCRIPT, include_str!("page/api.js")),
    file(
        "/page/event_stream.js",
        JAVASCRIPT,
        include_str!("page/event_stream.js"),
    ),
    file(
        "/page/transcript.js",
        JAVASCRIPT,
        include_str!("page/transcript.js"),
    ),
    file(
        "/page/answer.js",
        JAVASCRIPT,
        include_str!("page/answer.js"),
    ),
    file(
        "/page/probabilities.js",
        JAVASCRIPT,
        include_str!("page/probabilities.js"),
    ),
    file(
        "/page/options.js",
        JAVASCRIPT,
        include_str!("page/options.js"),
    ),
    file(
        "/page/key_dialog.js",
        JAVASCRIPT,
        include_str!("page/key_dialog.js"),
    ),
    file(
        "/page/live_region.js",
        JAVASCRIPT,
        include_str!("page/live_region.js"),
    ),
];

const fn file(path: &'static str, content_type: &'static str, content: &'static str) -> StaticFile {
    StaticFile {
        path,
        content_type,
        content,
    }
}

/// No inline script or style, no other host, no frame around the page, and no HTML out of strings.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The paths of the files.
pub(crate) fn routes() -> Router<Arc<App>> {
    FILES.iter().fold(Router::new(), |router, file| {
        let headers = file.headers();
        router.route(
            file.path,
            get(move |request: HeaderMap| async move { file.response(headers, &request) }),
        )
    })
}

/// True for the path of a file. Files need no key: the page has a field for it.
pub(crate) fn has_path(path: &str) -> bool {
    FILES.iter().any(|file| file.path == path)
}

impl StaticFile {
    fn headers(&self) -> HeaderMap {
        let fixed: [(HeaderName, &str); 5] = [
            (header::CONTENT_TYPE, self.content_type),
            // A later version of the program has other files under the same paths.
            (header::CACHE_CONTROL, "no-cache"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        ];
        let fixed = fixed.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let tag = HeaderValue::from_str(&self.entity_tag());
        let tag = tag.map(|tag| (header::ETAG, tag));
        fixed.into_iter().chain(tag).collect()
    }

    /// The first half of the content's SHA-256.
    fn entity_tag(&self) -> String {
        let hash = Sha256::digest(self.content);
        let digits = hash.iter().take(16).map(|byte| format!("{byte:02x}"));
        format!("\"{}\"", digits.collect::<String>())
    }

    fn response(&self, headers: HeaderMap, request: &HeaderMap) -> Response {
        let tag = headers.get(header::ETAG);
        let is_current = tag.is_some_and(|tag| is_among(tag, request));
        if is_current {
            let mut headers = headers;
            headers.remove(header::CONTENT_TYPE);
            (StatusCode::NOT_MODIFIED, headers).into_response()
        } else {
            (headers, self.content).into_response()
        }
    }
}

/// True if `If-None-Match` of a request has the tag (RFC 9110, section 13.1.2).
fn is_among(tag: &HeaderValue, request: &HeaderMap) -> bool {
    let lists = request.get_all(header::IF_NONE_MATCH).iter();
    let mut known = lists.flat_map(|list| list.as_bytes().split(|&byte| byte == b','));
    known.any(|known| {
        let known = known.trim_ascii();
        known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes()
    })
}
