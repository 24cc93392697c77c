// Probabilities of tokens under the pointer or with the focus.

const tooltip = document.getElementById("probabilities-of-token");
/** Tokens of an element. */
const tokensOf = new WeakMap();
/** Milliseconds in which the pointer may move from a token to its tooltip. */
const DELAY = 120;
/** Distance of the tooltip from its token and from the window, in CSS pixels. */
const GAP = 8;

let shown = null;
let timer = 0;

/** Makes an element with a text and the tokens that it is made of. */
export function tokenElement(text, tokens) {
  const element = document.createElement("span");
  element.textContent = text;
  if (tokens.length > 0) {
    element.className = "token";
    element.tabIndex = -1;
    tokensOf.set(element, tokens);
  }
  return element;
}

/** Shows tooltips of the tokens in `transcript`. One token of a text is in the tab order. */
export function listen(transcript) {
  // Not `pointerover`, which also comes when a text moves under the pointer.
  transcript.addEventListener("pointermove", ({ target }) => {
    if (target === shown) {
      clearTimeout(timer);
    } else if (tokensOf.has(target)) {
      show(target);
    }
  });
  transcript.addEventListener("pointerout", hideLater);
  transcript.addEventListener("focusin", ({ target }) => {
    if (tokensOf.has(target)) {
      makeTabStop(target);
      show(target);
    }
  });
  transcript.addEventListener("focusout", hideLater);
  transcript.addEventListener("keydown", moveFocus);
}

/** Hides the tooltip. Returns true if there was one. */
export function hide() {
  clearTimeout(timer);
  const wasShown = shown !== null;
  shown?.classList.remove("shown");
  shown?.removeAttribute("aria-describedby");
  shown = null;
  tooltip.hidden = true;
  return wasShown;
}

tooltip.addEventListener("pointerover", () => clearTimeout(timer));
tooltip.addEventListener("pointerout", hideLater);
addEventListener("scroll", place, { passive: true });
addEventListener("resize", place);

/** Hides the tooltip, unless the pointer or the focus is on a token or the tooltip by then. */
function hideLater() {
  clearTimeout(timer);
  timer = setTimeout(() => shown !== document.activeElement && hide(), DELAY);
}

function show(element) {
  hide();
  shown = element;
  element.classList.add("shown");
  element.setAttribute("aria-describedby", tooltip.id);
  tooltip.replaceChildren(...tokensOf.get(element).map(table));
  tooltip.hidden = false;
  place();
}

/** A table of the most likely tokens in the place of `token`. */
function table(token) {
  const table = document.createElement("table");
  const caption = table.createCaption();
  caption.textContent = "Before sampling options";
  for (const { text, logprob } of token.top) {
    const row = table.insertRow();
    row.classList.toggle("own", text === token.text);
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = visible(text);
    const bar = document.createElement("span");
    bar.className = "bar";
    bar.style.width = `${100 * Math.exp(logprob)}%`;
    const cell = document.createElement("td");
    cell.className = "bars";
    cell.append(bar);
    row.append(name, cell);
    row.insertCell().textContent = percent(Math.exp(logprob));
  }
  return table;
}

/** Text with signs for spaces and line ends. */
function visible(text) {
  const signs = { " ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥" };
  return text.replace(/^ | $|[\n\r\t]/g, (character) => signs[character]) || "(no text)";
}

function percent(probability) {
  const number = 100 * probability;
  return number < 0.1 ? "< 0.1 %" : `${number.toFixed(1)} %`;
}

/** Places the tooltip below its token, or above if there is no room. */
function place() {
  if (shown === null) {
    return;
  }
  const token = shown.getClientRects()[0];
  if (!token) {
    hide();
    return;
  }
  const { width, height } = tooltip.getBoundingClientRect();
  const { clientWidth, clientHeight } = document.documentElement;
  const left = Math.min(token.left, clientWidth - width - GAP);
  const below = token.bottom + GAP;
  const above = token.top - height - GAP;
  tooltip.style.left = `${Math.max(GAP, left)}px`;
  tooltip.style.top = `${below + height > clientHeight && above > 0 ? above : below}px`;
}

/** Makes a token the one of its text that Tab reaches. */
export function makeTabStop(element) {
  for (const other of element.parentElement.querySelectorAll("[tabindex='0']")) {
    other.tabIndex = -1;
  }
  element.tabIndex = 0;
}

/** Arrow keys, Home and End move the focus between the tokens of a text. */
function moveFocus(event) {
  if (!tokensOf.has(event.target) || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  const all = [...event.target.parentElement.querySelectorAll(".token")];
  const index = all.indexOf(event.target);
  const next = {
    ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: all.length - 1,
  }[event.key];
  if (all[next]) {
    event.preventDefault();
    all[next].focus();
  }
}
