// The dialog for an API key.

import { models, setKey } from "./api.js";

const dialog = document.getElementById("key-dialog");
const input = document.getElementById("key");
const error = document.getElementById("key-error");

/** Asks for a key until the server accepts one. Returns the models; null if the user cancels. */
export function requestKey() {
  input.value = "";
  showError("");
  dialog.showModal();
  return new Promise((resolve) => {
    const submit = async (event) => {
      event.preventDefault();
      setKey(input.value.trim());
      try {
        const list = await models();
        finish(list);
        dialog.close();
      } catch (problem) {
        showError(problem.message);
        input.select();
      }
    };
    const cancel = () => finish(null);
    const finish = (result) => {
      dialog.removeEventListener("submit", submit);
      dialog.removeEventListener("close", cancel);
      resolve(result);
    };
    dialog.addEventListener("submit", submit);
    dialog.addEventListener("close", cancel);
  });
}

function showError(message) {
  error.textContent = message;
  error.hidden = message === "";
}
