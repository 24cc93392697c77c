//! The proxy of the environment.

use std::env;

use ureq::{Proxy, ProxyProtocol, http::Uri};

use super::environment::invalid;
use crate::error::Error;

/// The variables of a proxy, in `ureq`'s order.
const PROXIES: [&str; 6] = [
    "ALL_PROXY",
    "all_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
];

/// The proxy of the environment for `endpoint`.
///
/// # Errors
/// [`Error::Usage`] if a variable has a text that is no proxy, or one of another protocol: requests
/// would go around it.
pub(super) fn proxy(endpoint: &str) -> Result<Option<Proxy>, Error> {
    let endpoint = endpoint.parse::<Uri>().unwrap_or_default();
    let is_supported = |proxy: &Proxy| {
        let protocol = proxy.protocol();
        let is_http = matches!(protocol, ProxyProtocol::Http | ProxyProtocol::Https);
        is_http || proxy.is_no_proxy(&endpoint)
    };
    let found = Proxy::try_from_env();
    if found.as_ref().is_some_and(is_supported) {
        return Ok(found);
    }
    let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
    match PROXIES.into_iter().find(is_set) {
        // Its value may contain a password.
        Some(name) => Err(invalid(
            name,
            "an address such as http://proxy:3128",
            "another",
        )),
        None => Ok(None),
    }
}
