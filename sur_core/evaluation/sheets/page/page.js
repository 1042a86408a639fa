/** The page: one item after the other, answered by key or button. */

const $ = (id) => document.getElementById(id);
const SAID_MS = 4_000;

const study = JSON.parse($("study").textContent);
const places = new Map(study.items.map(({ id }, index) => [id, index]));
const answers = new Answers(study);
const stage = new Stage($("stage"), study);
const choiceOfKey = new Map(study.choices.flatMap((choice) => choice.keys.map((key) => [key, choice.value])));
let saidTimer = null;

// ---- which part of the page is shown

function only(name) {
  for (const part of ["start", "work", "done"]) $(part).hidden = part !== name;
  $("progress").hidden = $("tools").hidden = name === "start";
}

function showStart() {
  only("start");
  $("name").focus();
}

function enter() {
  $("who").textContent = answers.marker;
  const first = firstOpen(answers.at);
  if (first === null && answers.count) showDone();
  else goTo(first ?? 0);
}

function showDone() {
  only("done");
  tell();
  const open = study.items.length - answers.count;
  const left = open ? ` ${open} ${open === 1 ? "is" : "are"} still open.` : "";
  $("done-words").textContent =
    `You have answered ${answers.count} of ${study.items.length}.${left} Save the file and give it to ` +
    "whoever asked you; until then keep this browser's data.";
  $("done-undo").disabled = !answers.canUndo;
  $("done-save").focus();
}

// ---- items

/** The first item without an answer from `index` on, around the end; null if there is none. */
function firstOpen(index) {
  const { items } = study;
  for (let step = 0; step < items.length; step++) {
    const place = (index + step) % items.length;
    if (!answers.of(items[place].id)) return place;
  }
  return null;
}

async function goTo(index) {
  only("work");
  const place = Math.max(0, Math.min(index, study.items.length - 1));
  answers.at = place;
  const item = study.items[place];
  $("prompt").textContent = item.prompt;
  $("prompt").hidden = !item.prompt;
  $("question").textContent = study.questions[item.question];
  tell();
  const seen = await stage.show(item);
  if (seen === undefined) return;
  tell();
  if (!seen && study.folder) say(`Keep the page and its folder “${study.folder}” together.`);
  stage.prefetch(study.items[place + 1]);
}

function tell() {
  const { items } = study;
  const item = items[answers.at];
  $("position").textContent = `${(answers.at + 1).toLocaleString()} of ${items.length.toLocaleString()}`;
  $("counts").textContent = `${answers.count.toLocaleString()} of ${items.length.toLocaleString()} answered`;
  $("bar").setAttribute("aria-valuemax", items.length);
  $("bar").setAttribute("aria-valuenow", answers.count);
  $("filled").style.width = `${(100 * answers.count) / items.length}%`;
  for (const button of $("choices").children) {
    button.setAttribute("aria-pressed", answers.of(item.id) === button.value);
    button.disabled = !stage.ready;
  }
  $("undo").disabled = !answers.canUndo;
  $("previous").disabled = answers.at === 0;
  $("next").disabled = answers.at === items.length - 1;
  $("zoom").setAttribute("aria-pressed", stage.zoomed);
}

// ---- what can be done

/** Nothing is answered before it has been seen. */
function give(value) {
  if (!stage.ready) return;
  const { at } = answers;
  answers.give(study.items[at].id, value);
  const next = firstOpen(at);
  if (next === null) showDone();
  else {
    if (next < at) say(`${study.items.length - answers.count} still open`);
    goTo(next);
  }
}

function undo() {
  if (answers.canUndo) goTo(places.get(answers.undo()));
}

function step(by) {
  if ($("work").hidden) goTo(0);
  else if (study.items[answers.at + by]) goTo(answers.at + by);
}

function nextOpen() {
  const place = firstOpen(answers.at + 1);
  if (place === null) showDone();
  else goTo(place);
}

function zoom(on = !stage.zoomed) {
  if ($("work").hidden) return;
  stage.zoom(on);
  tell();
}

function save() {
  const { name, text } = answers.file();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  say(`Saved as ${name}, in the folder of your downloads`);
}

