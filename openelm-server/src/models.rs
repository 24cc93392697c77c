//! `GET /v1/models`: the model, and its adapters as models of their own.

use std::sync::Arc;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    response::Response,
};
use serde_json::{Value, json};

use crate::{api_error::ApiError, app::App, router};

/// All models.
pub(crate) async fn list(State(app): State<Arc<App>>) -> Response {
    let list = json!({ "object": "list", "data": all(&app) });
    router::json(list.to_string())
}

/// The model with a name.
pub(crate) async fn find(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    // Bytes that are no text name no model.
    let name = name.map(|Path(name)| name).unwrap_or_default();
    let found = all(&app).into_iter().find(|model| model["id"] == *name);
    match found {
        Some(model) => Ok(router::json(model.to_string())),
        None => Err(ApiError::no_model(&name, "a name of /v1/models")),
    }
}

fn all(app: &App) -> Vec<Value> {
    let own = &app.options.served_model_name;
    let context = app.model.info().config.max_context_length();
    let model = |id: &str, parent: Option<&str>| {
        json!({
            "id": id,
            "object": "model",
            "created": app.started,
            "owned_by": "openelm",
            "parent": parent,
            "max_model_len": context,
            "chat_template": app.options.chat_template.name(),
            "defaults": defaults(app),
        })
    };
    let adapters = app.options.adapters.iter();
    let adapters = adapters.map(|(name, _)| model(name, Some(own)));
    [model(own, None)].into_iter().chain(adapters).collect()
}

/// The values of fields that a request does not have.
fn defaults(app: &App) -> Value {
    let options = &app.options.generate;
    let sampling = &options.sampling;
    json!({
        "max_tokens": options.max_tokens,
        "temperature": shortest(sampling.temperature),
        "top_p": shortest(sampling.top_p),
        "top_k": sampling.top_k,
        "min_p": shortest(sampling.min_p),
        "repetition_penalty": shortest(sampling.repetition_penalty),
        "seed": sampling.seed,
    })
}

/// The number with the fewest digits that is read as `number`: 0.7, not 0.699999988079071.
fn shortest(number: f32) -> Option<f64> {
    number.to_string().parse().ok()
}
