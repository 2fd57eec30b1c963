// Where images come from: the three buttons, files and folders that are dropped, what is pasted. Gives them on as
// [{file, name}], in order; knows nothing of what becomes of them.

import { at, say } from "./elements.js";
import { count } from "./numbers.js";

// Of a folder only what looks like an image is taken; a file that somebody chose by itself is sent whatever it is.
const IMAGE = /\.(jpe?g|jfif|png|webp|gif|bmp|dib|tiff?|avif|hei[cf]|apng)$/i;
const looksLikeImage = (file) => file.type.startsWith("image/") || IMAGE.test(file.name);
const byName = new Intl.Collator(undefined, { numeric: true }).compare;

export function connectIntake(take) {
  const give = (files, left = 0) => {
    if (left) say(`${count(left, "file")} in the folder left out: no images.`);
    at("left-out").textContent = left ? `${count(left, "file")} left out: no images.` : "";
    if (files.length) take(files);
  };
  for (const id of ["file", "camera"]) {
    at(id).addEventListener("change", ({ target }) => {
      give([...target.files].map((file) => ({ file, name: file.name })));
      target.value = ""; // so that the same file can be chosen again
    });
  }
  at("folder").addEventListener("change", ({ target }) => {
    const found = [...target.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
    const images = found.filter(({ file }) => looksLikeImage(file)).sort((a, b) => byName(a.name, b.name));
    give(images, found.length - images.length);
    target.value = "";
  });
  at("drop").addEventListener("click", (event) => {
    if (!event.target.closest(".button")) at("file").click();
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return; // text, into a field
    event.preventDefault();
    give(files.map((file) => ({ file, name: file.name || "pasted" })));
  });
  connectDrop(give);
}

// Text is dragged as well, into the field of the key: that is left to the browser.
const carriesFiles = (event) => event.dataTransfer.types.includes("Files");

function connectDrop(give) {
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault(); // else the browser leaves the page for the image
    at("drop").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) at("drop").classList.remove("over");
  });
  document.addEventListener("drop", async (event) => {
    at("drop").classList.remove("over");
    if (!carriesFiles(event)) return;
    event.preventDefault();
    // Entries and files must both be asked for now: once this listener has returned, the transfer is empty.
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const loose = [...event.dataTransfer.files].map((file) => ({ file, name: file.name }));
    if (!entries.some((entry) => entry.isDirectory)) {
      give(loose);
      return;
    }
    const found = (await Promise.all(entries.map((entry) => filesOf(entry, true)))).flat();
    const images = found.filter(({ file, chosen }) => chosen || looksLikeImage(file));
    give(images, found.length - images.length);
  });
}

// Every file at or below an entry, in the order of names; `chosen` where the entry itself was dropped.
async function filesOf(entry, chosen) {
  if (entry.isFile) {
    const file = await new Promise((resolve) => { entry.file(resolve, () => resolve(null)); });
    return file ? [{ file, name: chosen ? file.name : entry.fullPath.slice(1), chosen }] : [];
  }
  const reader = entry.createReader();
  const inside = [];
  for (;;) {
    const some = await new Promise((resolve) => { reader.readEntries(resolve, () => resolve([])); });
    if (!some.length) break; // a browser gives a hundred at a time
    inside.push(...some);
  }
  inside.sort((a, b) => byName(a.name, b.name));
  const found = [];
  for (const each of inside) found.push(...(await filesOf(each, false)));
  return found;
}
