"""Tests `openelm serve` under load, and measures it beside mlx-lm's server.

    serve.py load [--minutes N] [--clients N] [--openelm FILE]
    serve.py speed [--rounds N] [--openelm FILE]

load   Clients with whole and streamed texts, scores, cancelled requests, slow readers, half-open
       connections and invalid bodies. Fails if a request is lost, if a status is neither 200 nor
       4xx, or if memory or open files grow.
speed  Tokens per second of 8 clients, and the time to the first token of a further one, beside
       mlx_lm.server with the same BLAS. Needs `make build` and parity/setup.sh. Prints JSON.
"""

import argparse
import asyncio
import collections
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
TALES = ROOT / "examples/tales"
ORACLE = ROOT / ".mlx/oracle"
BLAS = ROOT / ".mlx/lib/libmlxc.so"
PROMPTS = ("Once upon a time", "The old king", "In a dark forest", "Tom had a red ball. He")
# Growth after the first quarter of the time: a peak of requests needs more than another.
MOST_MEMORY = 1.15
MOST_FILES = 16
CLIENTS, TOKENS = 8, 64


class Server:
    """A server's process until the end of the block."""

    def __init__(self, command, environment=None):
        self.log = open(ROOT / "out/serve.log", "w+")
        self.process = subprocess.Popen(
            [str(word) for word in command], stderr=self.log, env={**os.environ, **(environment or {})}
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def memory(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024

    def files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def openelm(tool, *options):
    port = free_port()
    command = [tool, "serve", "--model", TALES, "--dtype", "float32", "--port", port, *options]
    return Server(command), port


def mlx_lm(model):
    port = free_port()
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", model, "--port", port]
    environment = {"PYTHONPATH": str(ORACLE), "LD_PRELOAD": str(BLAS), "HF_HUB_OFFLINE": "1"}
    return Server([*command, "--log-level", "WARNING"], environment), port


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


async def wait_until_ready(server, port):
    for _ in range(600):
        if server.process.poll() is not None:
            sys.exit(f"bench: the server ended: {Path(server.log.name).read_text()[-2000:]}")
        try:
            status, _ = await ask(port, "GET", "/health", b"")
            if status == 200:
                return
        except OSError:
            pass
        await asyncio.sleep(0.1)
    sys.exit("bench: the server is not ready")


def request(method, path, body, length=None):
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode() + body


async def ask(port, method, path, body):
    """The status and the whole response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(method, path, body))
        response = await reader.read()
    finally:
        writer.close()
    return status_of(response), response


def status_of(response):
    found = re.match(rb"HTTP/1\.[01] (\d+) ", response)
    return int(found[1]) if found else 0


class Load:
    """The clients' counts and the violations."""

    def __init__(self, port, seed):
        self.port, self.random = port, random.Random(seed)
        self.counts, self.problems = collections.Counter(), []

    async def client(self, end):
        kinds = [self.whole, self.stream, self.score, self.cancel, self.slow, self.half_open, self.invalid]
        while time.monotonic() < end:
            kind = self.random.choice(kinds)
            try:
                await asyncio.wait_for(kind(), 120)
            except asyncio.TimeoutError:
                self.problem(f"{kind.__name__}: no response in 120 seconds")
            except (ConnectionResetError, BrokenPipeError) as error:
                self.problem(f"{kind.__name__}: {error!r}")
            self.counts[kind.__name__] += 1

    def problem(self, text):
        self.problems.append(text)

    def body(self, **more):
        prompt = self.random.choice(PROMPTS) + " " * self.random.randrange(2)
        return {"prompt": prompt, "max_tokens": self.random.randrange(1, 40), **more}

    def check(self, name, status, is_complete):
        self.counts[status] += 1
        if status == 429:
            return
        if status != 200 or not is_complete:
            self.problem(f"{name}: status {status}, complete: {is_complete}")

    async def whole(self):
        body = json.dumps(self.body(n=self.random.randrange(1, 4), temperature=1)).encode()
        status, response = await ask(self.port, "POST", "/v1/completions", body)
        self.check("whole", status, response.endswith(b"}"))
        await self.after(status)

    async def stream(self):
        body = json.dumps(self.body(stream=True, temperature=0.8, logprobs=self.random.choice((None, 2)))).encode()
        status, response = await ask(self.port, "POST", "/v1/completions", body)
        self.check("stream", status, b"data: [DONE]" in response)
        await self.after(status)

    async def score(self):
        ids = [[1, *(self.random.randrange(3, 500) for _ in range(self.random.randrange(1, 60)))] for _ in range(3)]
        body = {"prompt": ids, "max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0}
        status, response = await ask(self.port, "POST", "/v1/completions", json.dumps(body).encode())
        self.check("score", status, response.endswith(b"}"))
        await self.after(status)

    async def after(self, status):
        # A client may try again after the time that Retry-After names.
        if status == 429:
            await asyncio.sleep(1)

    async def cancel(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = self.body(stream=self.random.random() < 0.5, max_tokens=400, ignore_eos=True)
        writer.write(request("POST", "/v1/completions", json.dumps(body).encode()))
        await writer.drain()
        await asyncio.sleep(self.random.random())
        if self.random.random() < 0.5:
            writer.transport.abort()
        writer.close()

    async def slow(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=512)
        body = self.body(stream=True)
        writer.write(request("POST", "/v1/completions", json.dumps(body).encode()))
        received = b""
        while part := await reader.read(64):
            received += part
            if len(received) % 640 == 0:
                await asyncio.sleep(0.01)
        writer.close()
        self.check("slow", status_of(received), b"data: [DONE]" in received)

    async def half_open(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        text = request("POST", "/v1/completions", json.dumps(self.body()).encode(), 5000)
        writer.write(text[: self.random.randrange(1, len(text))])
        # The server ends the connection, or this client does.
        try:
            await asyncio.wait_for(reader.read(), self.random.choice((0.2, 30)))
        except asyncio.TimeoutError:
            pass
        writer.close()

    async def invalid(self):
        bodies = [b"", b"{", b"[]", b"\xff" * 40, b'{"prompt": 1}', b'{"prompt": "a", "top_p": 7}',
                  json.dumps({"prompt": [1] * 5000}).encode(), b'{"prompt": "a", "x": 1}', b"[" * 100_000]
        status, _ = await ask(self.port, "POST", "/v1/completions", self.random.choice(bodies))
        self.counts[status] += 1
        if not 400 <= status < 500:
            self.problem(f"invalid: status {status}")


async def watch(server, end, samples):
    while time.monotonic() < end:
        samples.append((server.memory(), server.files()))
        await asyncio.sleep(1)


async def load(arguments):
    options = ["--log-level", "warn", "--io-timeout", 5, "--max-queue", arguments.clients // 2]
    server, port = openelm(arguments.openelm, *options, "--decode-concurrency", 16)
    with server:
        await wait_until_ready(server, port)
        before = server.files()
        run, samples = Load(port, arguments.seed), []
        end = time.monotonic() + 60 * arguments.minutes
        clients = [run.client(end) for _ in range(arguments.clients)]
        await asyncio.gather(*clients, watch(server, end, samples))
        # All requests have ended.
        for _ in range(300):
            _, metrics = await ask(port, "GET", "/metrics", b"")
            if b"openelm_requests 0\n" in metrics and server.files() <= before + 2:
                break
            await asyncio.sleep(0.1)
        else:
            run.problem(f"requests or files are left: {server.files()} files, {before} before")
        status, _ = await ask(port, "POST", "/v1/completions", b'{"prompt": "Once", "max_tokens": 2}')
        if status != 200:
            run.problem(f"after the load: status {status}")
    if server.process.returncode != 0:
        run.problem(f"exit code {server.process.returncode}")
    log = Path(server.log.name).read_text()
    if "panicked" in log:
        run.problem(log[log.index("panicked") :][:300])
    memory, files = zip(*samples)
    quarter, half = len(memory) // 4 + 1, len(memory) // 2
    grown = max(memory[half:]) / max(memory[:half])
    if len(memory) >= 60 and grown > MOST_MEMORY:
        run.problem(f"memory grew by {grown:.2f}")
    if max(files[half:]) > max(files[:half]) + MOST_FILES:
        run.problem(f"open files grew from {max(files[:half])} to {max(files[half:])}")
    print(f"requests: {dict(run.counts)}")
    print(f"memory: {max(memory[:quarter]) >> 20} MB in the first quarter, {max(memory) >> 20} MB in all;"
          f" open files: {before} before, at most {max(files)}")
    for problem in run.problems[:20]:
        print(f"problem: {problem}")
    print(f"{len(run.problems)} problems")
    return 1 if run.problems else 0


async def streamed(port, model, prompt, tokens, seed):
    """The times of the first token and the end, in seconds, and the number of tokens."""
    body = {"prompt": prompt, "max_tokens": tokens, "stream": True, "temperature": 0, "model": model,
            "stream_options": {"include_usage": True}, "logit_bias": {"2": -100}}
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    started = time.monotonic()
    writer.write(request("POST", "/v1/completions", json.dumps(body).encode()))
    first, count = None, 0
    while line := await reader.readline():
        line = line.partition(b"data: ")[2]
        if not line.startswith(b"{"):
            continue
        event = json.loads(line)
        if first is None and event["choices"] and event["choices"][0]["text"]:
            first = time.monotonic() - started
        if event.get("usage"):
            count = event["usage"]["completion_tokens"]
    writer.close()
    return first, time.monotonic() - started, count


async def measured(server, port, model):
    """Tokens per second of all clients, and the time to the first token of a further client."""
    with server:
        await wait_until_ready(server, port)
        await streamed(port, model, "Warm up", 4, 0)
        started = time.monotonic()
        clients = [streamed(port, model, f"{PROMPTS[i % 4]} {i}", TOKENS * 4, i) for i in range(CLIENTS)]
        clients = [asyncio.create_task(client) for client in clients]
        await asyncio.sleep(0.3)
        first, _, _ = await streamed(port, model, "A girl went", 2, 9)
        results = await asyncio.gather(*clients)
        seconds = time.monotonic() - started
        tokens = sum(count for _, _, count in results)
        return {"tokens_per_second": tokens / seconds, "first_token_seconds": first}


async def speed(arguments):
    rounds = []
    for index in range(arguments.rounds):
        pair = {}
        for name in ("openelm", "mlx_lm") if index % 2 else ("mlx_lm", "openelm"):
            if name == "openelm":
                pair[name] = await measured(*openelm(arguments.openelm, "--log-level", "warn"), "tales")
            else:
                pair[name] = await measured(*mlx_lm(TALES), str(TALES))
        rounds.append(pair)
    ratios = {key: median(pair["openelm"][key] / pair["mlx_lm"][key] for pair in rounds)
              for key in ("tokens_per_second", "first_token_seconds")}
    print(json.dumps({"clients": CLIENTS, "rounds": rounds, "median_ratios": ratios}, indent=1))
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("load", "speed"))
    parser.add_argument("--openelm", default=ROOT / "target/release/openelm", type=Path)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    (ROOT / "out").mkdir(exist_ok=True)
    run = load if arguments.what == "load" else speed
    sys.exit(asyncio.run(run(arguments)))


if __name__ == "__main__":
    main()
