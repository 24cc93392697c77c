// The messages and texts of a mode.

import { Answer } from "./answer.js";
import { listen } from "./probabilities.js";

/** The chat, or the completions, with the section that shows it. */
export class Transcript {
  #section;
  #hint;
  #turns = [];

  /** `mode` is `chat` or `completion`. */
  constructor(mode) {
    this.mode = mode;
    this.draft = "";
    this.#section = document.getElementById(mode);
    this.#hint = this.#section.querySelector(".hint");
    listen(this.#section);
  }

  /** Shows or hides the section. */
  show(isShown) {
    this.#section.hidden = !isShown;
  }

  /** The fields of a request with the prompt `text`. */
  fields(text, systemMessage) {
    if (this.mode === "completion") {
      return { prompt: text };
    }
    const message = (role, content) => ({ role, content });
    const system = systemMessage === "" ? [] : [message("system", systemMessage)];
    // A turn without an answer is not part of the conversation.
    const turns = this.#turns.filter(({ answer }) => answer.content !== "");
    const earlier = turns.flatMap(({ text, answer }) => [
      message("user", text),
      message("assistant", answer.content),
    ]);
    return { messages: [...system, ...earlier, message("user", text)] };
  }

  /** Adds a turn with the prompt `text`, and returns its answer. */
  begin(text) {
    this.#hint.hidden = true;
    const isChat = this.mode === "chat";
    const answer = new Answer(isChat ? null : text);
    if (isChat) {
      const message = document.createElement("p");
      message.className = "message";
      message.setAttribute("role", "article");
      message.setAttribute("aria-label", "Message");
      message.textContent = text;
      this.#section.append(message);
    }
    this.#section.append(answer.element);
    this.#turns.push({ text, answer });
    return answer;
  }

  /** Removes everything. */
  clear() {
    this.#turns = [];
    this.#section.replaceChildren(this.#hint);
    this.#hint.hidden = false;
  }
}
