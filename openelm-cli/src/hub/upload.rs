//! The upload of a model or adapter: preupload, LFS, commit.
//!
//! The requests are those of `huggingface_hub` 2.4 (`_commit_api.py`, `lfs.py`): the Hub says which
//! files are large; those go to its storage by the protocol of git-lfs
//! (<https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md>), in one part or in several;
//! then one commit names them and has the small ones.

use std::{collections::BTreeMap, fs, path::PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use openelm_core::one_line;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use super::{
    client::{Answer, Call, Client, Failure, Payload},
    environment::Environment,
    file_name::is_safe,
    files::Files,
    local_file::LocalFile,
    progress::{Progress, Work},
    repository::{MAIN, Repository},
    status::TOKENS,
};
use crate::error::Error;

/// Largest answer of the Hub, in bytes.
const MAX_ANSWER: u64 = 64 << 20;
/// Name of the model card.
const CARD: &str = "README.md";
/// Media type of LFS requests.
const LFS: &str = "application/vnd.git-lfs+json";

/// A folder to upload.
pub(crate) struct Upload {
    /// Repository and branch.
    pub(crate) repository: Repository,
    /// Folder of a model or adapter.
    pub(crate) folder: PathBuf,
    /// A new repository is private.
    pub(crate) is_private: bool,
    /// No progress.
    pub(crate) quiet: bool,
}

#[derive(Deserialize)]
struct Modes {
    files: Vec<Mode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
}

#[derive(Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    actions: Option<Actions>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Committed {
    commit_url: String,
}

impl Upload {
    /// Uploads the files; the address of the commit.
    ///
    /// # Errors
    /// [`Error::HubAccess`] without a token, [`Error::Usage`] if the folder has no model or adapter,
    /// and the errors of the Hub.
    pub(crate) fn run(&self) -> Result<String, Error> {
        let name = self.repository.to_string();
        let environment = Environment::read()?;
        let mut files = self.files()?;
        if environment.offline {
            return Err(Error::hub_offline(&name, "nothing is uploaded"));
        }
        let Some(token) = environment.token.clone() else {
            let problem = format!(
                "an upload needs a token with write access; make one at {TOKENS} and set HF_TOKEN"
            );
            return Err(Error::hub_access(&name, &problem));
        };
        let client = Client::new(&environment, Some(token))?;
        self.create(&client)?;
        // A card that the repository has is its owner's.
        let own_card = files.iter().position(|file| file.path.is_none());
        if let Some(own_card) = own_card
            && self.has(&client, CARD)?
        {
            files.remove(own_card);
        }
        let modes = self.modes(&client, &files)?;
        let mode = |name: &str| modes.iter().find(|mode| mode.path == name);
        files.retain(|file| mode(&file.name).is_none_or(|mode| !mode.should_ignore));
        let is_large = |file: &LocalFile| {
            file.path.is_some() && mode(&file.name).is_some_and(|mode| mode.upload_mode == "lfs")
        };
        for file in files
            .iter_mut()
            .filter(|file| is_large(file) && file.size > 0)
        {
            file.hash()?;
        }
        let total = files.iter().map(|file| file.size).sum();
        let progress = Progress::begin(Work::Upload, &name, files.len(), total, self.quiet);
        let sent = self.send_large(&client, &files, &progress);
        let committed = sent.and_then(|()| self.commit(&client, &files));
        match &committed {
            Ok(_) => progress.end(&name, total),
            Err(_) => progress.fail(),
        }
        committed
    }

    /// The files that a download of the repository would take, and README.md and LICENSE.
    fn files(&self) -> Result<Vec<LocalFile>, Error> {
        let failed = |error| Error::hub_cache(&self.folder, error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if is_safe(&name) && entry.path().is_file() {
                names.push(name);
            }
        }
        names.sort();
        let kinds = [Files::Model, Files::Adapter];
        let Some(kind) = kinds.iter().find(|kind| kind.missing_of(&names).is_none()) else {
            let place = one_line(&self.folder.display().to_string());
            let problem = format!(
                "{place}: expected the folder of a model (config.json and model.safetensors) or \
                 adapter"
            );
            return Err(Error::Usage(problem));
        };
        let mut chosen = kind.choose(&names);
        let documents = [CARD, "LICENSE", "LICENSE.md", "LICENSE.txt"];
        let documents = documents.map(str::to_owned).into_iter();
        chosen.extend(
            documents
                .filter(|name| names.contains(name) && !chosen.contains(name))
                .collect::<Vec<_>>(),
        );
        let mut files = Vec::new();
        for name in chosen {
            files.push(LocalFile::open(name.clone(), self.folder.join(name))?);
        }
        if !names.iter().any(|name| name == CARD) {
            let text = self.card(matches!(kind, Files::Adapter)).into_bytes();
            files.push(LocalFile::of_text(CARD, text));
        }
        Ok(files)
    }

