/** A row of the list, or a tile of the grid: picture, prompt, name and what was decided. */

import { element } from "./sample_panel.js";

const MARKS = { keep: "✓", drop: "✕" };

export function emptyRow() {
  const row = element("div", "row");
  row.setAttribute("role", "option");
  const image = element("img");
  image.alt = "";
  image.addEventListener("error", () => image.classList.add("missing"));
  image.addEventListener("load", () => image.classList.remove("missing", "coming"));
  const words = element("div", "words");
  words.append(element("p", "text"), element("p", "of"));
  row.append(image, words, element("span", "mark"));
  return row;
}

/** Write a row of the list into its node; its picture is asked for only once scrolling has `settled`. */
export function fillRow(node, row, index, settled) {
  node.dataset.index = index;
  node.id = `row-${index}`;
  const image = node.querySelector("img");
  const wanted = row && settled ? `/thumbnail/${row.id}` : null;
  if (image.dataset.id !== (row?.id ?? "")) {
    image.removeAttribute("src");
    image.dataset.id = row?.id ?? "";
    image.className = "coming";
  }
  if (wanted && !image.getAttribute("src")) image.src = wanted;
  node.querySelector(".text").textContent = row?.text ?? "";
  node.querySelector(".of").textContent = row ? shortName(row) : "";
  const mark = node.querySelector(".mark");
  mark.className = `mark ${row?.verdict || (row?.ruled_out ? "out" : "open")}`;
  mark.textContent = row ? signs(row) : "";
  node.setAttribute("aria-label", row ? `${row.text}. ${spoken(row)}` : "on its way");
}

function shortName(row) {
  const name = row.name.slice(row.name.lastIndexOf("/") + 1);
  return row.margin === null ? name : `${row.margin < 0 ? "−" : "+"}${Math.abs(row.margin).toFixed(2)}  ${name}`;
}

function signs(row) {
  const sign = MARKS[row.verdict] ?? (row.ruled_out ? "⊘" : "");
  return sign + (row.changed ? "↻" : "") + (row.edited ? "✎" : "") + (row.disputed ? "≠" : "");
}

function spoken(row) {
  const said = { keep: "kept", drop: "dropped" }[row.verdict] ?? "undecided";
  const more = [row.ruled_out && "left out by the rule", row.changed && "the text has changed"];
  more.push(row.edited && "edited", row.disputed && "people disagree");
  return [said, ...more.filter(Boolean)].join(", ");
}
