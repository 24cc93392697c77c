//! The variables of the environment that `huggingface_hub` reads.

use std::{
    env::{self, VarError},
    path::{Path, PathBuf},
    time::Duration,
};

use ureq::http::{Uri, uri::Authority};

use super::token::Token;
use crate::error::Error;

/// Address of the Hub without `HF_ENDPOINT`.
const ENDPOINT: &str = "https://huggingface.co";
/// Seconds to wait for the answer to a request, and for more bytes of a file.
const TIMEOUT: u64 = 10;

/// The variables that have a path or an address.
const VARIABLES: [&str; 9] = [
    "HOME",
    "XDG_CACHE_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_TOKEN_PATH",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_ENDPOINT",
];

/// Settings of the Hub.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    /// `HF_ENDPOINT`: the address of the Hub, without a `/` at the end.
    pub(crate) endpoint: String,
    /// `HF_HUB_CACHE`: the folder of the cache.
    pub(crate) cache: PathBuf,
    /// `HF_TOKEN`, or the file `HF_TOKEN_PATH`.
    pub(crate) token: Option<Token>,
    /// `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`: only the cache is used.
    pub(crate) offline: bool,
    /// `HF_HUB_ETAG_TIMEOUT`: longest wait for an answer.
    pub(crate) answer_timeout: Duration,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: longest wait for more bytes of a file.
    pub(crate) read_timeout: Duration,
    /// `HF_HUB_DISABLE_IMPLICIT_TOKEN`: downloads are made without the token.
    pub(crate) without_implicit_token: bool,
}

