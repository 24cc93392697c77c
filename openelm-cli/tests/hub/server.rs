//! A Hub on two ports of this machine.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use openelm_testing::TempDir;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use serde_json::json;

/// Commit of every repository's `main`.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A running Hub with an empty cache for its clients.
pub(crate) struct Hub {
    pub(crate) address: String,
    pub(crate) folder: TempDir,
    state: Arc<Mutex<State>>,
}

/// Contents and faults.
#[derive(Default)]
pub(crate) struct State {
    /// Files by repository (`models/o/n`) and name.
    pub(crate) repositories: BTreeMap<String, BTreeMap<String, Contents>>,
    /// Repositories that need a token.
    pub(crate) gated: Vec<String>,
    pub(crate) log: Vec<Request>,
    /// Answers before all others: a status with headers. For the description of a repository.
    pub(crate) statuses: Vec<(u16, String)>,
    /// Places at which the next bodies end.
    pub(crate) cuts: Vec<usize>,
    /// Number of next bodies with a wrong byte.
    pub(crate) corrupt: usize,
    /// Ranges are ignored: the answer is 200.
    pub(crate) without_ranges: bool,
    /// The answer to a range is the range one byte later.
    pub(crate) wrong_ranges: bool,
    /// Number of files whose answer is 503, after the next cut.
    pub(crate) outage: usize,
    /// Number of next files whose answer is 503.
    busy: usize,
    /// Hash of a large file that the other host does not have.
    pub(crate) absent: Option<String>,
    /// The answer to a range is 416.
    pub(crate) refuses_ranges: bool,
    /// Wait after each 16 kB of a body.
    pub(crate) pause: Duration,
    /// Bodies end without being complete, and the connection stays open.
    pub(crate) stalls: usize,
    /// The commit that answers state.
    pub(crate) commit: Option<String>,
    /// Bytes of bodies of files.
    pub(crate) sent: u64,
    /// Parts of uploads, in order, by the hash of the file.
    pub(crate) uploads: BTreeMap<String, Vec<u8>>,
    /// Size of the parts of an upload; one part without it.
    pub(crate) part_size: Option<usize>,
    /// Redirects of `HEAD` and `GET` of large files lead to this address.
    pub(crate) redirect: Option<String>,
}

/// Contents of a file.
#[derive(Clone)]
pub(crate) struct Contents {
    pub(crate) bytes: Vec<u8>,
    /// Large: in LFS, on the other host.
    pub(crate) is_large: bool,
}

/// A request that was received.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) of_cdn: bool,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Contents {
    pub(crate) fn small(bytes: impl AsRef<[u8]>) -> Self {
        let (bytes, is_large) = (bytes.as_ref().to_vec(), false);
        Self { bytes, is_large }
    }

    pub(crate) fn large(bytes: impl AsRef<[u8]>) -> Self {
        let is_large = true;
        Self {
            is_large,
            ..Self::small(bytes)
        }
    }

    /// The name of the contents, as git and LFS compute it.
    pub(crate) fn etag(&self) -> String {
        let found = if self.is_large {
            digest(&SHA256, &self.bytes)
        } else {
            let blob = [
                format!("blob {}\0", self.bytes.len()).as_bytes(),
                &self.bytes,
            ]
            .concat();
            digest(&SHA1_FOR_LEGACY_USE_ONLY, &blob)
        };
        found
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl Hub {
    /// Starts the Hub with a model `local/small` of two files.
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let listeners = [false, true].map(|of_cdn| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            (of_cdn, listener, address)
        });
        let [address, cdn] = [0, 1].map(|index: usize| listeners[index].2.clone());
        let hub_address = address.clone();
        for (of_cdn, listener, _) in listeners {
            let (state, cdn) = (Arc::clone(&state), [hub_address.clone(), cdn.clone()]);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, cdn) = (Arc::clone(&state), cdn.clone());
                    // A client that is killed ends its connection.
                    thread::spawn(move || answer(&state, stream, of_cdn, &cdn));
                }
            });
        }
        let folder = TempDir::new();
        let hub = Self {
            address,
            folder,
            state,
        };
        let files = [
            ("config.json", Contents::small("{}")),
            ("model.safetensors", Contents::large(weights())),
        ];
        hub.add("models/local/small", files);
        hub
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Adds a repository, as in `models/owner/name`.
    pub(crate) fn add<N: Into<String>>(
        &self,
        name: &str,
        files: impl IntoIterator<Item = (N, Contents)>,
    ) {
        let files = files
            .into_iter()
            .map(|(name, contents)| (name.into(), contents));
        let files = files.collect();
        self.state().repositories.insert(name.into(), files);
    }

    /// Adds a repository with the files of a folder, `*.safetensors` as large ones.
    pub(crate) fn add_folder(&self, name: &str, folder: &Path, names: &[&str]) {
        let files = names.iter().map(|&name| {
            let bytes = fs::read(folder.join(name)).unwrap();
            let is_large = name.ends_with(".safetensors");
            (name, Contents { bytes, is_large })
        });
        self.add(name, files);
    }

    /// The folder of the cache.
    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.join("hub")
    }

    /// The snapshot of a repository's `main`, as in `models--local--small`.
    pub(crate) fn snapshot(&self, folder: &str) -> PathBuf {
        self.cache().join(folder).join("snapshots").join(COMMIT)
    }

    /// The tool as a client of this Hub, without a token.
    pub(crate) fn tool(&self, args: &[&str]) -> Command {
        let mut command = openelm_testing::command(env!("CARGO_BIN_EXE_openelm"), args);
        command.env("HF_ENDPOINT", &self.address);
        command.env("HF_HOME", self.folder.as_str());
        for name in [
            "HF_HUB_OFFLINE",
            "TRANSFORMERS_OFFLINE",
            "HF_TOKEN",
            "HUGGING_FACE_HUB_TOKEN",
            "HF_TOKEN_PATH",
            "HF_HUB_CACHE",
            "HUGGINGFACE_HUB_CACHE",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN",
            "http_proxy",
            "HTTP_PROXY",
            "ALL_PROXY",
            "all_proxy",
            "HTTPS_PROXY",
            "https_proxy",
            "NO_PROXY",
            "no_proxy",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// The requests so far that `choice` accepts.
    pub(crate) fn requests(&self, choice: impl Fn(&Request) -> bool) -> Vec<Request> {
        let state = self.state();
        state
            .log
            .iter()
            .filter(|request| choice(request))
            .cloned()
            .collect()
    }

    /// Bytes of files that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.state().sent
    }

    /// Checks that the other host never received a token.
    pub(crate) fn assert_token_stayed(&self) {
        let leaked = self
            .requests(|request| request.of_cdn && request.headers.contains_key("authorization"));
        assert!(leaked.is_empty(), "{leaked:?}");
    }
}

