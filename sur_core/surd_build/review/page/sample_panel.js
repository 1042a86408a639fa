/** One sample, large: its image, prompts, scores and what is known of it. */

const TEXTS = ["simple", "complex"];
const LABELS = {
  width: "Size",
  format: "Format",
  metadata: "Prompt from",
  negative: "Negative prompt",
  license: "License",
  origin: "Origin",
  rating: "Rating",
  nsfw: "NSFW",
};

const $ = (id) => document.getElementById(id);

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

/** Events: "edit" when a text was changed (detail: {sample, name, text}; the sample as editing began). */
export class SamplePanel extends EventTarget {
  #sample = null;
  #shown = ""; // the image's sample
  #editing = "";
  #edited = null; // the sample as it was when editing began
  #rested = []; // who waits for the end of editing

  constructor() {
    super();
    for (const name of TEXTS) {
      $(name).addEventListener("mousedown", () => this.edit(name));
      $(name).addEventListener("blur", () => this.endEdit(true));
      $(name).addEventListener("keydown", (event) => this.#onKey(event));
    }
    $("image").addEventListener("load", () => ($("image").hidden = false));
    $("image").addEventListener("error", () => this.#explain());
  }

  get sample() {
    return this.#sample;
  }

  get isEditing() {
    return this.#editing !== "";
  }

  /** Resolves when no text is being edited. */
  rest() {
    return this.isEditing ? new Promise((resolve) => this.#rested.push(resolve)) : Promise.resolve();
  }

  /** Show a sample, or null while it is on its way; `waits` if a decision about it is on its way. */
  show(sample, waits = false) {
    if (this.isEditing && sample?.id !== this.#sample?.id) this.endEdit(true);
    this.#sample = sample;
    $("panel").classList.toggle("coming", !sample);
    $("name").textContent = sample?.name ?? "";
    this.#showImage();
    if (!sample) return this.#empty();
    for (const name of TEXTS) if (this.#editing !== name) this.#showText(name);
    this.#showVerdict(waits);
    this.#showScores();
    this.#showFacts();
  }

  #empty() {
    for (const id of ["verdict", "scores", "facts"]) $(id).replaceChildren();
    for (const name of TEXTS) [$(name).value, $(`${name}-note`).textContent] = ["", ""];
  }

  retryImage() {
    if ($("image").hidden) {
      this.#shown = "";
      this.#showImage();
    }
  }

  edit(name) {
    if (!this.#sample || this.#editing === name) return;
    this.endEdit(true);
    this.#editing = name;
    this.#edited = this.#sample;
    const area = $(name);
    area.readOnly = false;
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
    $("editing").hidden = false;
  }

  endEdit(take) {
    const name = this.#editing;
    if (!name) return;
    this.#editing = "";
    const area = $(name);
    const text = area.value.trim();
    area.readOnly = true;
    area.blur();
    $("editing").hidden = true;
    if (take && text && text !== this.#edited[name].trim()) {
      this.dispatchEvent(new CustomEvent("edit", { detail: { sample: this.#edited, name, text } }));
    } else {
      this.#showText(name);
    }
    for (const resolve of this.#rested.splice(0)) resolve();
  }

  #onKey(event) {
    if (!this.isEditing) return;
    event.stopPropagation(); // what is written is no command
    if (event.key === "Escape" || (event.key === "Enter" && (event.ctrlKey || event.metaKey))) {
      event.preventDefault();
      this.endEdit(event.key === "Enter");
    }
  }

  #showText(name) {
    const { found } = this.#sample;
    const area = $(name);
    area.value = this.#sample[name];
    area.placeholder = name === "simple" ? "none yet: E to write one" : "";
    const edited = this.#sample[name] !== found[name];
    $(`${name}-note`).textContent = edited ? "edited" : "";
    $(`${name}-note`).title = edited ? `As it was: ${found[name] || "empty"}` : "";
  }

  #showImage() {
    const id = this.#sample?.id ?? "";
    if (id === this.#shown) return;
    this.#shown = id;
    $("no-image").hidden = true;
    const image = $("image");
    image.hidden = true;
    if (!id) return image.removeAttribute("src");
    image.alt = `The image of ${this.#sample.name}`;
    image.removeAttribute("src"); // else the same address is not tried again
    image.src = `/image/${id}`;
    if (image.complete && image.naturalWidth) image.hidden = false;
  }

  /** An img tells only that it failed; the server's answer says why. */
  async #explain() {
    const id = this.#shown;
    let words = "The image did not come.";
    try {
      const response = await fetch(`/image/${id}`);
      if (!response.ok) words = (await response.json()).error;
    } catch {
      words = "The image comes when the server is back.";
    }
    if (id !== this.#shown) return;
    $("no-image").textContent = words;
    $("no-image").hidden = false;
  }

  #showVerdict(waits) {
    const { verdict, by, at, mine, disagree, left_out, scores } = this.#sample;
    const said = { keep: "✓ Kept", drop: "✕ Dropped" }[verdict] ?? "Undecided";
    const first = element("p", `said ${verdict || "open"}`, said);
    const note = waits ? "on its way to the disk …" : verdict ? `by ${by}, ${new Date(at).toLocaleString()}` : "";
    first.append(element("span", "note", note));
    const lines = [first];
    for (const word of this.#sample.lapsed) lines.push(element("p", "changed", lapsedWords(word)));
    if (disagree.length) lines.push(element("p", "disputed", `≠ Otherwise decided: ${disagree.join(", ")}`));
    if (verdict && mine && mine !== verdict) lines.push(element("p", "note", `Yours: ${mine}`));
    const judged = left_out || "simple_score" in scores;
    const word = left_out ? `Rule: left out, ${left_out}` : judged ? "Rule: taken" : "Rule: not asked yet";
    lines.push(element("p", left_out ? "rule out" : "rule", word));
    $("verdict").replaceChildren(...lines);
    $("keep").setAttribute("aria-pressed", verdict === "keep");
    $("drop").setAttribute("aria-pressed", verdict === "drop");
  }

  #showScores() {
    const { scores } = this.#sample;
    const lines = TEXTS.filter((name) => `${name}_score` in scores).map((name) => {
      const line = element("div", "score");
      const bar = element("div", "score-bar");
      const filled = element("div", `filled ${name}`);
      filled.style.width = `${100 * scores[`${name}_score`]}%`;
      bar.append(filled);
      const cosine = scores[`${name}_cosine`];
      const value = element("span", "value", scores[`${name}_score`].toFixed(3));
      line.append(element("span", "label", name), bar, value);
      line.append(element("span", "note", cosine === undefined ? "" : `cos ${cosine.toFixed(3)}`));
      return line;
    });
    if (lines.length) lines.unshift(element("h2", "", "CLIP: which prompt fits better"));
    const { found } = this.#sample;
    if (!lines.length && TEXTS.some((name) => this.#sample[name] !== found[name])) {
      lines.push(element("p", "note", "An edited prompt is scored when clean runs again."));
    }
    $("scores").replaceChildren(...lines);
  }

  #showFacts() {
    const { facts } = this.#sample;
    const told = Object.keys(LABELS).filter((key) => key in facts);
    const pairs = told.map((key) => [LABELS[key], this.#fact(key)]);
    for (const [key, value] of Object.entries(facts.parameters ?? {})) pairs.push([key, String(value)]);
    $("facts").replaceChildren(
      ...pairs.flatMap(([label, value]) => [element("dt", "", label), element("dd", "", value)]),
    );
  }

  #fact(key) {
    const { facts } = this.#sample;
    if (key !== "width") return String(facts[key]);
    const size = `${facts.width} × ${facts.height}`;
    return facts.bytes ? `${size}, ${Math.ceil(facts.bytes / 1024).toLocaleString()} KiB` : size;
  }
}

function lapsedWords({ by, at, what, value }) {
  const said = what === "verdict" ? "kept it" : `edited the ${what} prompt: “${value}”`;
  return `↻ The text has changed. Before, ${by} had ${said} (${new Date(at).toLocaleString()})`;
}
