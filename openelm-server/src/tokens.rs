//! `POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`, with the fields of vLLM and of
//! llama-server.

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::{Value, json};

use crate::{
    api_error::ApiError,
    app::App,
    body,
    fields::{Fields, expected},
    request::token_ids,
    router,
};

/// The token ids of a text.
pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    body: Body,
) -> Result<Response, ApiError> {
    let bytes = body::read(&app, body).await?;
    let of_work = Arc::clone(&app);
    let answer = app.work.run(move || tokenize_body(&of_work, &bytes));
    Ok(router::json(answer.await?))
}

/// The text of token ids.
pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    body: Body,
) -> Result<Response, ApiError> {
    let bytes = body::read(&app, body).await?;
    let of_work = Arc::clone(&app);
    let answer = app.work.run(move || detokenize_body(&of_work, &bytes));
    Ok(router::json(answer.await?))
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

/// The answer to `/tokenize`.
#[derive(Serialize)]
struct Tokens {
    count: usize,
    max_model_len: usize,
    tokens: Vec<Token>,
    token_strs: Option<Vec<String>>,
}

/// An id, or with the piece an object of both.
struct Token {
    id: u32,
    piece: Option<String>,
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(piece) = &self.piece else {
            return serializer.serialize_u32(self.id);
        };
        let mut object = serializer.serialize_struct("Token", 2)?;
        object.serialize_field("id", &self.id)?;
        object.serialize_field("piece", piece)?;
        object.end()
    }
}

fn tokenize_body(app: &App, body: &[u8]) -> Result<String, ApiError> {
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
    let text = |&id: &u32| app.token_texts.text(id);
    let token = |id: &u32| Token {
        id: *id,
        piece: with_pieces.then(|| text(id)),
    };
    let tokens = Tokens {
        count: ids.len(),
        max_model_len: app.model.info().config.max_context_length(),
        tokens: ids.iter().map(token).collect(),
        token_strs: with_texts.then(|| ids.iter().map(text).collect()),
    };
    Ok(serde_json::to_string(&tokens).unwrap_or_default())
}

fn detokenize_body(app: &App, body: &[u8]) -> Result<String, ApiError> {
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
    let tokenizer = app.model.tokenizer();
    let size = tokenizer.vocab_size();
    if let Some(id) = ids.iter().find(|&&id| id as usize >= size) {
        let problem = format!("expected ids below {size}, found the token {id}");
        return Err(ApiError::field("tokens", problem));
    }
    let text = tokenizer.decode(&ids)?;
    Ok(json!({ "prompt": text, "content": text }).to_string())
}
