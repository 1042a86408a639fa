/** Walking through a workflow: its nodes, and what arrives at an input. */

const ADAPTER = "SUR_ADAPTER";
// LiteGraph's modes of a node
const MUTED = 2;
const BYPASSED = 4;

/** Every node of a workflow, those inside subgraphs included. */
export function* allNodes(root) {
  yield* root?.nodes ?? [];
  for (const subgraph of root?.subgraphs?.values() ?? []) yield* subgraph.nodes;
}

/** The loaders whose adapters arrive at a node's adapter inputs, through reroutes, merges, bypassed nodes and
 * subgraphs. `null` stands for one that could not be found out.
 */
export function adapterLoaders(node, seen = new Set()) {
  const slots = (node.inputs ?? []).flatMap((input, slot) => (input.type === ADAPTER ? [slot] : []));
  return slots.flatMap((slot) => behindInput(node, slot, seen));
}

export function hasAdapterInput(node) {
  return (node.inputs ?? []).some((input) => input.type === ADAPTER);
}

function behindInput(node, slot, seen) {
  const id = node.inputs?.[slot]?.link;
  const link = id == null ? null : node.graph?.getLink(id);
  return link ? behindLink(node.graph, link, seen) : [];
}

function behindLink(graph, link, seen) {
  if (link.originIsIoNode) {
    return containersOf(graph).flatMap((container) => behindInput(container, link.origin_slot, seen));
  }
  const origin = graph.getNodeById(link.origin_id);
  if (!origin || seen.has(origin) || origin.mode === MUTED) return [null];
  const path = new Set(seen).add(origin);
  if (origin.mode === BYPASSED) {
    const slot = origin.inputs.findIndex((input) => input.type === ADAPTER);
    return slot < 0 ? [null] : behindInput(origin, slot, path);
  }
  if (origin.isSubgraphNode?.()) {
    const inner = origin.subgraph.outputNode.slots[link.origin_slot]?.getLinks()[0];
    return inner ? behindLink(origin.subgraph, inner, path) : [null];
  }
  if (origin.isVirtualNode) {
    const before = origin.getInputLink(link.origin_slot); // reroutes, and nodes that get what others have set
    return before ? behindLink(origin.graph, before, path) : [null];
  }
  if (origin.comfyClass === "SURLoadAdapter") return [origin];
  return origin.comfyClass === "SURMergeAdapters" ? adapterLoaders(origin, path) : [null];
}

/** The nodes that stand for this subgraph; the root graph has none. */
function containersOf(graph) {
  return [...allNodes(graph.rootGraph)].filter((node) => node.subgraph === graph);
}
