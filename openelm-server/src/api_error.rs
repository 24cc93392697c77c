//! Errors of requests as responses, in OpenAI's shape.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use openelm_core::{Error, ErrorKind, one_line};
use serde::Serialize;

/// The error of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    /// The field at fault.
    param: Option<String>,
    code: Option<&'static str>,
}

/// Seconds after which a client may repeat a request that found no place.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    /// A field that is malformed, out of range or not supported.
    pub(crate) fn field(name: impl Into<String>, problem: impl AsRef<str>) -> Self {
        let name = name.into();
        Self {
            param: Some(name.clone()),
            ..Self::new(
                StatusCode::BAD_REQUEST,
                format!("{name}: {}", problem.as_ref()),
            )
        }
    }

    /// A body that is no JSON object.
    pub(crate) fn body(problem: impl AsRef<str>) -> Self {
        let message = format!("the body of the request: {}", problem.as_ref());
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A body above the limit.
    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("the body of the request: expected at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// A body that did not arrive in time.
    pub(crate) fn slow_body() -> Self {
        let message = "the body of the request did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, message)
    }

    /// An unknown path.
    pub(crate) fn no_path(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no path {path}"))
    }

    /// A path that does not have the request's method.
    pub(crate) fn method(method: &str, path: &str) -> Self {
        let message = format!("{path}: the method {method} is not supported");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, message)
    }

    /// A name that is neither the model's nor an adapter's.
    pub(crate) fn no_model(name: &str, known: &str) -> Self {
        Self {
            param: Some("model".into()),
            code: Some("model_not_found"),
            ..Self::new(
                StatusCode::NOT_FOUND,
                format!("model: expected {known}, found {name:?}"),
            )
        }
    }

    /// A missing or wrong API key.
    pub(crate) fn key() -> Self {
        Self {
            code: Some("invalid_api_key"),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                "expected the header `Authorization: Bearer KEY` with a key of this server",
            )
        }
    }

    /// A request of a page or host that the server does not serve.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// No place in the queue.
    pub(crate) fn queue_full() -> Self {
        Self {
            code: Some("rate_limit_exceeded"),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many requests are waiting; try again later",
            )
        }
    }

    /// A request that takes longer than the limit.
    pub(crate) fn timeout() -> Self {
        Self {
            code: Some("timeout"),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the request took longer than the server's limit",
            )
        }
    }

    /// The server is shutting down, or the engine has ended.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The object `{"error": …}`.
    pub(crate) fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Whole<'e> {
            error: Object<'e>,
        }
        #[derive(Serialize)]
        struct Object<'e> {
            message: &'e str,
            r#type: &'static str,
            param: Option<&'e str>,
            code: Option<&'static str>,
        }
        let message = one_line(&self.message);
        let param = self.param.as_deref().map(one_line);
        let whole = Whole {
            error: Object {
                message: &message,
                r#type: self.kind(),
                param: param.as_deref(),
                code: self.code,
            },
        };
        serde_json::to_string(&whole).unwrap_or_default()
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match &error {
            Error::Option { option, problem } => Self::field(field_of(option), problem),
            Error::PromptTooLong { .. } => Self {
                param: Some("prompt".into()),
                code: Some("context_length_exceeded"),
                ..Self::new(StatusCode::BAD_REQUEST, error.to_string())
            },
            Error::Memory { .. } => Self::unavailable(error.to_string()),
            // A text that the tokenizer cannot have. Its path is the server's.
            Error::Tokenizer { problem, .. } => Self::new(StatusCode::BAD_REQUEST, problem),
            _ => match error.kind() {
                ErrorKind::InvalidOption => Self::new(StatusCode::BAD_REQUEST, error.to_string()),
                ErrorKind::Cancelled | ErrorKind::Unloaded | ErrorKind::Unusable => {
                    Self::unavailable(error.to_string())
                }
                _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
        }
    }
}

/// The field of a request for the core's `option`.
fn field_of(option: &str) -> &str {
    match option {
        "adapter" => "adapters",
        "json_schema" => "response_format",
        other => other,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => _ = headers.insert(header::RETRY_AFTER, RETRY_AFTER),
            StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static("Bearer");
                headers.insert(header::WWW_AUTHENTICATE, scheme);
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_openais_members() {
        let error = ApiError::from(Error::Option {
            option: "json_schema",
            problem: "expected an object".into(),
        });
        assert_eq!(
            error.to_json(),
            "{\"error\":{\"message\":\"response_format: expected an object\",\
             \"type\":\"invalid_request_error\",\"param\":\"response_format\",\"code\":null}}"
        );
        let error = ApiError::from(Error::PromptTooLong {
            tokens: 9,
            context: 8,
        });
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        assert_eq!(error.code, Some("context_length_exceeded"));
        let full = ApiError::queue_full().into_response();
        assert_eq!(full.headers()[header::RETRY_AFTER], "1");
    }
}
