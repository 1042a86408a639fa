/** Decisions on their way to the server: kept in the browser until the server has them on its disk.
 *
 * Each has a mark of its own, so that one whose answer was lost can be sent again and counts once.
 */

import { Gone } from "./server.js";

const RETRY_MS = 3_000;

/** Events: "change" (something waits, or waits no longer), "taken" (detail: {decision, answer}),
 * "refused" (detail: {decision, words}), "trouble" (detail: words; it is tried again).
 */
export class Sender extends EventTarget {
  #server;
  #prefix;
  #queue = [];
  #unstored = new Set(); // marks
  #sending = null;
  #retry = null;
  #last = 0;

  /** `dataset`: names what the decisions are about; another page on this port is not to send them. */
  constructor(server, dataset) {
    super();
    this.#server = server;
    this.#prefix = `surd-review:${dataset}:`;
    this.#queue = this.#stored();
    server.addEventListener("back", () => this.send());
  }

  get waiting() {
    return this.#queue.length;
  }

  /** Whether something waits that would be gone with the page. */
  get loose() {
    return this.#queue.some((decision) => this.#unstored.has(decision.mark));
  }

  isWaiting(id) {
    return this.#queue.some((decision) => decision.id === id);
  }

  /** Returns the mark that the decision gets. */
  add(decision) {
    const bytes = crypto.getRandomValues(new Uint8Array(12));
    const mark = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const sent = { ...decision, mark };
    this.#last = Math.max(Date.now(), this.#last + 1); // the order in which they were made
    this.#queue.push(sent);
    this.#store(mark, JSON.stringify({ order: this.#last, decision: sent }));
    this.dispatchEvent(new Event("change"));
    this.send();
    return mark;
  }

  /** Send what waits, one after the other; resolves when all is sent, or cannot be for now. */
  send() {
    this.#sending ??= this.#sendAll().finally(() => (this.#sending = null));
    return this.#sending;
  }

  async #sendAll() {
    clearTimeout(this.#retry);
    if (this.#server.gone) return;
    try {
      while (this.#queue.length) await this.#sendFirst();
    } catch (error) {
      if (!(error instanceof Gone)) {
        this.dispatchEvent(new CustomEvent("trouble", { detail: error.message }));
        this.#retry = setTimeout(() => this.send(), RETRY_MS);
      }
    }
  }

  async #sendFirst() {
    const [decision] = this.#queue;
    let event;
    try {
      const answer = await this.#server.post("/api/decisions", decision);
      event = new CustomEvent("taken", { detail: { decision, answer } });
    } catch (error) {
      if (!(error.status >= 400 && error.status < 500)) throw error; // it may still be taken later
      event = new CustomEvent("refused", { detail: { decision, words: error.message } });
    }
    this.#queue.shift();
    this.#store(decision.mark, null);
    this.dispatchEvent(event);
    this.dispatchEvent(new Event("change"));
  }

  /** Keep, or with null forget, what waits. Storage may be switched off or full: then the page alone has it. */
  #store(mark, value) {
    try {
      if (value === null) localStorage.removeItem(this.#prefix + mark);
      else localStorage.setItem(this.#prefix + mark, value);
    } catch {
      if (value !== null) this.#unstored.add(mark);
    }
  }

  /** What an earlier page could not send. */
  #stored() {
    const found = [];
    try {
      for (let index = 0; index < localStorage.length; index++) {
        const key = localStorage.key(index);
        if (key.startsWith(this.#prefix)) found.push(JSON.parse(localStorage.getItem(key)));
      }
    } catch {
      return [];
    }
    return found.sort((a, b) => a.order - b.order).map((entry) => entry.decision);
  }
}
