// Numbers as people read them. Knows no element of the page.

export const MINUS = "\u2212"; // as wide as a plus, unlike a hyphen

export function percent(score) {
  if (score > 0 && score < 0.001) return "< 0.1 %";
  return `${(score * 100).toFixed(1)} %`;
}

export function bytes(count) {
  return count < 1e6 ? `${Math.max(1, Math.round(count / 1e3))} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

export function milliseconds(ms) {
  if (ms >= 1e4) return `${(ms / 1e3).toFixed(1)} s`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

// With its sign always, so that columns of them can be compared; no minus before a rounded zero.
export function signed(value, digits = 3) {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return `${value < 0 ? MINUS : "+"}${text}`;
}

export function plain(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? MINUS + text : text;
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1).replace(/\.?$/, ".");
}
