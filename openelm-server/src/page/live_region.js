// Text for screen readers, a sentence at a time: single tokens would interrupt each other.

const region = document.getElementById("live-region");
/** Largest number of sentences that stay in the document. */
const MOST = 20;

let pending = "";

/** Adds generated text. */
export function add(text) {
  pending += text;
  const end = pending.search(/[.!?…\n]["'”’)]*\s(?!.*[.!?…\n]["'”’)]*\s)/s);
  if (end >= 0) {
    announce(pending.slice(0, end + 1));
    pending = pending.slice(end + 1);
  }
}

/** Announces the rest of a text. */
export function finish() {
  announce(pending);
  pending = "";
}

/** Announces a message. */
export function announce(text) {
  if (text.trim() === "") {
    return;
  }
  const line = document.createElement("p");
  line.textContent = text;
  region.append(line);
  while (region.childElementCount > MOST) {
    region.firstElementChild.remove();
  }
}