    /// A model card, <https://huggingface.co/docs/hub/model-cards>.
    fn card(&self, is_adapter: bool) -> String {
        let id = &self.repository.id;
        let (tag, usage) = if is_adapter {
            (
                "lora",
                format!("openelm generate --model MODEL --adapter {id} --prompt 'Hello'"),
            )
        } else {
            (
                "openelm",
                format!("openelm generate --model {id} --prompt 'Hello'"),
            )
        };
        format!(
            "---\nlibrary_name: mlx\npipeline_tag: text-generation\ntags:\n- mlx\n- {tag}\n---\n\n\
             # {id}\n\n```sh\n{usage}\n```\n"
        )
    }

    /// Makes the repository and the branch if there are none.
    fn create(&self, client: &Client) -> Result<(), Error> {
        let id = &self.repository.id;
        let (owner, name) = id.split_once('/').unwrap_or(("", id));
        let mut request = json!({ "name": name, "organization": owner, "type": "model" });
        if self.is_private {
            request["visibility"] = "private".into();
        }
        // 409: it exists. Without the right to make one, it may exist too.
        self.post(
            client,
            "/api/repos/create",
            &request,
            "application/json",
            &[409, 403],
        )?;
        if self.repository.revision != MAIN {
            let path = self.api("branch");
            self.post(client, &path, &json!({}), "application/json", &[409])?;
        }
        Ok(())
    }

    /// True if the branch has the file `name`.
    fn has(&self, client: &Client, name: &str) -> Result<bool, Error> {
        let answer = client.retrying(|client| {
            client.send(&Call {
                method: Method::HEAD,
                path: &self.repository.file_of_revision(name),
                headers: &[],
                body: Payload::None,
                accepted: &[404],
                subject: &self.repository.to_string(),
            })
        });
        Ok(answer?.status < 400)
    }

    /// The way of each file, as the Hub chooses it.
    fn modes(&self, client: &Client, files: &[LocalFile]) -> Result<Vec<Mode>, Error> {
        let files = files.iter().map(|file| {
            let sample = BASE64_STANDARD.encode(&file.sample);
            json!({ "path": file.name, "sample": sample, "size": file.size })
        });
        let request = json!({ "files": files.collect::<Vec<_>>() });
        let path = self.api("preupload");
        let answer = self.post(client, &path, &request, "application/json", &[])?;
        let modes: Modes = self.parsed(answer)?;
        Ok(modes.files)
    }

