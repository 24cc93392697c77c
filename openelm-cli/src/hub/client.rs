//! HTTP requests to the Hub and to the hosts it redirects to.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use ureq::{
    Agent, AsSendBody, Body, SendBody, Timeout,
    http::{HeaderMap, HeaderValue, Method, Request},
    tls::{RootCerts, TlsConfig},
};

use super::{
    address::{Origin, joined},
    certificates,
    environment::Environment,
    proxy::proxy,
    status,
    token::Token,
};
use crate::{error::Error, output};

/// Attempts of a request, without progress between them.
pub(super) const ATTEMPTS: u32 = 5;
/// Wait after the first failed attempt. It doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Longest wait that a server may request.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Waits from this length are announced.
const LONG_WAIT: Duration = Duration::from_secs(5);
/// Redirects that a request follows.
const REDIRECTS: usize = 10;

/// A client of one Hub.
pub(crate) struct Client {
    agent: Agent,
    endpoint: String,
    origin: Origin,
    token: Option<Token>,
}

/// An answer with a status below 400.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    /// True if the Hub itself answered, not a host that it redirected to.
    pub(super) is_of_hub: bool,
    origin: Origin,
}

/// A request that failed.
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) retry: Retry,
}

/// Use of another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// None.
    Never,
    /// The server was not reached: of use only in the middle of other requests.
    Unreachable,
    /// Of use after a wait.
    Wait,
    /// Of use after a wait, without a range.
    WithoutRange,
    /// Of use after the wait that the server requests.
    After(Duration),
}

/// A request.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// Path on the Hub, or the address of another host.
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'static str, String)],
    pub(super) body: Payload<'a>,
    /// Statuses from 400 that are no failures.
    pub(super) accepted: &'a [u16],
    /// Subject of errors: a repository or file.
    pub(super) subject: &'a str,
}

/// Body of a request.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// A part of a file: its start and its length.
    Part(&'a Path, u64, u64),
}

