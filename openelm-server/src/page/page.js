// The playground of `openelm serve`.

import { generate, models } from "./api.js";
import { requestKey } from "./key_dialog.js";
import * as options from "./options.js";
import * as probabilities from "./probabilities.js";
import { Transcript } from "./transcript.js";

const find = (id) => document.getElementById(id);
const composer = find("composer");
const prompt = find("prompt");
const send = find("send");
const model = find("model");
const startError = find("start-error");

const transcripts = { chat: new Transcript("chat"), completion: new Transcript("completion") };
let current = transcripts.chat;
/** Cancels the running generation; null if there is none. */
let running = null;

find("mode").addEventListener("change", (event) => setMode(event.target.value));
find("clear").addEventListener("click", clear);
prompt.addEventListener("input", () => follow(fitPrompt));
prompt.addEventListener("keydown", (event) => {
  // The Return that ends an input method's composition is no end of the message.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
    event.preventDefault();
    run();
  }
});
composer.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) {
    stop();
  } else {
    run();
  }
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    probabilities.hide();
    stop();
  }
});
// The composer covers the end of the page.
new ResizeObserver(() => {
  const height = `${composer.offsetHeight}px`;
  document.documentElement.style.setProperty("--composer-height", height);
}).observe(composer);

await start();

/** Reads the models, and selects the mode of the server's chat template. */
async function start() {
  let list;
  try {
    list = await models();
  } catch (error) {
    list = error.status === 401 ? await requestKey() : null;
    if (list === null) {
      showStartError(error.message);
      return;
    }
  }
  showStartError("");
  const [own] = list;
  model.replaceChildren(...list.map(({ id }) => new Option(id)));
  model.hidden = list.length === 1;
  const name = find("model-name");
  name.textContent = list.length === 1 ? own.id : "";
  // A long name is cut.
  name.title = name.textContent;
  options.setDefaults(own.defaults);
  // A base model has no chat template.
  const mode = own.chat_template === "plain" ? "completion" : "chat";
  find("mode").querySelector(`[value=${mode}]`).checked = true;
  setMode(mode);
  prompt.focus();
}

function setMode(mode) {
  stop();
  current.draft = prompt.value;
  current = transcripts[mode];
  for (const transcript of Object.values(transcripts)) {
    transcript.show(transcript === current);
  }
  options.setMode(mode);
  const label = mode === "chat" ? "Message" : "Prompt";
  prompt.labels[0].textContent = label;
  prompt.placeholder = label;
  setPrompt(current.draft);
}

/** Generates a text for the prompt. */
async function run() {
  const text = prompt.value;
  const transcript = current;
  const isChat = transcript.mode === "chat";
  if (running || (isChat && text.trim() === "")) {
    return;
  }
  if (model.value === "") {
    await start();
    return;
  }
  const fields = options.fields();
  if (fields === null) {
    return;
  }
  options.markInvalid(null);
  const body = {
    model: model.value,
    ...transcript.fields(text, options.systemMessage()),
    ...fields,
  };
  const answer = transcript.begin(text);
  if (isChat) {
    setPrompt("");
  }
  const controller = new AbortController();
  setRunning(controller);
  scrollToEnd();
  try {
    for await (const added of generate(
      transcript.mode, body, options.withProbabilities(), controller.signal)) {
      follow(() => answer.push(added));
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      follow(() => fail(error, answer));
    }
  }
  follow(() => {
    answer.end({ isStopped: controller.signal.aborted });
    // A message without an answer is not lost.
    if (isChat && answer.content === "" && prompt.value === "" && current === transcript) {
      setPrompt(text);
    }
  });
  if (running === controller) {
    setRunning(null);
  }
}

function fail(error, answer) {
  answer.fail(error.message);
  options.markInvalid(error.param);
  if (error.status === 401) {
    requestKey();
  }
}

function stop() {
  running?.abort();
}

function clear() {
  stop();
  probabilities.hide();
  current.clear();
  prompt.focus();
}

function setRunning(controller) {
  running = controller;
  document.body.classList.toggle("running", running !== null);
  send.setAttribute("aria-label", running ? "Stop" : "Send");
}

function showStartError(message) {
  startError.textContent = message;
  startError.hidden = message === "";
}

function setPrompt(text) {
  prompt.value = text;
  fitPrompt();
}

/** Fits the height of the field to its text. */
function fitPrompt() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
}

/** Makes a change, and keeps the end of the page in view if it was in view. */
function follow(change) {
  const page = document.documentElement;
  const isAtEnd = page.scrollHeight - page.clientHeight - page.scrollTop < 40;
  change();
  if (isAtEnd) {
    scrollToEnd();
  }
}

function scrollToEnd() {
  document.documentElement.scrollTop = document.documentElement.scrollHeight;
}
