//! The state that all requests share.

use openelm_core::engine::ModelHandle;

use crate::{
    admission::Admission, metrics::Metrics, options::ServerOptions, request_work::RequestWork,
    token_texts::TokenTexts,
};

/// The state of a server.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) model: ModelHandle,
    pub(crate) options: ServerOptions,
    pub(crate) token_texts: TokenTexts,
    pub(crate) admission: Admission,
    pub(crate) metrics: Metrics,
    pub(crate) work: RequestWork,
    /// Seconds since 1970 at the start.
    pub(crate) started: u64,
    /// Only programs of this machine reach the address.
    pub(crate) is_loopback: bool,
    /// Programs of other machines reach the address.
    pub(crate) is_public: bool,
}