impl Environment {
    /// The settings of this process.
    ///
    /// # Errors
    /// [`Error::Usage`] if a variable has an invalid value, [`Error::HubCache`] if the file of the
    /// token cannot be read.
    pub(crate) fn read() -> Result<Self, Error> {
        // Bytes that are no text would be ignored, and another folder used.
        let is_other = |name: &&&str| matches!(env::var(name), Err(VarError::NotUnicode(_)));
        if let Some(name) = VARIABLES.iter().find(is_other) {
            return Err(invalid(name, "UTF-8 text", "other bytes"));
        }
        Self::of(|name| env::var(name).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = set("HOME").map(PathBuf::from).or_else(env::home_dir);
        let home = home.unwrap_or_else(|| PathBuf::from("."));
        let path = |name: &str| set(name).map(|value| expanded(&value, &home));
        let hub_home = path("HF_HOME").unwrap_or_else(|| {
            let caches = path("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
            caches.join("huggingface")
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let token = match set("HF_TOKEN").or_else(|| set("HUGGING_FACE_HUB_TOKEN")) {
            Some(text) => Token::parse(&text, "HF_TOKEN")?,
            None => Token::read(&path("HF_TOKEN_PATH").unwrap_or_else(|| hub_home.join("token")))?,
        };
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !is_endpoint(&endpoint) {
            let expected = "an address such as https://huggingface.co";
            return Err(invalid("HF_ENDPOINT", expected, &endpoint));
        }
        let seconds = |name: &str| match set(name) {
            None => Ok(Duration::from_secs(TIMEOUT)),
            Some(text) => match text.trim().parse::<u64>() {
                // As huggingface_hub.
                Ok(0) => Ok(Duration::from_secs(TIMEOUT)),
                Ok(seconds) => Ok(Duration::from_secs(seconds)),
                Err(_) => Err(invalid(name, "a number of seconds", &text)),
            },
        };
        let offline = set("HF_HUB_OFFLINE").or_else(|| set("TRANSFORMERS_OFFLINE"));
        Ok(Self {
            endpoint,
            cache: cache.unwrap_or_else(|| hub_home.join("hub")),
            token,
            offline: offline.is_some_and(|value| is_true(&value)),
            answer_timeout: seconds("HF_HUB_ETAG_TIMEOUT")?,
            read_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT")?,
            without_implicit_token: set("HF_HUB_DISABLE_IMPLICIT_TOKEN")
                .is_some_and(|value| is_true(&value)),
        })
    }
}

/// The error of a variable or file with an invalid value.
pub(super) fn invalid(place: &str, expected: &str, found: &str) -> Error {
    Error::Usage(format!("{place}: expected {expected}, found {found}"))
}

/// True for an address of http or https with a host, and no more than a port and a path.
fn is_endpoint(address: &str) -> bool {
    let is_plain = !address.contains(['@', '?', '#', ' ']);
    let address = address.parse::<Uri>().ok().filter(|_| is_plain);
    address.is_some_and(|address| {
        let authority = address.authority().map_or("", Authority::as_str);
        let host = address.host().unwrap_or_default();
        let port = authority.strip_prefix(host).unwrap_or_default();
        let is_port = port.is_empty() || address.port_u16().is_some_and(|port| port > 0);
        matches!(address.scheme_str(), Some("http" | "https")) && !host.is_empty() && is_port
    })
}

fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str())
}

/// The path with `~` replaced by the home folder.
fn expanded(path: &str, home: &Path) -> PathBuf {
    match path.strip_prefix('~') {
        Some("") => home.to_owned(),
        Some(rest) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use openelm_testing::TempDir;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Result<Environment, Error> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name);
        Environment::of(|name| Some(find(name)?.1.to_owned()))
    }

    #[test]
    fn reads_the_variables_of_huggingface_hub() {
        let cache = |variables: &[(&str, &str)]| environment(variables).unwrap().cache;
        for (variables, expected) in [
            (&[("HOME", "/h")][..], "/h/.cache/huggingface/hub"),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
                "/x/huggingface/hub",
            ),
            (&[("HF_HOME", "~/f"), ("HOME", "/h")], "/h/f/hub"),
            (&[("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/o")], "/o"),
            (
                &[("HUGGINGFACE_HUB_CACHE", "/o"), ("HF_HUB_CACHE", "/c")],
                "/c",
            ),
            (&[("HF_HUB_CACHE", ""), ("HF_HOME", "/f")], "/f/hub"),
        ] {
            assert_eq!(cache(variables), Path::new(expected), "{variables:?}");
        }
        let given = environment(&[
            ("HF_ENDPOINT", "http://127.0.0.1:8000/"),
            ("TRANSFORMERS_OFFLINE", "yes"),
            ("HF_HUB_ETAG_TIMEOUT", "3"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "0"),
        ]);
        let given = given.unwrap();
        assert_eq!(given.endpoint, "http://127.0.0.1:8000");
        assert!(given.offline && given.token.is_none());
        assert_eq!(given.answer_timeout, Duration::from_secs(3));
        assert_eq!(given.read_timeout, Duration::from_secs(10));
        for (name, value, part) in [
            ("HF_ENDPOINT", "ftp://x", "expected an address"),
            ("HF_ENDPOINT", "https://u:p@x", "expected an address"),
            ("HF_ENDPOINT", "http://", "expected an address"),
            ("HF_ENDPOINT", "http://[::1", "expected an address"),
            ("HF_ENDPOINT", "http://x:99999", "expected an address"),
            ("HF_ENDPOINT", "http://x:", "expected an address"),
            ("HF_ENDPOINT", "http://x:0", "expected an address"),
            (
                "HF_HUB_ETAG_TIMEOUT",
                "soon",
                "a number of seconds, found soon",
            ),
        ] {
            let error = environment(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(part) && error.starts_with(name), "{error}");
        }
        for endpoint in ["http://[::1]:80", "https://hub.test/mirror/hf", "http://x"] {
            assert_eq!(
                environment(&[("HF_ENDPOINT", endpoint)]).unwrap().endpoint,
                endpoint
            );
        }
    }

    #[test]
    fn the_token_comes_from_a_variable_or_a_file() {
        let home = TempDir::new();
        home.write("token", "hf_file\n");
        let other = home.file("other", "hf_other");
        let found = |variables: &[(&str, &str)]| {
            let variables = [&[("HF_HOME", home.as_str())], variables].concat();
            environment(&variables).unwrap().token.unwrap().header()
        };
        assert_eq!(found(&[]), "Bearer hf_file");
        assert_eq!(found(&[("HF_TOKEN_PATH", &other)]), "Bearer hf_other");
        assert_eq!(found(&[("HF_TOKEN", "hf_variable")]), "Bearer hf_variable");
    }
}