impl Client {
    /// A client with the settings of `environment`.
    ///
    /// # Errors
    /// [`Error::HubNetwork`] without root certificates.
    pub(super) fn new(environment: &Environment, token: Option<Token>) -> Result<Self, Error> {
        let origin = Origin::of(&environment.endpoint);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
        // Roots are read if the first request needs them; a redirect of an http endpoint stays
        // without TLS only if it has no file of certificates.
        match certificates::roots() {
            Ok(roots) => tls = tls.root_certs(RootCerts::new_with_certs(&roots)),
            Err(error) if environment.endpoint.starts_with("https://") => return Err(error),
            Err(_) => tls = tls.root_certs(RootCerts::new_with_certs(&[])),
        }
        let config = Agent::config_builder()
            .proxy(proxy(&environment.endpoint)?)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(tls.build())
            .user_agent(concat!("openelm/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(Some(environment.answer_timeout))
            .timeout_connect(Some(environment.answer_timeout))
            .timeout_recv_response(Some(environment.answer_timeout))
            .timeout_per_read(Some(environment.read_timeout))
            .timeout_per_write(Some(environment.read_timeout))
            .build();
        Ok(Self {
            agent: config.new_agent(),
            endpoint: environment.endpoint.clone(),
            origin,
            token,
        })
    }

    /// The address of the Hub.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// True if requests have a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Gets `path`, and follows redirects.
    ///
    /// # Errors
    /// A [`Failure`] without an answer, or for an answer with a status from 400.
    pub(super) fn get(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
        subject: &str,
    ) -> Result<Answer, Failure> {
        self.send(&Call {
            method: Method::GET,
            path,
            headers,
            body: Payload::None,
            accepted: &[],
            subject,
        })
    }

    /// Gets the headers of `path`, those of the Hub: a redirect that describes the file, or leads to
    /// another host, is the answer.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) fn head(&self, path: &str, subject: &str) -> Result<Answer, Failure> {
        self.send(&Call {
            method: Method::HEAD,
            path,
            headers: &[],
            body: Payload::None,
            accepted: &[],
            subject,
        })
    }

    /// Sends a request and follows redirects. The token is sent to the Hub only: another host, port
    /// or scheme gets none.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) fn send(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let mut address = if call.path.starts_with('/') {
            format!("{}{}", self.endpoint, call.path)
        } else {
            call.path.to_owned()
        };
        for _ in 0..=REDIRECTS {
            let origin = Origin::of(&address);
            let is_of_hub = origin == self.origin;
            let mut request = Request::builder().method(&call.method).uri(&address);
            let is_sent = |name: &str| is_of_hub || name != "If-Range";
            for (name, value) in call.headers.iter().filter(|(name, _)| is_sent(name)) {
                request = request.header(*name, value);
            }
            if let Some(token) = self.token.as_ref().filter(|_| is_of_hub)
                && let Ok(mut value) = HeaderValue::from_str(&token.header())
            {
                value.set_sensitive(true);
                request = request.header("Authorization", value);
            }
            let failed = |error: ureq::Error| unanswered(&origin, call.subject, &error);
            let answer = match call.body {
                Payload::None => {
                    let request = request.body(()).map_err(|error| failed(error.into()))?;
                    self.agent.run(request)
                }
                Payload::Bytes(bytes) => {
                    let request = request.body(bytes).map_err(|error| failed(error.into()))?;
                    self.agent.run(self.patient(request))
                }
                Payload::Part(path, start, length) => {
                    let mut reader = part(path, start, length)?;
                    let request = request.header("Content-Length", length);
                    let request = request.body(SendBody::from_reader(&mut reader));
                    let request = request.map_err(|error| failed(error.into()))?;
                    self.agent.run(self.patient(request))
                }
            };
            let (parts, body) = answer.map_err(failed)?.into_parts();
            let answer = Answer {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body,
                is_of_hub,
                origin: origin.clone(),
            };
            if !parts.status.is_redirection() {
                return self.checked(answer, call);
            }
            let is_kept = matches!(answer.status, 307 | 308);
            if !is_kept && !matches!(call.body, Payload::None) {
                let problem = format!("status {} of an upload", answer.status);
                return Err(Failure::content(call.subject, &problem));
            }
            let Some(target) = answer
                .header("Location")
                .and_then(|to| joined(&address, to))
            else {
                let problem = "a redirect without a valid address";
                return Err(Failure::content(call.subject, problem));
            };
            let is_elsewhere = Origin::of(&target) != origin;
            let is_described = ["X-Linked-Etag", "X-Linked-Size"].map(|name| answer.header(name));
            let is_described = is_described.iter().all(Option::is_some);
            if (is_elsewhere || is_described) && call.method == Method::HEAD {
                return Ok(answer);
            }
            if origin.is_secure() && !Origin::of(&target).is_secure() {
                let problem = "a redirect from https to http; refused";
                return Err(Failure::content(call.subject, problem));
            }
            address = target;
        }
        Err(Failure::content(call.subject, "too many redirects"))
    }

    /// Calls `work` up to [`ATTEMPTS`] times, until it succeeds or another attempt is of no use.
    ///
    /// # Errors
    /// The last error of `work`.
    pub(super) fn retrying<T>(
        &self,
        mut work: impl FnMut(&Self) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match work(self) {
                Ok(found) => return Ok(found),
                Err(failure) if failure.retry == Retry::Unreachable => return Err(failure.error),
                Err(failure) => failure.wait(attempt)?,
            }
        }
    }

    /// A request whose body the server may store before it answers.
    fn patient<S: AsSendBody>(&self, request: Request<S>) -> Request<S> {
        let configured = self.agent.configure_request(request);
        configured.timeout_recv_response(Some(LONGEST_WAIT)).build()
    }

    fn checked(&self, answer: Answer, call: &Call<'_>) -> Result<Answer, Failure> {
        if answer.status < 400 || call.accepted.contains(&answer.status) {
            return Ok(answer);
        }
        Err(status::failure(self, answer, call.subject))
    }
}

