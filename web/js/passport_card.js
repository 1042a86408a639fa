/** The passport card: what the file chosen in Load SUR Adapter says about itself. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { words } from "./words.js";

const HEIGHT = 150; // fixed, so that an answer never changes the size of a node, and so the workflow
const ADAPTER_FILE = /\.(safetensors|pt)$/i;
const HASH_DIGITS = 10;
const cards = new WeakMap();

/** The card of a node, if it has one. */
export function cardOf(node) {
  return cards.get(node);
}

export class PassportCard {
  /** What the server said about the file that is chosen now, or null. */
  passport = null;
  #node;
  #file;
  #root = element("div", "sur-passport");
  #shown = null;
  #asked = 0;

  static addTo(node) {
    const file = node.widgets?.find((widget) => widget.name === "adapter_name");
    if (file && typeof node.addDOMWidget === "function") cards.set(node, new PassportCard(node, file));
  }

  constructor(node, file) {
    this.#node = node;
    this.#file = file;
    loadStyle();
    leaveMouseToCanvas(this.#root);
    const widget = node.addDOMWidget("passport_card", "sur_passport", this.#root, {
      serialize: false, // out of the prompt
      getMinHeight: () => HEIGHT,
    });
    widget.serialize = false; // out of the workflow's file
    const [width, height] = node.computeSize();
    node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
    const refresh = () => this.refresh();
    after(file, "callback", refresh);
    after(node, "onConfigure", refresh);
    after(node, "onConnectionsChange", refresh);
    queueMicrotask(refresh); // by then a node that is being loaded or pasted has its values
  }

  /** Ask again. The last question counts: an answer to an earlier one is dropped. */
  async refresh() {
    const asked = ++this.#asked;
    const name = this.#file.value;
    if (name !== this.#shown) this.passport = null;
    this.#shown = name;
    const say = await words();
    if (asked !== this.#asked) return;
    const known = this.#withoutAsking(name);
    if (known) return this.#show(known, [line(say(known))]);
    if (!this.passport) this.#show("reading", [line(say("reading"))]);
    const answer = await ask(name);
    if (asked !== this.#asked) return;
    if (answer.missing) return this.#show("missing", [line(say("missing"))]);
    if (answer.failed) return this.#show("failed", [line(say("failed"))]);
    if (answer.error) return this.#show("error", [line(say("error"), "title"), line(answer.error)]);
    this.passport = answer;
    this.#show("ok", facts(answer, say));
  }

  #withoutAsking(name) {
    const input = this.#node.inputs?.find((slot) => slot.widget?.name === this.#file.name);
    if (input?.link != null) return "wired";
    if (typeof name !== "string" || !ADAPTER_FILE.test(name)) return "none";
    const { values } = this.#file.options;
    return Array.isArray(values) && !values.includes(name) ? "missing" : "";
  }

  #show(state, content) {
    if (state !== "ok") this.passport = null;
    this.#root.dataset.state = state;
    this.#root.replaceChildren(...content);
    this.#node.setDirtyCanvas?.(true, true); // ticks on sliders follow
  }
}

async function ask(name) {
  try {
    const answer = await api.fetchApi(`/sur_adapter/passport?name=${encodeURIComponent(name)}`);
    if (answer.status === 404) return { missing: true };
    return answer.ok ? await answer.json() : { failed: true };
  } catch {
    return { failed: true };
  }
}

function facts(card, say) {
  const number = new Intl.NumberFormat(say.language);
  const share = new Intl.NumberFormat(say.language, { maximumSignificantDigits: 6 }); // the paper's eta is 1e-5
  const known = (...parts) => parts.filter(Boolean).join(say("comma")) || say("unknown");
  const family = say(card.family || "other_family", { encoders: card.encoders.join(" + ") });
  const llm = known(card.llm, card.llm_layer != null && say("layer", { layer: card.llm_layer }));
  const training = known(
    card.steps != null && say("steps", { steps: number.format(card.steps) }),
    card.eta != null && say("eta", { eta: share.format(card.eta) }),
    card.merged_from && say("merged_from", { count: card.merged_from }),
  );
  const hash = element("span", "hash", card.sha256.slice(0, HASH_DIGITS));
  hash.title = `sha256 ${card.sha256}`;
  const size = element("span", "", say("size", { size: number.format(+(card.bytes / 2 ** 20).toFixed(1)) }));
  return [
    line(say("base", { family, width: card.width }), "title"),
    row(say("llm"), element("span", "", llm)),
    row(say("training"), element("span", "", training)),
    row(say("file"), size, element("span", "", say("comma")), hash),
    ...card.warnings.map(({ code, model }) => line(say(code, { model }), "warning")),
  ];
}

function row(name, ...values) {
  const made = element("div", "row");
  const value = element("span", "value");
  value.append(...values);
  made.append(element("span", "name", name), value);
  return made;
}

function line(text, kind = "line") {
  return element("div", kind, text);
}

/** Texts come out of files, so they are only ever set as text. */
function element(tag, kind, text = "") {
  const made = document.createElement(tag);
  made.className = kind;
  made.textContent = text;
  return made;
}

/** Call `then` after the function `name` of `object`, whoever has put it there. */
function after(object, name, then) {
  const before = object[name];
  object[name] = function (...values) {
    const result = before?.apply(this, values);
    then();
    return result;
  };
}

/** Zooming and panning work over the card as over the rest of the node. */
function leaveMouseToCanvas(root) {
  root.addEventListener("wheel", (event) => {
    if (root.scrollHeight > root.clientHeight && !event.ctrlKey) return event.stopPropagation();
    event.preventDefault();
    app.canvas.processMouseWheel?.(event);
  });
  const middle = { pointerdown: "processMouseDown", pointermove: "processMouseMove", pointerup: "processMouseUp" };
  for (const [type, method] of Object.entries(middle)) {
    root.addEventListener(type, (event) => {
      if (event.button === 1 || event.buttons & 4) app.canvas[method]?.(event);
    });
  }
}

function loadStyle() {
  const address = new URL("./passport_card.css", import.meta.url).href;
  if (document.querySelector(`link[href="${address}"]`)) return;
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = address;
  document.head.append(style);
}
