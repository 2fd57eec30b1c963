// The page for people: sends one image to /classify and shows the ranking. Knows the public API only.
// Text from the service is set as text, never as markup; addresses are relative, so that it works below a prefix.

const at = (id) => document.getElementById(id);
const RETRY_MS = 2000; // between questions to a service that is still loading its model

// What a problem means to somebody who knows no HTTP; the service's own detail is shown below it.
const PLAIN = {
  "image-undecodable": "This file is not an image that can be read. It may be damaged, or no image at all.",
  "image-unsupported": "This image format is not supported. JPEG, PNG, WebP and GIF are.",
  "image-too-large": "This image has too many pixels. A smaller copy of it will do just as well.",
  "image-over-limit": "This image is too large or too complicated. A smaller copy of it will do just as well.",
  "decoder-unavailable": "The service cannot read this kind of image at the moment. Please try again shortly.",
  "image-unusable": "This image cannot be used. Please try another one.",
  "malformed-request": "The file is empty or did not arrive whole.",
  "body-too-large": "This file is too large. A smaller copy of the image will do just as well.",
  "body-timeout": "Sending the file took too long. Please try again, or send a smaller one.",
  "unsupported-media-type": "This kind of file is not accepted. Please choose an image.",
  "unauthorised": "This service wants a key, which this page cannot send.",
  "rate-limited": "That were too many pictures in a short time. Please try again shortly.",
  "overloaded": "The service is very busy at the moment. Please try again shortly.",
  "not-ready": "The service is not ready yet. Please try again shortly.",
  "deadline-passed": "The answer took too long. Please try again.",
  "internal-error": "Something went wrong in the service. It is not your fault; please try again.",
};

let sending = null; // AbortController of the image under way
let shown = ""; // object URL of the preview

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

function percent(score) {
  if (score > 0 && score < 0.001) return "< 0.1 %";
  return `${(score * 100).toFixed(1)} %`;
}

function bytes(count) {
  return count < 1e6 ? `${Math.max(1, Math.round(count / 1e3))} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

function say(text, className = "") {
  at("status").textContent = text;
  at("status").className = `status ${className}`;
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1).replace(/\.?$/, ".");
}

// What stands between the browser and the service may answer in its place, and in no JSON.
async function documentOf(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError" || response.ok) throw error;
    const { status } = response;
    return { title: "The service cannot answer at the moment.", detail: `Answered with status ${status}`, status };
  }
}

// ---- one image ----

function preview(file) {
  URL.revokeObjectURL(shown);
  shown = URL.createObjectURL(file);
  const image = at("preview");
  image.onerror = () => { image.hidden = true; }; // the browser may not know a format that the service reads
  image.alt = `Preview of ${file.name || "the pasted image"}`;
  image.src = shown;
  image.hidden = false;
  at("invitation").firstElementChild.textContent = "Choose another";
  at("facts").textContent = `${file.name || "pasted image"}, ${bytes(file.size)}`;
}

async function classify(file) {
  sending?.abort();
  const mine = (sending = new AbortController());
  preview(file);
  at("problem").replaceChildren();
  say("Looking at it …");
  at("result").setAttribute("aria-busy", "true");
  try {
    const form = new FormData();
    form.append("file", file, file.name || "pasted");
    const response = await fetch("classify", { method: "POST", body: form, signal: mine.signal });
    const answer = await documentOf(response);
    if (mine !== sending) return;
    if (response.ok) showRanking(answer, response.headers.get("Server-Timing"));
    else showProblem(answer, response.headers.get("X-Request-ID"));
  } catch (error) {
    if (mine !== sending || error.name === "AbortError") return;
    const plain = "The service could not be reached, or it closed the connection.";
    showFailure(plain, "If this happens again, the file may be too large.");
  } finally {
    if (mine === sending) at("result").setAttribute("aria-busy", "false");
  }
}

function showRanking(answer, timing) {
  const { predictions, image } = answer;
  const best = predictions[0];
  if (best) say(`Most likely ${best.label}, ${percent(best.score)}.`, "heard"); // the bars show the same
  else say("No class scored high enough.");
  at("ranking").replaceChildren(...predictions.map(row));
  const total = /total;dur=([\d.]+)/.exec(timing ?? "")?.[1];
  const took = total ? `, answered in ${Math.round(Number(total))} ms` : "";
  at("timing").textContent = `${image.format}, ${image.width} × ${image.height} pixels${took}`;
}

function row(prediction) {
  const item = document.createElement("li");
  const label = element("span", prediction.label, "label");
  if (prediction.wnid) label.append(" ", element("small", prediction.wnid));
  const bar = element("span", "", "bar");
  bar.setAttribute("aria-hidden", "true"); // the score beside it says the same
  const filled = bar.appendChild(document.createElement("i"));
  filled.style.width = `${prediction.score * 100}%`;
  item.append(label, element("span", percent(prediction.score), "score"), bar);
  return item;
}

function showProblem(problem, requestId) {
  const slug = String(problem.type ?? "").split("/").pop();
  const reference = problem.status >= 500 && requestId ? ` Reference: ${requestId}.` : "";
  const plain = PLAIN[slug] ?? problem.title ?? "The image could not be classified.";
  showFailure(plain, `${sentence(problem.detail ?? problem.title ?? "the service says no more")}${reference}`);
}

function showFailure(plain, detail) {
  say("");
  at("ranking").replaceChildren();
  at("timing").textContent = "";
  at("problem").replaceChildren(element("strong", plain), element("small", detail));
}

// ---- the model ----

async function showModels() {
  try {
    const response = await fetch("models");
    const answer = await documentOf(response);
    if (response.ok) {
      at("models").replaceChildren(...answer.models.map(about));
      return;
    }
    at("models").replaceChildren(element("p", sentence(answer.detail ?? answer.title ?? "the service is not ready"), "status"));
    if (response.status === 401) return; // it will not know this page better in a moment
  } catch {
    at("models").replaceChildren(element("p", "The service could not be reached.", "status"));
  }
  setTimeout(showModels, RETRY_MS);
}

function about(model) {
  const article = document.createElement("article");
  if (model.description) article.append(element("p", model.description));
  const facts = document.createElement("dl");
  const add = (name, value) => {
    const pair = document.createElement("div");
    pair.append(element("dt", name), element("dd", value));
    facts.append(pair);
  };
  add("Name", model.name);
  add("Architecture", `${model.variant}, ${(model.parameters / 1e6).toFixed(1)} million parameters`);
  for (const [name, value] of Object.entries(model.accuracy)) add(accuracyName(name), `${Number(value).toFixed(1)} %`);
  add("Runs on", `${model.device.value}, ${model.dtype.value}`);
  if (model.licence) add("Licence", model.licence);
  const classes = document.createElement("details");
  const names = model.labels.map((each) => each.label).join(", ");
  classes.append(element("summary", `The ${model.labels.length} classes it knows`), element("p", names));
  article.append(facts, classes);
  return article;
}

function accuracyName(key) {
  const known = { top1: "Accuracy, best guess right", top5: "Accuracy, among the best five" };
  return known[key] ?? `Accuracy, ${key.replaceAll("_", " ")}`;
}

// ---- where images come from ----

at("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) classify(file);
  event.target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("dragover", (event) => {
  event.preventDefault(); // else the browser leaves the page for the image
  at("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) classify(file);
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) classify(file);
});

showModels();
