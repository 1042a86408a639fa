/** One person's answers: in the browser's storage at once, taken back one by one, saved as a file. */

const FILE_VERSION = 1;

/** Events: "change" (answers are others than before), "elsewhere" (another tab of this page has changed them),
 * "unkept" (the browser does not keep them).
 */
class Answers extends EventTarget {
  #study;
  #prefix;
  #state = null;
  #saved = 0; // the revision that the last file has
  kept = true; // whether the browser keeps what is answered

  constructor(study) {
    super();
    this.#study = study;
    this.#prefix = `sur-marks:${study.study}`;
    window.addEventListener("storage", (event) => this.#fromElsewhere(event));
  }

  /** Who answered here last, or "". */
  get lastMarker() {
    return this.#read(this.#prefix)?.marker ?? "";
  }

  get marker() {
    return this.#state.marker;
  }

  get count() {
    return Object.keys(this.#state.answers).length;
  }

  get at() {
    return this.#state.at;
  }

  set at(index) {
    this.#state.at = index;
    this.#keep();
  }

  get canUndo() {
    return this.#state.history.length > 0;
  }

  /** Whether there are answers that would be gone with the page. */
  get loose() {
    return !this.kept && this.#state !== null && this.#state.revision !== this.#saved;
  }

  of(id) {
    return this.#state.answers[id];
  }

  /** Go on as this person, or begin. */
  begin(marker) {
    const found = this.#read(this.#key(marker));
    this.#state = found ?? { marker, session: random(16), revision: 0, answers: {}, history: [], at: 0 };
    this.#keep();
  }

  /** Go on from the text of a saved file. Throws an Error in words. */
  load(text) {
    const found = parsed(text);
    const whole = ["marker", "session"].every((name) => typeof found?.[name] === "string" && found[name]);
    if (!whole || found.kind !== this.#study.answers || !Number.isInteger(found.revision)) {
      throw new Error("This is no file that such a page has saved.");
    }
    if (found.study !== this.#study.study) throw new Error("This file belongs to another page.");
    const here = this.#read(this.#key(found.marker));
    if (here && here.session !== found.session) {
      throw new Error(`${found.marker} has begun anew in this browser. Both cannot be taken together.`);
    }
    const { marker, session, revision } = found;
    const newer = !here || here.revision < revision;
    this.#state = newer ? { marker, session, revision, answers: known(found, this.#study), history: [], at: 0 } : here;
    this.#keep();
  }

  give(id, value) {
    this.#state.history.push([id, this.of(id) ?? null]);
    this.#set(id, value);
  }

  /** Take the last answer back; the id it was of. */
  undo() {
    const [id, before] = this.#state.history.pop();
    this.#set(id, before);
    return id;
  }

  /** {name, text} of the file to save. */
  file() {
    const { marker, session, revision } = this.#state;
    const given = this.#study.items.filter(({ id }) => this.of(id)).map(({ id }) => [id, this.of(id)]);
    const content = {
      kind: this.#study.answers,
      version: FILE_VERSION,
      study: this.#study.study,
      marker,
      session,
      revision,
      items: this.#study.items.length,
      answers: Object.fromEntries(given),
    };
    this.#saved = revision;
    const name = marker.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").toLowerCase() || "somebody";
    const file = `${this.#study.file}-${name}-${this.#study.study.slice(0, 6)}.json`;
    return { name: file, text: `${JSON.stringify(content, null, 1)}\n` };
  }

  #set(id, value) {
    if (value === null) delete this.#state.answers[id];
    else this.#state.answers[id] = value;
    this.#state.revision++;
    this.#keep();
    this.dispatchEvent(new Event("change"));
  }

  #key(marker) {
    return `${this.#prefix}:${marker}`;
  }

  /** Storage may be switched off or full: then the page alone has the answers. */
  #keep() {
    try {
      localStorage.setItem(this.#key(this.marker), JSON.stringify(this.#state));
      localStorage.setItem(this.#prefix, JSON.stringify({ marker: this.marker }));
      this.kept = true;
    } catch {
      this.kept = false;
      this.dispatchEvent(new Event("unkept"));
    }
  }

  #read(key) {
    try {
      return parsed(localStorage.getItem(key));
    } catch {
      return null;
    }
  }

  #fromElsewhere(event) {
    if (!this.#state || event.key !== this.#key(this.marker)) return;
    const theirs = parsed(event.newValue);
    if (!theirs || theirs.revision === this.#state.revision) return;
    this.#state = theirs;
    this.dispatchEvent(new Event("elsewhere"));
  }
}

function parsed(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

/** The answers of a file that are answers to this page. */
function known(found, study) {
  const values = new Set(study.choices.map(({ value }) => value));
  const ids = study.items.map(({ id }) => id).filter((id) => values.has(found.answers?.[id]));
  return Object.fromEntries(ids.map((id) => [id, found.answers[id]]));
}

function random(bytes) {
  const found = crypto.getRandomValues(new Uint8Array(bytes));
  return [...found].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
