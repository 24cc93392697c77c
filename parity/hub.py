"""The cache of the Hugging Face Hub, shared by openelm and huggingface_hub.

    hub.py FOLDER OPENELM

A server in this process speaks the Hub's protocol. openelm downloads from it and huggingface_hub
reads the files without the network; then the reverse, also after the same locks and uploads.
"""

import hashlib
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROOT = pathlib.Path(__file__).parent.parent
TALES = ROOT / "openelm-core/tests/fixtures/tales"


class Repository:
    """Files of a repository; `large` ones are in LFS."""

    def __init__(self, files):
        self.files = files

    @staticmethod
    def is_large(name):
        return name.endswith((".safetensors", ".gz"))

    def etag(self, name):
        data = self.files[name]
        if self.is_large(name):
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def tree(self):
        for name, data in self.files.items():
            entry = {"type": "file", "path": name, "size": len(data), "oid": self.etag(name)}
            if self.is_large(name):
                entry["lfs"] = {"oid": self.etag(name), "size": len(data), "pointerSize": 130}
            yield entry


model = {name: (TALES / name).read_bytes()
         for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")}
rows = b'{"text": "Once upon a time"}\n' * 4
REPOSITORIES = {
    "models/local/tales": Repository({**model, "sub/folder/notes.txt": b"notes"}),
    "datasets/local/data": Repository({"train.jsonl": rows, "data/valid.jsonl": rows}),
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, body=b"", **headers):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        headers.setdefault("Content-Length", len(body))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.partition("?")[0].strip("/").split("/")
        if path[0] == "api":
            _, kind, owner, name, what, *_ = path
            repository = REPOSITORIES.get(f"{kind}/{owner}/{name}")
            if repository is None:
                return self.send(404, X_Error_Code="RepoNotFound")
            if what == "tree":
                return self.send(200, list(repository.tree()))
            siblings = [{"rfilename": file} for file in repository.files]
            return self.send(200, {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": siblings,
                                   "private": False, "tags": [], "downloads": 0, "likes": 0})
        if path[0] == "blob":
            found = [data for repository in REPOSITORIES.values()
                     for file, data in repository.files.items() if repository.etag(file) == path[1]]
            return self.send_bytes(found[0])
        kind = "datasets" if path[0] == "datasets" else "models"
        owner, name, _, _, *file = path[1:] if kind == "datasets" else path
        repository, file = REPOSITORIES[f"{kind}/{owner}/{name}"], "/".join(file)
        if file not in repository.files:
            return self.send(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        etag, size = repository.etag(file), len(repository.files[file])
        if repository.is_large(file):
            return self.send(302, Location=f"{STORAGE}/blob/{etag}", X_Repo_Commit=COMMIT,
                             X_Linked_Etag=f'"{etag}"', X_Linked_Size=size)
        return self.send_bytes(repository.files[file], ETag=f'"{etag}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def send_bytes(self, data, **headers):
        given = self.headers.get("Range")
        if given is None:
            return self.send(200, data, **headers)
        start = int(given.removeprefix("bytes=").rstrip("-"))
        part = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.send(206, data[start:], Content_Range=part, **headers)


def tool(openelm, home, *arguments, **variables):
    kept = {name: os.environ[name] for name in ("PATH", "LD_PRELOAD") if name in os.environ}
    environment = {**kept, "HF_HOME": str(home), "HF_ENDPOINT": ENDPOINT, **variables}
    done = subprocess.run([openelm, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout.strip()


def by_python(home, code, **variables):
    """Runs Python with huggingface_hub and its cache below `home`."""
    environment = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": ENDPOINT,
                   "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1",
                   "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", **variables}
    environment.pop("HF_HUB_OFFLINE", None) if "HF_HUB_OFFLINE" not in variables else None
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def same_files(folder, files):
    for name, data in files.items():
        assert (pathlib.Path(folder) / name).read_bytes() == data, name


def layout(cache):
    """Links, refs and blobs of a cache, without lists that only huggingface_hub writes."""
    found = {}
    for path in sorted(cache.rglob("*")):
        name = str(path.relative_to(cache))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file() and "/trees/" not in name and not name.startswith(".locks"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return {name: value for name, value in found.items() if name.startswith(("models--", "datasets--"))}


READ = """
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download
print(snapshot_download("local/tales", local_files_only=True))
print(hf_hub_download("local/tales", "model.safetensors"))
print(snapshot_download("local/data", repo_type="dataset"))
cache = scan_cache_dir()
assert not cache.warnings, cache.warnings
print(sorted(repo.repo_id for repo in cache.repos))
"""
WRITE = """
from huggingface_hub import snapshot_download
print(snapshot_download("local/tales"))
print(snapshot_download("local/data", repo_type="dataset"))
"""


def main(folder, openelm):
    shutil.rmtree(folder, ignore_errors=True)
    ours, theirs = folder / "ours", folder / "theirs"
    tales, data = REPOSITORIES["models/local/tales"], REPOSITORIES["datasets/local/data"]

    pulled = tool(openelm, ours, "pull", "local/tales", "--include", "*", "--quiet")
    rows = tool(openelm, ours, "pull", "local/data", "--repo-type", "dataset", "--quiet")
    same_files(pulled, tales.files)
    read = by_python(ours, READ, HF_HUB_OFFLINE="1").splitlines()
    assert read == [pulled, f"{pulled}/model.safetensors", rows, "['local/data', 'local/tales']"], read

    written = by_python(theirs, WRITE).splitlines()
    found = [tool(openelm, theirs, "pull", "local/tales", "--quiet", HF_HUB_OFFLINE="1"),
             tool(openelm, theirs, "pull", "local/data", "--repo-type", "dataset", "--quiet",
                  HF_HUB_OFFLINE="1")]
    assert found == written, (found, written)
    listed = json.loads(tool(openelm, theirs, "models", "--json"))["repositories"]
    shown = [(one["name"], one["type"], one["revisions"], one["commit"]) for one in listed]
    assert shown == [("local/data", "dataset", ["main"], COMMIT),
                     ("local/tales", "model", ["main"], COMMIT)], shown
    text = tool(openelm, theirs, "generate", "--model", "local/tales", "--prompt", "Once upon",
                "--max-tokens", "4", "--quiet", HF_HUB_OFFLINE="1")
    assert text

    assert layout(ours / "hub") == layout(theirs / "hub")
    # Each continues with what the other has: nothing is downloaded again.
    before = layout(theirs / "hub")
    tool(openelm, theirs, "pull", "local/tales", "--include", "*", "--quiet")
    by_python(ours, WRITE)
    assert before == layout(theirs / "hub") == layout(ours / "hub")
    print(f"hub: one cache for openelm and huggingface_hub, {len(before)} links, refs and blobs")


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ENDPOINT = f"http://127.0.0.1:{server.server_address[1]}"
    # Another host, as the Hub's storage is.
    STORAGE = ENDPOINT.replace("127.0.0.1", "localhost")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    main(pathlib.Path(sys.argv[1]).absolute(), str(pathlib.Path(sys.argv[2]).absolute()))
