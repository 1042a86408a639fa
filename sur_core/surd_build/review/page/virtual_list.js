/** A list of any length of which only the visible rows are in the page, and in memory only those around them. */

import { Gone, Refused } from "./server.js";

const WINDOW = 100; // rows asked for at once
const WINDOWS_KEPT = 40;
const OVERSCAN = 4; // lines beyond each edge
const REST_MS = 70; // scrolling that pauses so long has arrived

/** Rows of the server's list, in windows. Events: "rows" (some have come), "forgotten" (the list is unknown). */
export class Rows extends EventTarget {
  #server;
  #name = "";
  #windows = new Map();
  #asked = new Map();
  total = 0;

  constructor(server) {
    super();
    this.#server = server;
  }

  open(name, total) {
    this.#name = name;
    this.total = total;
    this.forget();
  }

  get name() {
    return this.#name;
  }

  forget() {
    this.#windows.clear();
    this.#asked.clear();
  }

  at(index) {
    return this.#windows.get(Math.floor(index / WINDOW))?.[index % WINDOW];
  }

  *loaded() {
    for (const rows of this.#windows.values()) yield* rows;
  }

  /** Ask for the windows of rows first..last that are not here; resolves when they are. */
  async need(first, last) {
    const wanted = [];
    for (let number = Math.floor(Math.max(first, 0) / WINDOW); number * WINDOW <= last; number++) {
      if (number * WINDOW < this.total && !this.#windows.has(number)) wanted.push(this.#load(number));
    }
    await Promise.all(wanted);
  }

  #load(number) {
    if (!this.#asked.has(number)) this.#asked.set(number, this.#fetch(number));
    return this.#asked.get(number);
  }

  async #fetch(number) {
    const list = this.#name;
    try {
      const { rows } = await this.#server.get("/api/rows", { list, start: number * WINDOW, count: WINDOW });
      if (list !== this.#name) return; // another one was opened meanwhile
      this.#windows.set(number, rows);
      if (this.#windows.size > WINDOWS_KEPT) this.#windows.delete(this.#windows.keys().next().value);
      this.dispatchEvent(new Event("rows"));
    } catch (error) {
      if (error instanceof Refused && error.status === 410) this.dispatchEvent(new Event("forgotten"));
      else if (!(error instanceof Gone)) throw error;
    } finally {
      if (list === this.#name) this.#asked.delete(number);
    }
  }
}

/** Draws `rows` into `element`, which scrolls. `make()` gives an empty node, `fill(node, row, index, settled)`
 * writes a row into it (`row` undefined while it is on its way; `settled` once scrolling has paused).
 */
export class VirtualList {
  #element;
  #rows;
  #make;
  #fill;
  #space;
  #nodes = new Map();
  #free = [];
  #line = { height: 1, width: 0 }; // of one row; width 0 is the whole list's
  #timer = null;
  #settled = true;

  constructor(element, rows, make, fill) {
    this.#element = element;
    this.#rows = rows;
    this.#make = make;
    this.#fill = fill;
    this.#space = document.createElement("div");
    this.#space.className = "space";
    this.#space.setAttribute("role", "presentation");
    element.append(this.#space);
    element.addEventListener("scroll", () => this.#scrolled());
    new ResizeObserver(() => this.draw()).observe(element);
    rows.addEventListener("rows", () => this.draw());
  }

  /** Rows of this height, side by side if they have a width. */
  setLine(height, width = 0) {
    this.#line = { height, width };
    this.draw();
  }

  get columns() {
    return this.#line.width ? Math.max(1, Math.floor(this.#element.clientWidth / this.#line.width)) : 1;
  }

  get linesVisible() {
    return Math.max(1, Math.floor(this.#element.clientHeight / this.#line.height));
  }

  node(index) {
    return this.#nodes.get(index);
  }

  /** Scroll as little as shows the row and one more line before and after it. */
  show(index) {
    this.#resize();
    const top = Math.floor(index / this.columns) * this.#line.height;
    const { scrollTop, clientHeight } = this.#element;
    const { height } = this.#line;
    const around = clientHeight >= 3 * height ? height : 0;
    if (top - around < scrollTop) this.#element.scrollTop = top - around;
    else if (top + height + around > scrollTop + clientHeight) {
      this.#element.scrollTop = top + height + around - clientHeight;
    }
    this.draw();
  }

  draw() {
    const { columns } = this;
    const { height } = this.#line;
    this.#resize();
    const top = Math.floor(this.#element.scrollTop / height);
    const bottom = Math.ceil((this.#element.scrollTop + this.#element.clientHeight) / height);
    const first = Math.max(0, top - OVERSCAN) * columns;
    const last = Math.min(this.#rows.total, (bottom + OVERSCAN) * columns) - 1;
    for (const [index, node] of this.#nodes) {
      if (index < first || index > last) {
        this.#nodes.delete(index);
        this.#free.push(node);
      }
    }
    for (let index = first; index <= last; index++) this.#drawRow(index, columns);
    for (const node of this.#free) node.remove();
    this.#free.length = 0;
    if (this.#settled && last >= first) this.#rows.need(first, last);
  }

  #resize() {
    this.#space.style.height = `${Math.ceil(this.#rows.total / this.columns) * this.#line.height}px`;
  }

  #drawRow(index, columns) {
    let node = this.#nodes.get(index);
    if (!node) {
      node = this.#free.pop() ?? this.#make();
      this.#nodes.set(index, node);
      if (!node.isConnected) this.#space.append(node);
    }
    const width = this.#element.clientWidth / columns;
    const [left, top] = [(index % columns) * width, Math.floor(index / columns) * this.#line.height];
    node.style.transform = `translate(${left}px, ${top}px)`;
    node.style.width = `${width}px`;
    node.style.height = `${this.#line.height}px`;
    node.setAttribute("aria-posinset", index + 1);
    node.setAttribute("aria-setsize", this.#rows.total);
    this.#fill(node, this.#rows.at(index), index, this.#settled);
  }

  #scrolled() {
    this.#settled = false;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#settled = true;
      this.draw();
    }, REST_MS);
    this.draw();
  }
}
