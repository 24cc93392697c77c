// Requests to the server's API.

import { EventStreamParser } from "./event_stream.js";

const KEY = "openelm-api-key";

/** Number of most likely tokens that are requested for each token. */
const TOP = 5;

/** An error of the server, or of the connection to it. */
export class ApiError extends Error {
  /** `status` is 0 without a response; `param` is the field at fault, or null. */
  constructor(message, status = 0, param = null) {
    super(message);
    this.status = status;
    this.param = param;
  }
}

/** Keeps a key for the requests of this tab. */
export function setKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** The objects of `/v1/models`. */
export async function models() {
  const response = await request("v1/models");
  return (await response.json()).data;
}

/**
 * Generates a text and yields its additions, `{ text, tokens, finish, usage }`. A token is `{ text,
 * logprob, top }`; `top` has the most likely tokens and the token itself, the most likely first.
 */
export async function* generate(mode, fields, withProbabilities, signal) {
  const isChat = mode === "chat";
  const body = { ...fields, stream: true, stream_options: { include_usage: true } };
  if (withProbabilities) {
    Object.assign(body, isChat ? { logprobs: true, top_logprobs: TOP } : { logprobs: TOP });
  }
  const response = await request(isChat ? "v1/chat/completions" : "v1/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  for await (const data of events(response)) {
    if (data === "[DONE]") {
      return;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) {
      throw new ApiError(chunk.error.message, response.status, chunk.error.param);
    }
    yield addition(chunk);
  }
  throw new ApiError("The connection has ended before the text.");
}

async function request(path, options = {}) {
  const headers = new Headers(options.headers);
  const key = sessionStorage.getItem(KEY);
  if (key) {
    try {
      headers.set("Authorization", `Bearer ${key}`);
    } catch {
      throw new ApiError("A key has only characters of ISO 8859-1.", 401);
    }
  }
  const response = await connected(fetch(path, { ...options, headers, cache: "no-store" }));
  if (response.ok) {
    return response;
  }
  const text = await connected(response.text());
  throw errorOf(response, text);
}

/** The result of a request, with an `ApiError` for a lost connection. */
async function connected(result) {
  try {
    return await result;
  } catch (error) {
    if (error.name === "AbortError") {
      throw error;
    }
    throw new ApiError("The server cannot be reached.");
  }
}

/** A proxy's error has no JSON. */
function errorOf(response, text) {
  try {
    const { message, param } = JSON.parse(text).error;
    return new ApiError(message, response.status, param);
  } catch {
    return new ApiError(`${response.status} ${response.statusText}`, response.status);
  }
}

async function* events(response) {
  const parser = new EventStreamParser();
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await connected(reader.read());
    if (done) {
      return;
    }
    yield* parser.push(value);
  }
}

/** The addition of a chunk of either API. */
function addition({ choices: [choice], usage }) {
  const logprobs = choice?.logprobs;
  const tokens = logprobs?.content
    ? logprobs.content.map(({ token, logprob, top_logprobs }) =>
        withTop(token, logprob,
          top_logprobs.map(({ token: text, logprob }) => ({ text, logprob }))))
    : (logprobs?.tokens ?? []).map((token, index) => {
        const top = Object.entries(logprobs.top_logprobs[index] ?? {});
        return withTop(token, logprobs.token_logprobs[index],
          top.map(([text, logprob]) => ({ text, logprob })));
      });
  return {
    text: choice?.text ?? choice?.delta?.content ?? "",
    tokens,
    finish: choice?.finish_reason ?? null,
    usage: usage ?? null,
  };
}

function withTop(text, logprob, top) {
  if (!top.some((other) => other.text === text)) {
    top.push({ text, logprob });
  }
  top.sort((a, b) => b.logprob - a.logprob);
  return { text, logprob, top };
}
