//! Files of the server's own pages, which are part of the program.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, header},
    routing::get,
};

use crate::app::App;

/// A file of a page.
#[derive(Debug, Clone, Copy)]
struct StaticFile {
    path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

/// All files. Without a file at `/`, that path is unknown.
const FILES: &[StaticFile] = &[];

/// The paths of the files.
pub(crate) fn routes() -> Router<Arc<App>> {
    FILES.iter().fold(Router::new(), |router, file| {
        let headers: [(HeaderName, HeaderValue); 2] = [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static(file.content_type),
            ),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
        ];
        router.route(
            file.path,
            get(move || async move { (headers, file.content) }),
        )
    })
}