function say(words) {
  clearTimeout(saidTimer);
  $("said").textContent = words;
  $("said").hidden = false;
  saidTimer = setTimeout(() => ($("said").hidden = true), SAID_MS);
}

function warn(words) {
  $("warning").textContent = words;
  $("warning").hidden = false;
}

// ---- keys and buttons

const COMMANDS = {
  u: undo,
  backspace: undo,
  j: () => step(1),
  J: () => step(-1),
  arrowright: () => step(1),
  arrowleft: () => step(-1),
  o: nextOpen,
  z: () => zoom(),
  escape: () => zoom(false),
  s: save,
  "?": () => $("help").showModal(),
};
const PANS = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] };

function onKey(event) {
  if (!$("start").hidden || $("help").open || event.altKey) return;
  const key = event.key.toLowerCase();
  const held = event.ctrlKey || event.metaKey;
  const command = held ? key === "z" && undo : commandOf(event, key);
  if (!command) return;
  event.preventDefault();
  command();
}

function commandOf(event, key) {
  if (stage.zoomed && key in PANS) return () => stage.pan(...PANS[key]);
  if (choiceOfKey.has(key) && !$("work").hidden) {
    return event.repeat ? () => {} : () => give(choiceOfKey.get(key)); // a key held down answers once
  }
  return COMMANDS[key === "j" && event.shiftKey ? "J" : key];
}

const KEY_NAMES = { arrowleft: "←", arrowright: "→", arrowup: "↑", arrowdown: "↓" };

function keyName(key) {
  return KEY_NAMES[key] ?? key.toUpperCase();
}

function makeChoices() {
  for (const choice of study.choices) {
    const button = made("button", choice.value, choice.label);
    button.type = "button";
    button.value = choice.value;
    button.append(" ", made("kbd", "", keyName(choice.keys[0])));
    button.addEventListener("click", () => give(choice.value));
    $("choices").append(button);
  }
}

function makeHelp() {
  const arrows = choiceOfKey.has("arrowleft");
  const rows = study.choices.map(({ label, keys }) => [keys.map(keyName), `answer “${label}”`]);
  rows.push(
    [["U", "Backspace", "Ctrl Z"], "undo the last answer, and go back to it"],
    [arrows ? ["J"] : ["J", "→"], "next, without an answer"],
    [arrows ? ["Shift J"] : ["Shift J", "←"], "previous"],
    [["O"], "the next one without an answer"],
    [["Z"], "look closely; the arrows move, Esc ends it"],
    [["S"], "save your answers as a file"],
    [["?"], "this help"],
  );
  for (const [keys, words] of rows) {
    const term = made("dt");
    term.append(...keys.flatMap((key) => [made("kbd", "", key), " "]));
    $("keys").append(term, made("dd", "", words));
  }
}

async function load(file) {
  if (!file) return;
  try {
    answers.load(await file.text());
    enter();
    say(`Going on with ${answers.count} answers of ${answers.marker}`);
  } catch (error) {
    warn(error.message);
  }
  $("load").value = "";
}

function listen() {
  const clicks = { save, undo, zoom: () => zoom(), next: () => step(1), previous: () => step(-1), open: nextOpen };
  Object.assign(clicks, { "done-save": save, "done-undo": undo, again: () => goTo(0), who: showStart });
  clicks["show-help"] = () => $("help").showModal();
  clicks["close-help"] = () => $("help").close();
  for (const [id, does] of Object.entries(clicks)) $(id).addEventListener("click", () => does());
  $("begin").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = $("name").value.replace(/\s+/g, " ").trim();
    if (!name) return;
    $("warning").hidden = true;
    answers.begin(name);
    enter();
  });
  $("load").addEventListener("change", () => load($("load").files[0]));
  document.addEventListener("keydown", onKey);
  answers.addEventListener("unkept", () =>
    warn("This browser does not keep your answers. Save the file before you close the page."),
  );
  answers.addEventListener("elsewhere", () => {
    say("Another tab of this page has changed the answers");
    enter();
  });
  window.addEventListener("beforeunload", (event) => answers.loose && event.preventDefault());
}

for (const words of study.intro) $("intro").append(made("p", "", words));
makeChoices();
makeHelp();
listen();
if (answers.lastMarker) {
  answers.begin(answers.lastMarker);
  enter();
} else showStart();