    /// Uploads the large files.
    fn send_large(
        &self,
        client: &Client,
        files: &[LocalFile],
        progress: &Progress,
    ) -> Result<(), Error> {
        let hashed = |file: &LocalFile| Some((file.sha256.clone()?, file.size));
        let objects: Vec<_> = files.iter().filter_map(hashed).collect();
        if objects.is_empty() {
            return Ok(());
        }
        let objects = objects
            .iter()
            .map(|(oid, size)| json!({ "oid": oid, "size": size }));
        let request = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": objects.collect::<Vec<_>>(),
            "hash_algo": "sha256",
            "ref": { "name": self.repository.revision },
        });
        let path = format!("{}.git/info/lfs/objects/batch", self.repository.page());
        let batch: Batch = self.parsed(self.post(client, &path, &request, LFS, &[])?)?;
        for object in batch.objects {
            let file = files
                .iter()
                .find(|file| file.sha256.as_deref() == Some(&object.oid));
            let Some(file) = file else {
                return Err(self.wrong("instructions for a file that is not uploaded"));
            };
            if let Some(error) = object.error {
                let problem = format!("{}: the Hub refuses the upload: {error}", file.name);
                return Err(self.wrong(&problem));
            }
            // Without actions, the Hub has the contents.
            let Some(actions) = object.actions else {
                progress.add(file.size);
                continue;
            };
            if let Some(upload) = actions.upload {
                self.send_file(client, file, &upload, progress)?;
            }
            if let Some(verify) = actions.verify {
                let request = json!({ "oid": object.oid, "size": file.size });
                self.post(client, &verify.href, &request, "application/json", &[])?;
            }
        }
        Ok(())
    }

    /// Uploads a file in one part, or in the parts that the Hub has addresses for.
    fn send_file(
        &self,
        client: &Client,
        file: &LocalFile,
        action: &Action,
        progress: &Progress,
    ) -> Result<(), Error> {
        let wrong = || self.wrong("invalid instructions for an upload");
        let Some(part_size) = action.header.get("chunk_size") else {
            self.put(client, file, &action.href, 0, file.size)?;
            progress.add(file.size);
            return Ok(());
        };
        let text = part_size.as_str().map(str::to_owned);
        let part_size = text
            .and_then(|text| text.parse().ok())
            .or(part_size.as_u64());
        let part_size = part_size.filter(|&size| size > 0).ok_or_else(wrong)?;
        let address = |(name, value): (&String, &Value)| {
            Some((name.parse::<u64>().ok()?, value.as_str()?.to_owned()))
        };
        let addresses: BTreeMap<u64, String> = action.header.iter().filter_map(address).collect();
        if addresses.len() as u64 != file.size.div_ceil(part_size) {
            return Err(wrong());
        }
        let mut parts = Vec::new();
        for (number, address) in (0_u64..).zip(addresses.values()) {
            let start = number * part_size;
            let length = part_size.min(file.size - start);
            let answer = self.put(client, file, address, start, length)?;
            let etag = answer.header("ETag").ok_or_else(wrong)?;
            parts.push(json!({ "partNumber": number + 1, "etag": etag }));
            progress.add(length);
        }
        let request = json!({ "oid": file.sha256, "parts": parts });
        self.post(client, &action.href, &request, LFS, &[])?;
        Ok(())
    }

    fn put(
        &self,
        client: &Client,
        file: &LocalFile,
        address: &str,
        start: u64,
        length: u64,
    ) -> Result<Answer, Error> {
        let Some(path) = &file.path else {
            return Err(self.wrong("the model card is no large file"));
        };
        let subject = format!("{}: {}", self.repository, file.name);
        let call = Call {
            method: Method::PUT,
            path: address,
            headers: &[],
            body: Payload::Part(path, start, length),
            accepted: &[],
            subject: &subject,
        };
        client.retrying(|client| client.send(&call))
    }

    /// Commits all files; the address of the commit.
    fn commit(&self, client: &Client, files: &[LocalFile]) -> Result<String, Error> {
        let summary = format!("Upload with openelm {}", env!("CARGO_PKG_VERSION"));
        let header = json!({ "summary": summary, "description": "" });
        let mut lines = vec![json!({ "key": "header", "value": header })];
        for file in files {
            let value = match (&file.sha256, &file.path) {
                (Some(oid), _) => json!({
                    "key": "lfsFile",
                    "value": {
                        "path": file.name, "algo": "sha256", "oid": oid, "size": file.size,
                    },
                }),
                (None, path) => {
                    let bytes = match path {
                        Some(path) => fs::read(path).map_err(|e| Error::hub_cache(path, e))?,
                        None => file.text.clone(),
                    };
                    let content = BASE64_STANDARD.encode(bytes);
                    json!({
                        "key": "file",
                        "value": { "content": content, "path": file.name, "encoding": "base64" },
                    })
                }
            };
            lines.push(value);
        }
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let headers = [("Content-Type", "application/x-ndjson".to_owned())];
        let subject = self.repository.to_string();
        // Sent once: the Hub may have made the commit if its answer is lost.
        let answer = client.send(&Call {
            method: Method::POST,
            path: &self.api("commit"),
            headers: &headers,
            body: Payload::Bytes(lines.as_bytes()),
            accepted: &[],
            subject: &subject,
        });
        let answer = answer.map_err(|failure| failure.error)?;
        let committed: Committed = self.parsed(answer)?;
        Ok(one_line(&committed.commit_url))
    }

    fn post(
        &self,
        client: &Client,
        path: &str,
        request: &Value,
        media_type: &str,
        accepted: &[u16],
    ) -> Result<Answer, Error> {
        let mut headers = vec![("Content-Type", media_type.to_owned())];
        if media_type == LFS {
            headers.push(("Accept", LFS.to_owned()));
        }
        let subject = self.repository.to_string();
        let body = request.to_string();
        let call = Call {
            method: Method::POST,
            path,
            headers: &headers,
            body: Payload::Bytes(body.as_bytes()),
            accepted,
            subject: &subject,
        };
        client.retrying(|client| client.send(&call))
    }

    fn parsed<T: serde::de::DeserializeOwned>(&self, answer: Answer) -> Result<T, Error> {
        let parsed = answer.json(MAX_ANSWER, &self.repository.to_string());
        parsed.map_err(|failure| failure.error)
    }

    fn api(&self, action: &str) -> String {
        self.repository.api_action(action)
    }

    fn wrong(&self, problem: &str) -> Error {
        Failure::content(&self.repository.to_string(), problem).error
    }
}
