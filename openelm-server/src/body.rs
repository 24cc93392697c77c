//! Reading the body of a request, up to a limit of its size and time.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use tokio::time::timeout;

use crate::{api_error::ApiError, app::App};

/// The whole body.
///
/// # Errors
/// If it is longer than the limit, does not arrive in time, or the client ends it early.
pub(crate) async fn read(app: &App, body: Body) -> Result<Bytes, ApiError> {
    let limit = app.options.max_body_bytes;
    // Nothing is read of a body that says its length.
    if body.size_hint().lower() > limit as u64 {
        return Err(ApiError::too_large(limit));
    }
    let all = Limited::new(body, limit).collect();
    match timeout(app.options.io_timeout, all).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::too_large(limit)),
        Ok(Err(_)) => Err(ApiError::body("it is incomplete")),
        Err(_) => Err(ApiError::slow_body()),
    }
}
