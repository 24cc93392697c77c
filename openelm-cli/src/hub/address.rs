//! Addresses: their origin, and the targets of redirects.

use std::fmt;

use ureq::http::Uri;

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin(String);

impl Origin {
    /// The origin of an address; an empty one if it is none.
    pub(super) fn of(address: &str) -> Self {
        let uri = address.parse::<Uri>().ok();
        let found = uri.as_ref().and_then(|uri| {
            let scheme = uri.scheme_str()?;
            let default = if scheme == "https" { 443 } else { 80 };
            let port = uri.port_u16().unwrap_or(default);
            Some(format!("{scheme}://{}:{port}", uri.host()?.to_lowercase()))
        });
        Self(found.unwrap_or_default())
    }

    /// True for https.
    pub(super) fn is_secure(&self) -> bool {
        self.0.starts_with("https://")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim_end_matches(":443"))
    }
}

/// The address of a redirect from `address`; `None` if it is neither a path nor an address of http
/// or https.
pub(super) fn joined(address: &str, to: &str) -> Option<String> {
    if to.starts_with("//") {
        let (scheme, _) = address.split_once("//")?;
        return Some(format!("{scheme}{to}"));
    }
    if to.starts_with('/') {
        let host = address.split_once("://")?.1;
        let end = address.len() - host.len() + host.find('/').unwrap_or(host.len());
        return Some(format!("{}{to}", address.get(..end)?));
    }
    let is_web = to.starts_with("https://") || to.starts_with("http://");
    (is_web && to.parse::<Uri>().is_ok_and(|uri| uri.host().is_some())).then(|| to.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_paths_or_addresses() {
        let from = "https://hub.test:8443/a/b?c";
        for (to, expected) in [
            ("/x/y?z", Some("https://hub.test:8443/x/y?z")),
            ("//cdn.test/x", Some("https://cdn.test/x")),
            ("http://cdn.test/x", Some("http://cdn.test/x")),
            ("x/y", None),
            ("file:///etc/passwd", None),
            ("https://", None),
            ("", None),
        ] {
            assert_eq!(joined(from, to).as_deref(), expected, "{to}");
        }
    }

    #[test]
    fn a_port_scheme_or_host_makes_another_origin() {
        let hub = Origin::of("https://Hub.test/a");
        assert_eq!(hub, Origin::of("https://hub.test:443/b"));
        for other in [
            "http://hub.test/a",
            "https://hub.test:444/a",
            "https://hub.test.evil/a",
            "https://hub.test@evil/a",
        ] {
            assert_ne!(hub, Origin::of(other), "{other}");
        }
    }
}
