/** The pictures of one item, and looking at them closely. */

const SMALL = 128; // pixels; smaller pictures are enlarged with hard edges
const PAN = 90;

class Stage {
  #element;
  #study;
  #showing = 0;
  ready = false; // whether all pictures are there to be judged

  constructor(element, study) {
    this.#element = element;
    this.#study = study;
  }

  get zoomed() {
    return this.#element.classList.contains("zoomed");
  }

  /** Show an item; true once every picture can be seen, false if one cannot be, undefined if another came first. */
  async show(item) {
    const number = ++this.#showing;
    this.ready = false;
    this.zoom(false);
    const several = item.pictures.length > 1;
    const figures = item.pictures.map((id, index) => this.#figure(id, several ? "AB"[index] : ""));
    this.#element.replaceChildren(...figures);
    const seen = await Promise.all(figures.map((figure) => this.#seen(figure)));
    if (number !== this.#showing) return undefined;
    this.ready = seen.every(Boolean);
    return this.ready;
  }

  /** Ask for pictures that come next, where they lie beside the page. */
  prefetch(item) {
    if (this.#study.folder) for (const id of item?.pictures ?? []) new Image().src = this.#address(id);
  }

  zoom(on) {
    this.#element.classList.toggle("zoomed", on);
    for (const box of this.#boxes()) {
      box.scrollTo((box.scrollWidth - box.clientWidth) / 2, (box.scrollHeight - box.clientHeight) / 2);
    }
  }

  pan(right, down) {
    for (const box of this.#boxes()) box.scrollBy(PAN * right, PAN * down);
  }

  #boxes() {
    return this.#element.querySelectorAll(".box");
  }

  #figure(id, letter) {
    const figure = made("figure");
    const box = made("div", "box");
    const image = made("img");
    image.alt = letter ? `Picture ${letter}` : "The picture in question";
    image.src = this.#address(id);
    box.append(image);
    // Both show the same place of their pictures.
    box.addEventListener("scroll", () => {
      for (const other of this.#boxes()) if (other !== box) other.scrollTo(box.scrollLeft, box.scrollTop);
    });
    figure.append(box);
    if (letter) figure.append(made("figcaption", "", letter));
    return figure;
  }

  async #seen(figure) {
    const image = figure.querySelector("img");
    try {
      await image.decode();
    } catch {
      const name = this.#study.folder ? `: ${decodeURI(image.getAttribute("src"))}` : "";
      figure.replaceChildren(made("p", "missing", `This picture is missing or damaged${name}`));
      return false;
    }
    image.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) <= SMALL);
    return true;
  }

  #address(id) {
    const { folder, suffix, mime } = this.#study;
    if (folder) return encodeURI(`${folder}/${id}${suffix}`);
    return `data:${mime};base64,${document.getElementById(`p-${id}`)?.textContent.trim() ?? ""}`;
  }
}

function made(tag, name = "", text = "") {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return element;
}
