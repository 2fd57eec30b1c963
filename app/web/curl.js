// A request as a line for a shell, the same that the page sends. The key is only ever its placeholder.

const PLACEHOLDER = "YOUR_KEY";

// For sh: in single quotes nothing has a meaning but the quote itself.
export function shellQuoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

// curl reads `;` and `,` in the name of a part's file unless it is quoted, with backslashes as in the header (curl's -F).
function part(name) {
  const path = name.startsWith("-") ? `./${name}` : name; // a lone dash is standard input
  return `file=@${/[;,"\\]/.test(path) ? `"${path.replace(/["\\]/g, "\\$&")}"` : path}`;
}

export function curlLine(address, name, { key = false, accept = "", save = "" } = {}) {
  const words = ["curl"];
  if (key) words.push("-H", `Authorization: Bearer ${PLACEHOLDER}`);
  if (accept) words.push("-H", `Accept: ${accept}`);
  words.push("-F", part(name));
  if (save) words.push("-o", save.startsWith("-") ? `./${save}` : save);
  words.push(address);
  return words.map(shellQuoted).join(" ");
}
