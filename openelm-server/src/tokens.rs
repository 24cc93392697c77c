//! `POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`, with the fields of vLLM and of
//! llama-server.

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use serde_json::{Value, json};

use crate::{
    api_error::ApiError,
    app::App,
    body,
    fields::{Fields, expected},
    request::token_ids,
    router::{self, blocking},
};

/// The token ids of a text.
pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    body: Body,
) -> Result<Response, ApiError> {
    let bytes = body::read(&app, body).await?;
    let answer = blocking(move || tokenize_body(&app, &bytes)).await?;
    Ok(router::json(answer.to_string()))
}

/// The text of token ids.
pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    body: Body,
) -> Result<Response, ApiError> {
    let bytes = body::read(&app, body).await?;
    let answer = blocking(move || detokenize_body(&app, &bytes)).await?;
    Ok(router::json(answer.to_string()))
}

/// The special tokens of the tokenizer.
pub(crate) async fn info(State(app): State<Arc<App>>) -> Response {
    let tokenizer = app.model.tokenizer();
    let piece = |id: u32| tokenizer.piece(id);
    let info = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": piece(tokenizer.bos_id()),
        "bos_token_id": tokenizer.bos_id(),
        "eos_token": piece(tokenizer.eos_id()),
        "eos_token_id": tokenizer.eos_id(),
        "pad_token": null,
        "chat_template": null,
        "vocab_size": tokenizer.vocab_size(),
        "model_max_length": app.model.info().config.max_context_length(),
    });
    router::json(info.to_string())
}

fn tokenize_body(app: &App, body: &[u8]) -> Result<Value, ApiError> {
    let mut fields = Fields::of_body(body)?;
    fields.string("model")?;
    // vLLM adds BOS by default, llama-server does not.
    let (name, by_default) = match fields.string("prompt")? {
        Some(text) => ((text, "add_special_tokens"), true),
        None => {
            let missing = ApiError::field("prompt", "it is missing, and so is content");
            let text = fields.string("content")?.ok_or(missing)?;
            ((text, "add_special"), false)
        }
    };
    let (text, option) = name;
    let adds_bos = fields.boolean(option)?.unwrap_or(by_default);
    let parses_special = fields.boolean("parse_special")?.unwrap_or(true);
    let with_pieces = fields.boolean("with_pieces")?.unwrap_or(false);
    let with_texts = fields.boolean("return_token_strs")?.unwrap_or(false);
    fields.finish()?;
    let tokenizer = app.model.tokenizer();
    let ids = if !parses_special {
        let mut ids = tokenizer.encode_plain_prompt(&text)?;
        if !adds_bos {
            ids.remove(0);
        }
        ids
    } else if adds_bos {
        tokenizer.encode_prompt(&text)?
    } else {
        tokenizer.encode(&text)?
    };
    let texts = || -> Vec<String> { ids.iter().map(|&id| app.token_texts.text(id)).collect() };
    let tokens = if with_pieces {
        let pieces = ids.iter().zip(texts());
        pieces
            .map(|(id, piece)| json!({ "id": id, "piece": piece }))
            .collect()
    } else {
        json!(ids)
    };
    Ok(json!({
        "count": ids.len(),
        "max_model_len": app.model.info().config.max_context_length(),
        "tokens": tokens,
        "token_strs": with_texts.then(texts),
    }))
}

fn detokenize_body(app: &App, body: &[u8]) -> Result<Value, ApiError> {
    let mut fields = Fields::of_body(body)?;
    fields.string("model")?;
    let ids = match fields.value("tokens") {
        Some(Value::Array(list)) => token_ids("tokens", &list)?,
        Some(other) => {
            let problem = expected("a list of token ids", &other);
            return Err(ApiError::field("tokens", problem));
        }
        None => return Err(ApiError::field("tokens", "it is missing")),
    };
    fields.finish()?;
    let text = app.model.tokenizer().decode(&ids)?;
    Ok(json!({ "prompt": text, "content": text }))
}
