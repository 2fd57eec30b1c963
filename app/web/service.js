// Talks to the service: one image to a route, and the list of models. Waits where the service says when to come back, asks for
// a key where it wants one. Knows nothing of what is shown. Addresses are relative, so that it works below a prefix.

import * as keys from "./key.js";
import { failureOf, parsed, unreachable } from "./problems.js";
import { readServerTiming } from "./timings.js";

const PATIENCE = 20; // answers of "later" in a row before it is given up
const LATER_S = 2; // where nobody says how much later
const SOONEST_S = 1; // whatever it says: a service that is busy is not asked in a circle
const LATEST_S = 60; // nobody watches a page for longer

// Without the name and password that somebody may have put before the host: fetch refuses them, and others would read them in a
// line to copy. The browser sends them by itself.
export function address(path) {
  const found = new URL(path, document.baseURI);
  found.username = found.password = "";
  return found.href;
}

// Sends a file as the part `file` of a form. `heard.progress(0..1)`, `heard.waiting(seconds, failure)` and `heard.asking()` are
// called on the way. Gives {data, timings}: `data` parsed JSON, or a Blob where `accept` is a picture.
export async function post(path, file, { accept = "application/json", signal, heard = {}, focus = true } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const used = keys.current();
    const found = await once(path, file, { accept, signal, progress: heard.progress });
    if (found.status >= 200 && found.status < 300) return success(found, accept);
    const failure = failureOf({ ...found, text: await found.body.text() });
    if (failure.status === 401) {
      heard.asking?.();
      await unlessAborted(keys.ask(used, { focus }), signal);
    } else if (failure.passes && attempt < PATIENCE && !(failure.retryAfter > LATEST_S)) {
      const seconds = waitOf(failure);
      heard.waiting?.(seconds, failure);
      await unlessAborted(pause(seconds), signal);
    } else {
      throw failure;
    }
  }
}

// Seconds until a failure is worth another try.
export const waitOf = ({ retryAfter }) => Math.max(SOONEST_S, retryAfter ?? LATER_S);

async function success({ body, serverTiming, upload, total }, accept) {
  const timings = { ...readServerTiming(serverTiming), upload, round: total };
  const json = accept === "application/json";
  const data = json ? parsed(await body.text()) : body;
  const ours = json ? Array.isArray(data?.predictions) : data.type.startsWith("image/");
  if (!ours) throw unreachable(); // something between answered in the service's place
  return { data, timings };
}

function once(path, file, { accept, signal, progress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch tells nothing of how far an upload is
    const started = performance.now();
    let upload = null;
    const form = new FormData();
    form.append("file", file, file.name || "pasted");
    request.open("POST", address(path));
    request.responseType = "blob";
    request.setRequestHeader("Accept", accept);
    for (const [name, value] of Object.entries(keys.headers())) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", ({ loaded, total }) => progress?.(total ? loaded / total : 0));
    request.upload.addEventListener("load", () => { upload = performance.now() - started; });
    const abort = () => request.abort();
    request.addEventListener("loadend", () => signal?.removeEventListener("abort", abort));
    request.addEventListener("error", () => reject(unreachable()));
    request.addEventListener("abort", () => reject(aborted()));
    request.addEventListener("load", () => resolve({
      status: request.status,
      body: request.response,
      requestId: request.getResponseHeader("X-Request-ID"),
      retryAfter: secondsOf(request.getResponseHeader("Retry-After")),
      serverTiming: request.getResponseHeader("Server-Timing"),
      upload,
      total: performance.now() - started,
    }));
    if (signal?.aborted) return reject(aborted());
    signal?.addEventListener("abort", abort);
    request.send(form);
  });
}

// Every model of the service.
export async function models() {
  for (;;) {
    const used = keys.current();
    let response;
    try {
      response = await fetch(address("models"), { headers: { Accept: "application/json", ...keys.headers() } });
    } catch {
      throw unreachable();
    }
    const text = await response.text();
    if (response.ok) {
      const found = parsed(text)?.models;
      if (!Array.isArray(found)) throw unreachable(); // as above
      return found;
    }
    if (response.status !== 401) {
      const retryAfter = secondsOf(response.headers.get("Retry-After"));
      throw failureOf({ status: response.status, text, requestId: response.headers.get("X-Request-ID"), retryAfter });
    }
    await keys.ask(used, { focus: false });
  }
}

// A timer's time has 31 bits of milliseconds, and begins anew beyond them.
export const pause = (seconds) => new Promise((resolve) => { setTimeout(resolve, Math.min(seconds * 1000, 2 ** 31 - 1)); });

// A date, which RFC 9110 allows too, counts as not said.
function secondsOf(text) {
  return text !== null && /^\d+$/.test(text) ? Number(text) : null;
}

function aborted() {
  return new DOMException("cancelled", "AbortError");
}

function unlessAborted(promise, signal) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(aborted());
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
