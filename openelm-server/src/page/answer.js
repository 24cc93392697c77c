// A generated text with its tokens, counts and error.

import * as liveRegion from "./live_region.js";
import { makeTabStop, tokenElement } from "./probabilities.js";

/** Shortest time that gives a rate, in seconds. */
const SHORTEST = 0.05;

/** A generated text, which grows. */
export class Answer {
  #text = element("p", "text");
  #error = element("p", "error");
  #counts = element("p", "counts");
  #copy = element("button", "plain");
  #trims;
  #tokens = [];
  #chunks = 0;
  #firstTime = 0;
  #lastTime = 0;
  #finish = "";
  #usage = null;

  /**
   * `prefix` is a prompt that the text continues; Copy includes it. Without a prompt, null, spaces
   * at the begin of the text are not shown.
   */
  constructor(prefix) {
    this.content = "";
    this.#trims = prefix === null;
    this.element = element("article", "answer");
    this.element.setAttribute("aria-busy", "true");
    this.element.setAttribute("aria-label", "Answer");
    if (prefix) {
      const before = element("span", "prompt");
      before.textContent = prefix;
      this.#text.append(before);
    }
    this.#error.setAttribute("role", "alert");
    this.#error.hidden = true;
    this.#copy.type = "button";
    this.#copy.textContent = "Copy";
    this.#copy.hidden = true;
    this.#copy.addEventListener("click", () => copy(this.#text));
    const footer = element("footer", "");
    footer.append(this.#counts, this.#copy);
    this.element.append(this.#text, this.#error, footer);
  }

  /** Adds an addition of `generate`. */
  push({ text, tokens, finish, usage }) {
    // A token without text is a part of a character, or of a possible stop string.
    this.#tokens.push(...tokens);
    if (text !== "") {
      const isBegin = this.#trims && this.content.trim() === "";
      const added = tokenElement(isBegin ? text.trimStart() : text, this.#tokens);
      this.#text.append(added);
      if (this.content === "" && added.className === "token") {
        makeTabStop(added);
      }
      this.#tokens = [];
      this.content += text;
      liveRegion.add(text);
    }
    const count = tokens.length || Number(text !== "");
    if (count > 0) {
      this.#chunks += count;
      this.#lastTime = performance.now();
      this.#firstTime ||= this.#lastTime;
    }
    this.#usage = usage ?? this.#usage;
    this.#finish = finish ?? this.#finish;
    this.#showCounts();
  }

  /** Ends the text with an error. */
  fail(message) {
    this.#error.textContent = message;
    this.#error.hidden = false;
  }

  /** Ends the text. */
  end({ isStopped }) {
    liveRegion.finish();
    if (isStopped) {
      this.#finish = "stopped";
      liveRegion.announce("Stopped");
    }
    this.element.setAttribute("aria-busy", "false");
    this.#copy.hidden = this.content === "";
    this.#showCounts();
  }

  #showCounts() {
    const parts = [];
    const generated = this.#usage?.completion_tokens ?? this.#chunks;
    if (generated > 0) {
      parts.push(plural(generated, "token"));
    }
    const seconds = (this.#lastTime - this.#firstTime) / 1000;
    // The first tokens may arrive together.
    if (seconds >= SHORTEST) {
      parts.push(`${((this.#chunks - 1) / seconds).toFixed(1)} tokens per second`);
    }
    if (this.#usage) {
      const { prompt_tokens: prompt, prompt_tokens_details: details } = this.#usage;
      const cached = details?.cached_tokens ? `, ${details.cached_tokens} cached` : "";
      parts.push(`prompt: ${plural(prompt, "token")}${cached}`);
    }
    const ends = { length: "limit of tokens reached", stopped: "stopped" };
    if (this.#finish in ends) {
      parts.push(ends[this.#finish]);
    }
    this.#counts.textContent = parts.join(" · ");
  }
}

function element(name, className) {
  const made = document.createElement(name);
  made.className = className;
  return made;
}

function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text.textContent);
  } catch {
    // Only pages of this machine and of HTTPS may use the clipboard directly.
    getSelection().selectAllChildren(text);
    document.execCommand("copy");
  }
  liveRegion.announce("Copied");
}
