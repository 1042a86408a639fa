/** What this pack adds to ComfyUI's frontend: the passport card on Load SUR Adapter, and eta sliders that know
 * the eta the adapter was trained with. Without it every node works as before, on plain widgets.
 */

import { app } from "../../../scripts/app.js";
import { allNodes } from "./graph.js";
import { PassportCard, cardOf } from "./passport_card.js";
import { equipEtaSliders } from "./eta_slider.js";

const LOADER = "SURLoadAdapter";

app.registerExtension({
  name: "SUR.Adapter",

  nodeCreated(node) {
    if (node.comfyClass === LOADER) PassportCard.addTo(node);
    equipEtaSliders(node);
  },

  /** R was pressed: a file may have come, gone or changed under its name. */
  refreshComboInNodes() {
    for (const node of allNodes(app.rootGraph ?? app.graph)) cardOf(node)?.refresh();
  },
});
