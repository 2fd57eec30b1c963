// The key of a service that wants one: asked for when the service answers 401, kept in memory, or in the tab's own storage where
// the person ticks so. It is never shown, never part of an address, and never put into a line to copy.

import { at, say } from "./elements.js";

const PLACE = "sknet-key";
const SENDABLE = /^[\x21-\x7e]+$/; // what a header can hold

let key = stored();
let asking = null; // {promise, resolve} while the service waits for a key

function stored() {
  try {
    return sessionStorage.getItem(PLACE) ?? "";
  } catch {
    return ""; // storage is switched off
  }
}

function store(value) {
  try {
    if (value) sessionStorage.setItem(PLACE, value);
    else sessionStorage.removeItem(PLACE);
  } catch {
    // storage is switched off: it is kept in memory alone
  }
}

export const current = () => key;
export const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});

// Resolves once there is another key than the one that was refused.
export function ask(refused, { focus }) {
  if (key !== refused) return Promise.resolve();
  if (key) {
    key = "";
    store("");
    fault("This key was not accepted.");
  }
  show();
  if (focus) at("key-field").focus();
  if (!asking) {
    say("This service wants a key.");
    asking = Promise.withResolvers ? Promise.withResolvers() : deferred();
  }
  return asking.promise;
}

function deferred() {
  const made = {};
  made.promise = new Promise((resolve) => { made.resolve = resolve; });
  return made;
}

function fault(text) {
  at("key-fault").textContent = text;
  at("key-field").setAttribute("aria-invalid", String(Boolean(text)));
}

function show() {
  at("key").hidden = false;
  at("key-form").hidden = Boolean(key);
  at("key-held").hidden = !key;
}

export function connectKey() {
  if (key) show();
  at("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = at("key-field").value.trim();
    if (!SENDABLE.test(given)) {
      fault("A key has letters, digits and signs, and no spaces.");
      at("key-field").focus();
      return;
    }
    key = given;
    store(at("key-keep").checked ? key : "");
    at("key-field").value = "";
    fault("");
    show();
    say("The key is used from now on.");
    at("key-forget").focus(); // the field it was in has gone
    asking?.resolve();
    asking = null;
  });
  at("key-forget").addEventListener("click", () => {
    key = "";
    store("");
    show();
    at("key-field").focus();
  });
}
