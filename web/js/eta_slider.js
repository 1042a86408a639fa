/** Eta sliders: a tick at the eta the adapter was trained with, and a double-click that goes there.
 *
 * Both use what LiteGraph's own slider offers, its `marker` and the pointer's `onDoubleClick`. A frontend that
 * has them no longer, or draws its nodes with Vue, shows a plain slider.
 */

import { adapterLoaders, hasAdapterInput } from "./graph.js";
import { cardOf } from "./passport_card.js";

const TICK_COLOR = "#e8a33d"; // seen on the slider's bar and its ground, in dark and light palettes

let pressed = null; // the slider that was pressed last

export function equipEtaSliders(node) {
  if (!hasAdapterInput(node)) return;
  for (const widget of node.widgets ?? []) {
    if (widget.type === "slider" && /^eta(_|$)/.test(widget.name)) equip(node, widget);
  }
}

function equip(node, widget) {
  const initial = widget.value;
  widget.options.marker_color = TICK_COLOR;
  // Asked for at every drawing, so it follows each change of wires and files without being told of any.
  Object.defineProperty(widget, "marker", { configurable: true, get: () => trainedEta(node) });
  const before = widget.onPointerDown;
  widget.onPointerDown = function (pointer, owner, canvas) {
    if (before?.call(this, pointer, owner, canvas)) return true;
    // The pointer knows time and place of a double-click, not that both clicks must be on one slider.
    if (pressed === this) {
      pointer.onDoubleClick = (event) => setValue(this, trainedEta(node) ?? initial, owner, canvas, event);
    }
    pressed = this;
    return false; // clicking and dragging go on as ever
  };
}

/** The eta of training of what is wired to the node; undefined if that is not known, or adapters differ. */
function trainedEta(node) {
  try {
    const etas = new Set(adapterLoaders(node).map((loader) => loader && cardOf(loader)?.passport?.eta));
    const [eta] = etas;
    return etas.size === 1 && typeof eta === "number" ? eta : undefined;
  } catch {
    return undefined; // a graph of another shape than we know; a tick is not worth a broken drawing
  }
}

function setValue(widget, value, node, canvas, event) {
  const old = widget.value;
  widget.value = value;
  widget.callback?.(value, canvas, node, canvas.graph_mouse, event);
  widget.value = value; // the callback rounds to the slider's step, but the training's eta is what it is
  node.onWidgetChanged?.(widget.name, value, old, widget);
  node.setDirtyCanvas?.(true, true);
}
