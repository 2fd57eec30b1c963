// Puts text or a picture into the browser's downloads.

import { element } from "./elements.js";

const KEPT_MS = 60_000; // some browsers read the address only after the click has returned

export function download(content, name, type) {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const url = URL.createObjectURL(blob);
  const link = element("a", { href: url, download: name });
  document.body.append(link); // Firefox follows only what is in the page
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), KEPT_MS);
}

// The name of a file without folder and ending, to build another name on.
export function stem(name) {
  return name.split("/").pop().replace(/\.[a-z0-9]{1,5}$/i, "") || "image";
}