/// Bytes that repeat at no short distance.
pub(crate) fn weights() -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..600_000).map(next).collect()
}

fn answer(state: &Mutex<State>, mut stream: TcpStream, of_cdn: bool, hosts: &[String; 2]) {
    let Some(request) = read(&stream, of_cdn) else {
        return;
    };
    state.lock().unwrap().log.push(request.clone());
    let _ = respond(state, &mut stream, &request, hosts);
    let _ = stream.shutdown(Shutdown::Write);
}

fn read(stream: &TcpStream, of_cdn: bool) -> Option<Request> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&read| read > 0)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let (first, rest) = lines.split_first()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers: BTreeMap<_, _> = rest
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .and_then(|text| text.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        of_cdn,
        method,
        path,
        headers,
        body,
    })
}

fn respond(
    state: &Mutex<State>,
    stream: &mut TcpStream,
    request: &Request,
    [address, cdn]: &[String; 2],
) -> std::io::Result<()> {
    let mut send = |status: u16, headers: &str, body: &str| {
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        )
    };
    let missing = |code: &str| format!("X-Error-Code: {code}\r\n");
    let path = request.path.split('?').next().unwrap_or_default();
    if request.of_cdn || path.starts_with("/blob/") {
        if request.method == "PUT" {
            let mut state = state.lock().unwrap();
            let oid = path.trim_start_matches("/upload/").to_owned();
            state.uploads.entry(oid).or_default().extend(&request.body);
            return send(200, "ETag: \"part\"\r\n", "");
        }
        let blob = path.trim_start_matches("/blob/");
        let found = {
            let state = state.lock().unwrap();
            let mut files = state.repositories.values().flat_map(BTreeMap::values);
            let found = files.find(|contents| contents.etag() == blob).cloned();
            found.filter(|_| state.absent.as_deref() != Some(blob))
        };
        return match found {
            Some(contents) => send_file(state, stream, request, &contents),
            None => send(404, "", ""),
        };
    }
    if request.method == "POST" {
        return match crate::uploads::receive(state, request, address, cdn) {
            Some(answer) => send(200, "", &answer.to_string()),
            None => send(403, "X-Error-Message: no write access\r\n", ""),
        };
    }
    let is_authorised = request.headers.contains_key("authorization");
    let mut parts = path.trim_start_matches('/').split('/');
    let parts: Vec<&str> = parts.by_ref().collect();
    if let ["api", kind, owner, name, "revision", revision] = parts[..] {
        let id = format!("{kind}/{owner}/{name}");
        let mut state = state.lock().unwrap();
        if !state.statuses.is_empty() {
            let (status, headers) = state.statuses.remove(0);
            drop(state);
            return send(status, &headers, "");
        }
        let Some(files) = state.repositories.get(&id) else {
            return send(401, &missing("RepoNotFound"), "");
        };
        let commit = state.commit.clone().unwrap_or_else(|| COMMIT.into());
        if revision != "main" && revision != commit {
            return send(404, &missing("RevisionNotFound"), "");
        }
        let siblings: Vec<_> = files
            .keys()
            .map(|name| json!({"rfilename": name}))
            .collect();
        let body = json!({ "id": id, "sha": commit, "siblings": siblings }).to_string();
        drop(state);
        return send(200, "Content-Type: application/json\r\n", &body);
    }
    let (kind, rest) = match &parts[..] {
        ["datasets", rest @ ..] => ("datasets", rest),
        rest => ("models", rest),
    };
    let [owner, name, "resolve", commit, file @ ..] = rest else {
        return send(404, "", "");
    };
    let id = format!("{kind}/{owner}/{name}");
    let (contents, gated, redirect) = {
        let state = state.lock().unwrap();
        let files = state.repositories.get(&id);
        let contents = files.and_then(|files| files.get(&file.join("/"))).cloned();
        let redirect = state.redirect.clone();
        (contents, state.gated.contains(&id), redirect)
    };
    if gated && !is_authorised {
        return send(401, &missing("GatedRepo"), "");
    }
    if gated && request.headers["authorization"] != "Bearer hf_member" {
        return send(403, &missing("GatedRepo"), "");
    }
    let Some(contents) = contents else {
        return send(404, &missing("EntryNotFound"), "");
    };
    let etag = contents.etag();
    let size = contents.bytes.len();
    if contents.is_large {
        let target = redirect.unwrap_or_else(|| format!("{cdn}/blob/{etag}?signature=secret"));
        let headers = format!(
            "Location: {target}\r\nX-Repo-Commit: {commit}\r\nX-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {size}\r\n"
        );
        return send(302, &headers, "");
    }
    if request.method == "HEAD" {
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {size}\r\nETag: W/\"{etag}\"\r\nX-Repo-Commit: {commit}\r\n\r\n"
        );
    }
    send_file(state, stream, request, &contents)
}

