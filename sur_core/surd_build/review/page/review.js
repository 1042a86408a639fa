/** The review page: which sample is shown, what keys do, and what the list looks like. */

import { emptyRow, fillRow } from "./list_row.js";
import { Gone, Refused, Server } from "./server.js";
import { Sender } from "./sender.js";
import { SamplePanel, element } from "./sample_panel.js";
import { Rows, VirtualList } from "./virtual_list.js";

const AHEAD = 2; // images fetched before they are asked for
const DETAILS_KEPT = 200;
const PACE = 20; // decisions over which the pace is measured
const PAUSE_MS = 5 * 60_000; // whoever decides nothing for so long has been away
const SEARCH_REST_MS = 250;
const ROW = { height: 76, width: 0 };
const TILE = { height: 176, width: 176 };

const $ = (id) => document.getElementById(id);

const server = new Server();
const rows = new Rows(server);
const panel = new SamplePanel();
const details = new Map();
const list = new VirtualList($("list"), rows, makeRow, drawRow);
let sender = null;
let state = null;
let current = { index: 0, id: "" };
let history = []; // {id, before}: what undo takes back, and how the sample was before it
let times = [];
let opening = 0;
let busy = 0;

// ---- the list

function makeRow() {
  const row = emptyRow();
  row.addEventListener("click", () => {
    move(Number(row.dataset.index));
    if (!document.body.classList.contains("grid")) $("list").focus({ preventScroll: true });
  });
  row.addEventListener("dblclick", () => setGrid(false));
  return row;
}

function drawRow(node, row, index, settled) {
  fillRow(node, row, index, settled);
  node.setAttribute("aria-selected", index === current.index);
}

function setGrid(on) {
  document.body.classList.toggle("grid", on);
  const line = on ? TILE : ROW;
  list.setLine(line.height, line.width);
  list.show(current.index);
}

// ---- which sample

/** Do `work`, during which nothing is decided: what the hand aims at is about to move. */
async function whileBusy(work) {
  busy++;
  $("list").setAttribute("aria-busy", "true");
  try {
    return await work();
  } finally {
    busy--;
    if (!busy) $("list").removeAttribute("aria-busy");
  }
}

async function openList(at = current.id) {
  await panel.rest(); // nobody's words are taken half-written
  return whileBusy(() => reallyOpenList(at));
}

async function reallyOpenList(at) {
  const number = ++opening;
  await sender.send(); // a list is made of what the server knows
  const query = {
    filter: $("filter").value,
    sort: $("sort").value,
    search: $("search").value,
    descending: $("direction").getAttribute("aria-pressed") === "true" ? 1 : 0,
    at,
  };
  const found = await server.get("/api/list", query);
  if (number !== opening) return found; // a newer wish came meanwhile
  rows.open(found.list, found.total);
  $("list").scrollTop = 0;
  await go(found.index);
  return found;
}

async function go(index) {
  const last = rows.total - 1;
  const wanted = Math.max(0, Math.min(index, last));
  current = { index: wanted, id: rows.at(wanted)?.id ?? "" };
  list.show(wanted);
  tellPosition();
  $("list").setAttribute("aria-activedescendant", `row-${wanted}`);
  if (last < 0 || !current.id) panel.show(null);
  if (last < 0) return;
  await rows.need(wanted, Math.min(wanted + AHEAD, last));
  const id = rows.at(wanted)?.id;
  if (current.index !== wanted || !id) return;
  current.id = id;
  await showSample(id);
  for (let ahead = 1; ahead <= AHEAD; ahead++) prefetch(rows.at(wanted + ahead)?.id);
}

function move(index) {
  go(index).catch(report);
}

async function showSample(id) {
  if (!details.has(id)) panel.show(null);
  const sample = await detail(id);
  if (current.id === id) panel.show(sample, sender.isWaiting(id));
}

async function detail(id) {
  if (details.has(id)) return details.get(id);
  const found = await server.get(`/api/sample/${id}`);
  if (!details.has(id)) remember(found); // what a decision's answer has brought meanwhile is newer
  return details.get(id);
}

function remember(sample) {
  details.delete(sample.id);
  details.set(sample.id, sample);
  if (details.size > DETAILS_KEPT) details.delete(details.keys().next().value);
}

function prefetch(id) {
  if (!id || server.gone) return;
  detail(id).catch(() => {}); // it is asked for again when it is shown
  new Image().src = `/image/${id}`;
}

async function nextUndecided() {
  for (let index = current.index + 1; index < rows.total; index++) {
    await rows.need(index, index);
    const row = rows.at(index);
    if (!row) return;
    if (!row.verdict) return go(index);
  }
  say("Nothing undecided from here to the end of this list.");
}

// ---- decisions

