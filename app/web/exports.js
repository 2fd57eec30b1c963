// The results of all images as one file: CSV (RFC 4180) for spreadsheets, JSON for programs. Knows items, no elements.

const FORMULA = /^[=+\-@\t\r\n\uFF0B\uFF0D\uFF1D\uFF20]/; // what a spreadsheet may take for something to work out

function cell(value) {
  if (value === null || value === undefined) return "";
  let text = String(value);
  if (typeof value !== "number" && FORMULA.test(text)) text = `'${text}`; // a file's name is whatever somebody called it
  // Quoted also where only some spreadsheets see a border: at a semicolon or a tab.
  return /[",;\t\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const problemOf = ({ failure, state }) => failure?.document ?? { title: failure?.plain ?? state, detail: failure?.detail ?? "" };

// One row an image, one pair of columns a place of the ranking.
export function csv(items) {
  const places = Math.max(0, ...items.map((item) => item.answer?.predictions.length ?? 0));
  const ranks = Array.from({ length: places }, (_, i) => [`label_${i + 1}`, `score_${i + 1}`, `index_${i + 1}`]).flat();
  const rows = [["file", "status", ...ranks, "width", "height", "format", "model", "digest", "problem"]];
  for (const item of items) {
    const { answer } = item;
    const ranked = Array.from({ length: places }, (_, i) => answer?.predictions[i])
      .flatMap((found) => [found?.label, found?.score, found?.index]);
    const problem = answer ? null : `${problemOf(item).title}: ${problemOf(item).detail ?? ""}`;
    rows.push([item.name, answer ? 200 : item.failure?.status || item.state, ...ranked, answer?.image.width, answer?.image.height,
      answer?.image.format, answer?.model.variant, answer?.model.digest, problem]);
  }
  const text = rows.map((row) => row.map(cell).join(",")).join("\r\n");
  return `\uFEFF${text}\r\n`; // without the mark spreadsheets take UTF-8 for something else
}

// As POST /classify/batch answers, with each image's own facts beside it.
export function json(items) {
  const results = items.map((item, index) => {
    const { answer } = item;
    const common = { index, filename: item.name };
    if (answer) return { ...common, status: 200, predictions: answer.predictions, image: answer.image, model: answer.model };
    return { ...common, status: item.failure?.status || null, problem: problemOf(item) };
  });
  return `${JSON.stringify({ results }, null, 2)}\n`;
}
