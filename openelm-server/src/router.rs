//! The paths of the server.

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    http::header,
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::time::timeout_at;

use crate::{
    access,
    api_error::ApiError,
    app::App,
    body, models,
    request::{TextRequest, chat_completion_request, completion_request},
    request_record::{self, RequestRecord},
    response::{Shape, respond},
    static_files, tokens,
};

/// All paths, as labels of the metrics.
pub(crate) const PATHS: [&str; 12] = [
    "/",
    "/v1/completions",
    "/completions",
    "/v1/chat/completions",
    "/chat/completions",
    "/v1/models",
    "/models",
    "/health",
    "/metrics",
    "/tokenize",
    "/detokenize",
    "/tokenizer_info",
];

/// The service of all paths.
pub(crate) fn router(app: Arc<App>) -> Router {
    let api = || {
        Router::new()
            .route("/completions", post(completions))
            .route("/chat/completions", post(chat_completions))
            .route("/models", get(models::list))
            .route("/models/{*name}", get(models::find))
    };
    api()
        .nest("/v1", api())
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::info))
        .merge(static_files::routes())
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            access::check,
        ))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            request_record::record,
        ))
        .with_state(app)
}

/// A JSON response.
pub(crate) fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn completions(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<RequestRecord>>,
    body: Body,
) -> Result<Response, ApiError> {
    texts(app, record, body, completion_request, Shape::Completion).await
}

async fn chat_completions(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<RequestRecord>>,
    body: Body,
) -> Result<Response, ApiError> {
    texts(app, record, body, chat_completion_request, Shape::Chat).await
}

async fn texts(
    app: Arc<App>,
    record: Arc<RequestRecord>,
    body: Body,
    read: fn(&[u8], &App) -> Result<TextRequest, ApiError>,
    shape: Shape,
) -> Result<Response, ApiError> {
    let bytes = body::read(&app, body).await?;
    // A long prompt takes time before it runs.
    let place = app.admission.enter()?;
    let deadline = record.started() + app.options.request_timeout;
    let of_request = Arc::clone(&app);
    let request = app.work.run(move || read(&bytes, &of_request));
    let request = timeout_at(deadline.into(), request).await;
    let request = request.unwrap_or_else(|_| Err(ApiError::timeout()))?;
    respond(app, record, place, request, shape).await
}

async fn health() -> Response {
    json("{\"status\":\"ok\"}".into())
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let text = app.metrics.text(&app.admission);
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn no_path(request: Request) -> ApiError {
    ApiError::no_path(request.uri().path())
}

async fn no_method(request: Request) -> ApiError {
    ApiError::method(request.method().as_str(), request.uri().path())
}