/// Sends a file or a range of it, with the faults that are due.
fn send_file(
    state: &Mutex<State>,
    stream: &mut TcpStream,
    request: &Request,
    contents: &Contents,
) -> std::io::Result<()> {
    let refused = {
        let mut state = state.lock().unwrap();
        let is_busy = state.busy > 0;
        state.busy = state.busy.saturating_sub(1);
        let has_range = request.headers.contains_key("range");
        let is_range = has_range && state.refuses_ranges;
        is_busy.then_some(503).or(is_range.then_some(416))
    };
    if let Some(status) = refused {
        return write!(
            stream,
            "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
    }
    let size = contents.bytes.len();
    let (mut bytes, cut, pause, stalls, start) = {
        let mut state = state.lock().unwrap();
        let range = request
            .headers
            .get("range")
            .filter(|_| !state.without_ranges);
        let start = range.map(|range| {
            let start = range.trim_start_matches("bytes=").trim_end_matches('-');
            start.parse::<usize>().unwrap() + usize::from(state.wrong_ranges)
        });
        let mut bytes = contents.bytes.clone();
        if state.corrupt > 0 {
            state.corrupt -= 1;
            bytes[size / 2] ^= 1;
        }
        let cut = (!state.cuts.is_empty()).then(|| state.cuts.remove(0));
        if cut.is_some() {
            state.busy = std::mem::take(&mut state.outage);
        }
        let stalls = state.stalls > 0;
        state.stalls = state.stalls.saturating_sub(1);
        (bytes, cut, state.pause, stalls, start)
    };
    bytes.drain(..start.unwrap_or(0).min(size));
    let length = bytes.len();
    match start {
        Some(start) => write!(
            stream,
            "HTTP/1.1 206 X\r\nConnection: close\r\nContent-Length: {length}\r\nContent-Range: bytes {start}-{}/{size}\r\n\r\n",
            size - 1
        )?,
        None => write!(
            stream,
            "HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        )?,
    }
    if stalls {
        bytes.truncate(length / 2);
    }
    bytes.truncate(cut.unwrap_or(length));
    for part in bytes.chunks(1 << 14) {
        stream.write_all(part)?;
        state.lock().unwrap().sent += part.len() as u64;
        thread::sleep(pause);
    }
    if stalls {
        // Until the client ends the connection.
        let _ = stream.read(&mut [0; 1]);
    }
    Ok(())
}
