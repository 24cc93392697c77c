// The options of a request, under the names of its fields.

const aside = document.getElementById("options");
const form = aside.querySelector("form");
const button = document.getElementById("show-options");

button.addEventListener("click", () => show(!aside.classList.contains("shown")));
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", (event) => event.target.removeAttribute("aria-invalid"));
form.addEventListener("reset", () => markInvalid(null));

/** The fields of the options that have a value; null if one is not a number. */
export function fields() {
  const values = {};
  if (!form.checkValidity()) {
    show(true);
    form.reportValidity();
    return null;
  }
  for (const input of numbers()) {
    if (input.value !== "") {
      values[input.name] = input.valueAsNumber;
    }
  }
  return values;
}

/** The system message; empty for none. */
export function systemMessage() {
  return form.elements.system.value;
}

/** True if token probabilities are requested. */
export function withProbabilities() {
  return form.elements.probabilities.checked;
}

/** Shows the server's defaults. */
export function setDefaults(defaults) {
  for (const input of numbers()) {
    const value = defaults[input.name];
    if (typeof value === "number") {
      input.placeholder = String(value);
    }
  }
}

/** Shows the options of a mode. */
export function setMode(mode) {
  document.getElementById("system-option").hidden = mode !== "chat";
}

/** Marks the option that the server refuses, or none. */
export function markInvalid(name) {
  for (const input of numbers()) {
    if (input.name === name) {
      input.setAttribute("aria-invalid", "true");
    } else {
      input.removeAttribute("aria-invalid");
    }
  }
}

function numbers() {
  return form.querySelectorAll("input[type=number]");
}

/** Narrow windows show the options on demand, wide ones always. */
function show(isShown) {
  aside.classList.toggle("shown", isShown);
  button.setAttribute("aria-expanded", String(isShown));
  const isNarrow = button.offsetParent !== null;
  if (isShown && isNarrow) {
    aside.scrollIntoView();
  }
}
