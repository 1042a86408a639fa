/** Requests to the review server, and whether it is there. */

const PATIENCE_MS = 20_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 5_000;
const TRUST_MS = 10_000;

/** The server has answered no. */
export class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

/** The server has not answered, or does not know this browser any more. */
export class Gone extends Error {}

/** Events: "gone" (detail: words), once when it goes; "back" once it answers again. */
export class Server extends EventTarget {
  gone = false;
  key = ""; // what the server is known by, once it has said so
  #heard = 0; // when it last answered

  async get(path, query = {}) {
    const text = new URLSearchParams(query).toString();
    return this.#ask(text ? `${path}?${text}` : path, {});
  }

  async post(path, value) {
    const headers = { "Content-Type": "application/json", "X-Surd-Review": "1" };
    return this.#ask(path, { method: "POST", headers, body: JSON.stringify(value) });
  }

  async #ask(path, options) {
    let response, value;
    try {
      if (Date.now() - this.#heard > TRUST_MS && !(await this.#isOurs())) throw new Error("another server");
      response = await fetch(path, { ...options, signal: AbortSignal.timeout(PATIENCE_MS) });
      value = await response.json();
    } catch {
      throw this.#lost("The review server does not answer.");
    }
    this.#heard = Date.now();
    if (response.status === 403) throw this.#lost(`The review server says: ${value.error}.`);
    if (!response.ok) throw new Refused(response.status, value.error);
    return value;
  }

  /** Any program can take the port once the server has ended. Only ours knows the key. */
  async #isOurs() {
    if (!this.key) return true;
    const nonce = crypto.randomUUID();
    const options = { credentials: "omit", signal: AbortSignal.timeout(PATIENCE_MS) };
    const { proof } = await (await fetch(`/api/proof?nonce=${nonce}`, options)).json();
    const algorithm = { name: "HMAC", hash: "SHA-256" };
    const key = await crypto.subtle.importKey("raw", bytes(this.key), algorithm, false, ["verify"]);
    const said = new TextEncoder().encode(`${location.port} ${nonce}`);
    return crypto.subtle.verify("HMAC", key, bytes(proof), said);
  }

  #lost(words) {
    if (!this.gone) {
      this.gone = true;
      this.dispatchEvent(new CustomEvent("gone", { detail: words }));
      this.#waitForIt();
    }
    return new Gone(words);
  }

  async #waitForIt() {
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
      await new Promise((resolve) => setTimeout(resolve, pause));
      try {
        if (!(await this.#isOurs())) continue;
        const response = await fetch("/api/state", { signal: AbortSignal.timeout(PATIENCE_MS) });
        if (!response.ok) continue;
      } catch {
        continue;
      }
      this.gone = false;
      this.dispatchEvent(new Event("back"));
      return;
    }
  }
}

function bytes(hexadecimal) {
  return Uint8Array.from(hexadecimal.match(/../g), (pair) => parseInt(pair, 16));
}