function decide(verdict) {
  const sample = panel.sample;
  if (!busy && !rows.total) return say("There is no sample in this list.");
  if (busy || !sample || sample.id !== current.id) return say("This one is still on its way.");
  record(sample, { action: verdict }, { verdict, by: state.reviewer, mine: verdict, lapsed: [] });
  times = [...times.filter((time) => Date.now() - time < PAUSE_MS), Date.now()].slice(-PACE);
  if (current.index + 1 < rows.total) move(current.index + 1);
  else say("This is the end of the list.");
}

/** `looked`: the sample as it was looked at, which the server is told too. */
function record(looked, decision, changes) {
  const about = decision.action === "drop" ? {} : { was: looked.was };
  const before = details.get(looked.id) ?? looked;
  const mark = sender.add({ id: looked.id, ...decision, ...about });
  history.push({ id: looked.id, before, mark });
  apply({ ...before, ...changes, at: new Date().toISOString() });
}

function undo() {
  const entry = history.pop();
  if (!entry) return say("Nothing to undo.");
  sender.add({ id: entry.id, action: "undo" });
  if (entry.before) apply(entry.before);
  times.pop();
  reveal(entry.id);
}

/** Show a sample wherever it is; the list is made again if it has moved far away. */
function reveal(id) {
  if (id === current.id) return panel.show(details.get(id) ?? panel.sample, sender.isWaiting(id));
  for (let index = Math.max(0, current.index - 50); index < current.index + 50; index++) {
    if (rows.at(index)?.id === id) return move(index);
  }
  openList(id).then((found) => found.found || say("What was undone is not in this list."), report);
}

/** How a sample is from now on, everywhere it is shown. */
function apply(sample) {
  remember(sample);
  const edited = ["simple", "complex"].some((name) => sample[name] !== sample.found[name]);
  for (const row of rows.loaded()) {
    if (row.id !== sample.id) continue;
    const text = (sample.simple || sample.complex).slice(0, 160);
    Object.assign(row, { verdict: sample.verdict, disputed: sample.disagree.length > 0, edited, text });
    Object.assign(row, { ruled_out: Boolean(sample.left_out), changed: sample.lapsed.length > 0 });
  }
  list.draw();
  if (sample.id === current.id) panel.show(sample, sender.isWaiting(sample.id));
}

// ---- what is said

function tellPosition() {
  const place = rows.total ? `${(current.index + 1).toLocaleString()} of ${rows.total.toLocaleString()}` : "";
  $("position").textContent = place || "No sample is like this.";
}

function tellCounts() {
  const { all, kept, dropped, undecided } = state.counts;
  const number = (count) => count.toLocaleString();
  $("progress").setAttribute("aria-valuemax", all);
  $("progress").setAttribute("aria-valuenow", kept + dropped);
  $("progress").querySelector(".kept").style.width = `${(100 * kept) / all}%`;
  $("progress").querySelector(".dropped").style.width = `${(100 * dropped) / all}%`;
  const parts = [`${number(kept)} kept`, `${number(dropped)} dropped`, `${number(undecided)} to go`];
  parts.push(`${number(state.counts.in)} in the data set`, ...pace(undecided));
  if (sender.waiting) parts.push(`${number(sender.waiting)} waiting to be sent`);
  $("counts").textContent = parts.join(" · ");
  for (const option of $("filter").options) {
    const words = (option.dataset.words ??= option.textContent);
    option.textContent = `${words} (${number(state.counts[option.value])})`;
  }
}

function pace(undecided) {
  if (times.length < 5) return [];
  const perMinute = (60_000 * (times.length - 1)) / Math.max(1, times.at(-1) - times[0]);
  const minutes = undecided / perMinute;
  const left = minutes < 90 ? `${Math.ceil(minutes)} min` : `${(minutes / 60).toFixed(1)} h`;
  return [`${perMinute.toFixed(0)} a minute, ${left} left`];
}

let silence = null;

function say(words, ms = 6_000) {
  clearTimeout(silence);
  $("said").textContent = words;
  $("said").hidden = false;
  silence = setTimeout(() => ($("said").hidden = true), ms);
}

function sayGone(words) {
  const waiting = sender?.waiting ?? 0;
  const safe = waiting
    ? `${waiting} decision${waiting > 1 ? "s wait" : " waits"} in this browser and will be sent when it is back.`
    : "Nothing is lost.";
  const lines = [element("p", "", `${words} ${safe} You can go on deciding what is on the page. Start it again with`)];
  lines.push(element("code", "", state?.command ?? "python -m train surd review"));
  $("gone").replaceChildren(...lines);
  $("gone").hidden = false;
}

function report(error) {
  if (error instanceof Gone) return;
  say(error instanceof Refused ? error.message : `The page has made a mistake: ${error.message}`);
  if (!(error instanceof Refused)) throw error;
}

// ---- keys and events