impl Answer {
    /// A header as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON, of at most `limit` bytes.
    ///
    /// # Errors
    /// A [`Failure`] if the connection ends, or the body is something else.
    pub(super) fn json<T: serde::de::DeserializeOwned>(
        self,
        limit: u64,
        subject: &str,
    ) -> Result<T, Failure> {
        let body = self.body.into_with_config().limit(limit).read_to_vec();
        let body = body.map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(_) => Failure::content(subject, "a description too long"),
            error => unanswered(&self.origin, subject, &error),
        })?;
        serde_json::from_slice(&body).map_err(|error| {
            let problem = format!("an answer that is no description of a repository: {error}");
            Failure::content(subject, &problem)
        })
    }
}

impl Failure {
    /// An answer that is not the Hub's.
    pub(super) fn content(subject: &str, problem: &str) -> Self {
        Self {
            error: Error::hub_content(subject, problem),
            retry: Retry::Never,
        }
    }

    /// Waits before attempt number `attempt + 1`.
    ///
    /// # Errors
    /// The failure's, if another attempt is of no use or was one too many.
    pub(super) fn wait(self, attempt: u32) -> Result<(), Error> {
        let wait = match self.retry {
            Retry::Never => return Err(self.error),
            Retry::After(wait) if wait > LONGEST_WAIT => return Err(self.error),
            Retry::After(wait) => wait,
            Retry::Unreachable | Retry::Wait | Retry::WithoutRange => {
                FIRST_WAIT * 2_u32.pow((attempt - 1).min(8))
            }
        };
        if attempt >= ATTEMPTS {
            return Err(self.error);
        }
        if wait >= LONG_WAIT {
            let seconds = wait.as_secs();
            output::note(&format!(
                "{}; the next attempt is in {seconds} s",
                self.error
            ));
        }
        thread::sleep(wait);
        Ok(())
    }
}

/// A reader of a part of a file.
fn part(path: &Path, start: u64, length: u64) -> Result<impl Read, Failure> {
    let open = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        Ok(file.take(length))
    };
    open().map_err(|error| Failure {
        error: Error::hub_cache(path, error),
        retry: Retry::Never,
    })
}

/// The failure of a request without an answer. The text has the host, not the address: addresses of
/// redirects are signed.
fn unanswered(origin: &Origin, subject: &str, error: &ureq::Error) -> Failure {
    let (problem, retry) = match (of_tls(error), error) {
        (Some(error @ rustls::Error::InvalidCertificate(_)), _) => {
            let advice = "SSL_CERT_FILE names another file of root certificates";
            (format!("{error}; {advice}"), Retry::Never)
        }
        (_, ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve)) => {
            ("no connection in time".into(), Retry::Unreachable)
        }
        (_, ureq::Error::Timeout(_)) => ("no answer in time".into(), Retry::Wait),
        (_, ureq::Error::HostNotFound) => ("the host was not found".into(), Retry::Unreachable),
        (_, ureq::Error::ConnectionFailed) => ("no connection".into(), Retry::Unreachable),
        (_, ureq::Error::Io(error)) if has_ended(error) => {
            (format!("the connection ended: {error}"), Retry::Wait)
        }
        // No address, no route, or refused.
        (_, ureq::Error::Io(error)) => (format!("no connection: {error}"), Retry::Unreachable),
        (_, ureq::Error::Protocol(error)) => {
            (format!("the connection ended: {error}"), Retry::Wait)
        }
        (_, error) => (error.to_string(), Retry::Never),
    };
    Failure {
        error: Error::hub_network(subject, &format!("{origin}: {problem}")),
        retry,
    }
}

/// True if there was a connection.
fn has_ended(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, TimedOut, UnexpectedEof,
        WouldBlock,
    };
    matches!(
        error.kind(),
        BrokenPipe
            | ConnectionAborted
            | ConnectionReset
            | InvalidData
            | TimedOut
            | UnexpectedEof
            | WouldBlock
    )
}

/// The error of TLS in `error`, as of an unknown certificate.
fn of_tls(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}