const KEYS = {
  k: () => decide("keep"),
  d: () => decide("drop"),
  u: undo,
  "ctrl+z": undo,
  e: () => panel.edit("simple"),
  "shift+e": () => panel.edit("complex"),
  j: () => go(current.index + 1),
  "shift+j": () => go(current.index - 1),
  arrowright: () => go(current.index + 1),
  arrowleft: () => go(current.index - 1),
  arrowdown: () => go(current.index + list.columns),
  arrowup: () => go(current.index - list.columns),
  pagedown: () => go(current.index + list.linesVisible * list.columns),
  pageup: () => go(current.index - list.linesVisible * list.columns),
  home: () => go(0),
  end: () => go(rows.total - 1),
  n: nextUndecided,
  g: () => setGrid(!document.body.classList.contains("grid")),
  "/": () => $("search").focus(),
  "?": () => $("help").showModal(),
};

function onKey(event) {
  const typing = event.target.closest("input, select");
  if (typing && event.key === "Escape") $("list").focus();
  if (typing || $("help").open || event.altKey) return;
  const held = event.ctrlKey || event.metaKey ? "ctrl+" : "";
  const shift = event.shiftKey && /^[a-z]$/i.test(event.key) ? "shift+" : "";
  const act = KEYS[held + shift + event.key.toLowerCase()];
  if (!act || (event.repeat && /^[kdu]$/i.test(event.key))) return; // a key held down is one decision
  event.preventDefault();
  Promise.resolve(act()).catch(report);
}

function listen() {
  addEventListener("keydown", onKey);
  $("keep").addEventListener("click", () => decide("keep"));
  $("drop").addEventListener("click", () => decide("drop"));
  $("undo").addEventListener("click", undo);
  $("show-help").addEventListener("click", () => $("help").showModal());
  $("wish").addEventListener("submit", (event) => {
    event.preventDefault();
    $("list").focus();
  });
  for (const id of ["filter", "sort"]) {
    $(id).addEventListener("change", () => {
      openList().catch(report);
      $("list").focus({ preventScroll: true }); // else the next K would choose "kept" here
    });
  }
  $("direction").addEventListener("click", () => {
    const descending = $("direction").getAttribute("aria-pressed") !== "true";
    $("direction").setAttribute("aria-pressed", descending);
    $("direction").textContent = descending ? "↓" : "↑";
    openList().catch(report);
  });
  let typing = null;
  $("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => openList().catch(report), SEARCH_REST_MS);
  });
  panel.addEventListener("edit", ({ detail: { sample, name, text } }) => {
    record(sample, { action: "edit", [name]: text }, { [name]: text });
    say(`The ${name} prompt is changed.`, 2_000);
  });
  rows.addEventListener("forgotten", () => openList().catch(report));
  server.addEventListener("gone", ({ detail: words }) => sayGone(words));
  server.addEventListener("back", () => comeBack().catch(report));
  addEventListener("beforeunload", (event) => {
    if (sender?.loose || panel.isEditing) event.preventDefault(); // else it is gone with the page
  });
}

function listenToSender() {
  sender.addEventListener("change", () => {
    tellCounts();
    if (server.gone) sayGone("The review server does not answer.");
  });
  sender.addEventListener("taken", ({ detail: { decision, answer } }) => {
    state.counts = answer.counts;
    if (!answer.current) showAnew(answer.sample);
    if (!sender.isWaiting(decision.id)) apply(answer.sample);
  });
  sender.addEventListener("refused", ({ detail: { decision, words } }) => {
    say(`A decision was refused: ${words}`, 30_000);
    history = history.filter((entry) => entry.mark !== decision.mark);
    details.delete(decision.id);
    detail(decision.id).then(apply).catch(report);
  });
  sender.addEventListener("trouble", ({ detail: words }) => say(`${words}. It is tried again.`, 30_000));
}

async function comeBack() {
  $("gone").hidden = true;
  say("The review server is back.", 3_000);
  await panel.rest();
  await whileBusy(async () => {
    await sender?.send(); // before anything is asked anew, so that the answers know of it
    details.clear();
    rows.forget();
    await start();
    panel.retryImage();
  });
}

/** A step has changed prompts: what the page knows is old. */
function showAnew(sample) {
  say(`The prompts of ${sample.name} have changed since they were shown: look again. What you said is kept.`, 30_000);
  details.clear();
  detail(current.id).then(apply).catch(report);
}

/** The first time, and again when the server was away. */
async function start() {
  const before = state?.start;
  state = await server.get("/api/state");
  server.key = state.key;
  $("folder").textContent = state.folder;
  $("who").textContent = state.reviewer;
  document.title = `Review ${state.folder}`;
  if (!sender) {
    sender = new Sender(server, state.dataset);
    listenToSender();
    history = state.history.map((id) => ({ id, before: null }));
  }
  tellCounts();
  await sender.send();
  await (state.start === before ? go(current.index) : openList());
}

listen();
setGrid(false);
start().catch(report);
