"use strict";

const facts = JSON.parse(document.body.dataset.facts);
const at = (id) => document.getElementById(id);
const two = facts.runs.length > 1;
const state = { page: 0, rows: [], here: 0, asked: 0, counting: "", opened: -1 };

/* An element with attributes, then children; text is always set as text, never as HTML. */
function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((one) => one !== null));
  return made;
}

const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`);
const address = (path, fields) => `${path}?${new URLSearchParams(fields)}`;

async function ask(path, fields) {
  const answer = await fetch(address(path, fields));
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

function swatch(chip) {
  const made = make("span", { class: "swatch" });
  made.style.setProperty("--light", chip.color);
  made.style.setProperty("--dark", chip.dark);
  return made;
}

function chipOf(index, after = "") {
  const chip = facts.classes[index] || { name: `label ${index + 1}`, mark: `${index + 1}`, color: "#777", dark: "#999" };
  return make("span", { class: "chip" }, swatch(chip), make("i", {}, chip.mark), chip.name + after);
}

function marked(marks) {
  return marks.map((mark) => {
    const made = make("span", { class: "mark", "aria-hidden": "true" }, mark.text);
    made.style.left = `${100 * mark.x}%`;
    made.style.top = `${100 * mark.y}%`;
    return made;
  });
}

/* Letters of a small picture, which lies in a frame of 4 by 3 with bars at its sides. */
function inFrame(marks, [height, width]) {
  const wide = Math.min(1, width / height / (4 / 3)), tall = Math.min(1, height / width * (4 / 3));
  return marks.map((mark) => ({ text: mark.text, x: 0.5 + (mark.x - 0.5) * wide, y: 0.5 + (mark.y - 0.5) * tall }));
}

/* The gallery */

function smallPicture(row, seen, run) {
  const frame = make("span");
  if (seen === null && run > 0) {
    frame.append(make("span", { class: "none" }, "not in this run"));
    return frame;
  }
  const fields = { run, n: row.n, result: seen ? seen.result : "" };
  const picture = make("img", { alt: "", src: address("thumb", fields), loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => picture.replaceWith(make("span", { class: "none" }, "the photo cannot be read")));
  frame.append(picture, ...marked(inFrame(seen ? seen.marks : [], row.size)));
  return frame;
}

function words(row, seen) {
  if (!seen) return [make("div", { class: "of" }, two ? "not in this run" : "no masks yet")];
  if (seen.undecided === null) return [make("div", { class: "alarm" }, [seen.status, seen.why].filter(Boolean).join(": "))];
  const shares = seen.shares.slice(0, 4).map(([label, share]) => chipOf(label - 1, ` ${percent(share)}`));
  const absent = row.tags.filter((tag) => !seen.shares.some(([label]) => label === tag + 1));
  return [
    make("div", {}, ...(shares.length ? shares : ["no class in the mask"])),
    make("div", { class: "of" }, `undecided ${percent(seen.undecided)}`),
    absent.length ? make("div", { class: "alarm" }, "mask lacks: ", ...absent.map((tag) => chipOf(tag))) : null,
  ].filter(Boolean);
}

function card(row, place) {
  const pictures = make("span", { class: "pair" }, ...row.seen.map((seen, run) => smallPicture(row, seen, run)));
  const tags = row.tags.length ? row.tags.map((tag) => (facts.classes[tag] || {}).name).join(", ") : "no tags";
  const texts = row.seen.map((seen, run) => make("div", {}, ...(two ? [make("span", { class: "of" }, facts.runs[run].name)] : []), ...words(row, seen)));
  const label = `${row.id}, ${row.split}, ${tags}`;
  const text = make("span", { class: "text" }, make("b", {}, row.id), make("span", { class: "of" }, `${row.split} · ${tags} · ${row.size[1]} × ${row.size[0]}`), ...texts);
  text.style.display = "block";
  const button = make("button", { type: "button", "aria-label": label, tabindex: place ? "-1" : "0" }, pictures, text);
  button.addEventListener("click", () => { move(place); open(); });
  button.addEventListener("focus", () => { state.here = place; });
  return make("li", { class: "card" }, button);
}

function filters() {
  const names = ["search", "class", "split", "status", "order", "result", "beside"];
  return Object.fromEntries(names.map((name) => [name, at(name).value]));
}

async function load(page, keep = false) {
  const turn = ++state.asked;
  let found;
  try {
    found = await ask("api/list", { ...filters(), page });
  } catch (error) {
    at("count").textContent = error.message;
    return;
  }
  if (turn !== state.asked) return; // a later one is on its way
  const here = keep ? state.here : 0;
  Object.assign(state, { page: found.page, pages: found.pages, rows: found.rows });
  at("gallery").replaceChildren(...found.rows.map(card));
  at("count").textContent = `${found.total} of ${facts.images} images`;
  at("page").textContent = `page ${found.page + 1} of ${found.pages}`;
  at("previous").disabled = found.page === 0;
  at("next").disabled = found.page + 1 >= found.pages;
  at("command").hidden = !found.command;
  at("export").textContent = found.command;
  move(Math.min(here, Math.max(found.rows.length - 1, 0)), false);
  document.body.dataset.loaded = turn;
  if (state.counting !== filters().result) setTimeout(count, 1200, filters().result);
}

/* Tags held against masks, counted while the page is looked at */

async function count(result) {
  if (!result || result !== filters().result) return;
  state.counting = result;
  let tally;
  try {
    tally = await ask("api/tally", { result });
  } catch {
    return;
  }
  if (result !== filters().result) return;
  const done = tally.done >= tally.total || tally.why;
  at("classes").hidden = false;
  at("counted").textContent = `${tally.done} of ${tally.total} masks held against their tags${done ? "." : ", more to come."} ${tally.why}`;
  at("class-rows").replaceChildren(...tally.classes.map((one, index) => make("tr", {},
    make("th", { scope: "row" }, chipOf(index)), make("td", {}, `${one.tagged}`),
    make("td", {}, one.tagged ? `${one.tagged - one.found} (${percent(1 - one.found / one.tagged)})` : "–"),
    make("td", {}, percent(one.covered)))));
  if (!done) setTimeout(count, 1500, result);
  else if (filters().order === "missing" && !at("zoom").open) load(state.page, true);
}

/* One image in full */

function panelOf(photo, panel) {
  const layers = make("span", { class: "layers" });
  if (!panel.layer) layers.replaceChildren(make("div", { class: "nothing" }, panel.missing));
  else if (photo) layers.append(make("img", { src: photo, alt: "" }), make("img", { src: panel.layer, alt: panel.alt }), ...marked(panel.marks));
  else layers.append(make("img", { src: panel.layer, alt: panel.alt }), ...marked(panel.marks));
  return make("figure", {}, layers, make("figcaption", {}, panel.alt || panel.caption));
}

function table(titles, rows, label) {
  const head = make("thead", {}, make("tr", {}, ...titles.map((title) => make("th", { scope: "col" }, title))));
  return make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": label }, make("table", {}, head, make("tbody", {}, ...rows)));
}

function resultsTable(image, row, run) {
  const rows = image.results.filter((one) => one && one.status !== "no row").map((one) => make("tr", {},
    make("th", { scope: "row" }, one.result), make("td", {}, one.status), make("td", {}, percent(one.undecided)),
    make("td", {}, ...one.shares.map(([label, share]) => chipOf(label - 1, ` ${percent(share)}`))),
    make("td", {}, one.undecided === null ? one.why : make("a", { href: address("mask", { run, n: row.n, result: one.result }), target: "_blank" }, "mask PNG"))));
  return rows.length ? [make("h3", {}, "Masks"), table(["folder", "status", "undecided", "shares", "file"], rows, "Masks, a table that scrolls")] : [];
}

function seedsTable(image) {
  const rows = image.seeds.flatMap((one) => one.classes.map(([index, score, gain]) => make("tr", {},
    make("th", { scope: "row" }, one.name), make("td", {}, chipOf(index)), make("td", {}, score === null ? "–" : score.toFixed(2)),
    make("td", {}, gain === null ? "–" : gain.toFixed(2)), make("td", {}, `${one.steps}`), make("td", {}, one.seconds === null ? "–" : `${one.seconds.toFixed(2)} s`))));
  return rows.length ? [make("h3", {}, "Seeds"), table(["folder", "class", "logit", "logit gained", "steps", "time"], rows, "Seeds, a table that scrolls")] : [];
}

function inFull(image, row, run) {
  const title = two ? [make("h3", {}, facts.runs[run].name)] : [];
  if (!image) return make("section", {}, ...title, make("p", { class: "quiet" }, "This run has no image of this id."));
  const photo = image.photo ? make("figure", {}, make("span", { class: "layers" }, make("img", { src: image.photo, alt: `the image ${row.id}` })), make("figcaption", {}, "image"))
    : make("div", { class: "nothing" }, image.missing);
  const size = `seen at ${row.size[1]} × ${row.size[0]}, stored at ${image.stored[1]} × ${image.stored[0]} pixels`;
  const about = make("p", { class: "quiet" }, make("a", { href: address("photo", { run, n: row.n }), target: "_blank" }, image.file), ` · ${size} · split ${row.split} · tags: `,
    ...(row.tags.length ? row.tags.map((tag) => chipOf(tag)) : ["none"]));
  return make("section", {}, ...title, about, make("div", { class: "panels" }, photo, ...image.panels.map((panel) => panelOf(image.photo, panel))), ...resultsTable(image, row, run), ...seedsTable(image));
}

async function open() {
  const row = state.rows[state.here];
  if (!row) return;
  state.opened = row.n;
  at("zoom-title").textContent = row.id;
  at("zoomed").replaceChildren(make("p", { class: "quiet" }, "opening"));
  if (!at("zoom").open) at("zoom").showModal();
  let made;
  try {
    const found = await ask("api/image", { n: row.n });
    made = make("div", { class: two ? "beside two" : "beside" }, ...found.runs.map((image, run) => inFull(image, found, run)));
  } catch (error) {
    made = make("p", { class: "alarm" }, error.message);
  }
  if (state.opened === row.n) at("zoomed").replaceChildren(made);
}

/* Keyboard */

function move(place, focus = true) {
  if (place < 0 || place >= state.rows.length) return;
  state.here = place;
  const buttons = [...document.querySelectorAll("#gallery button")];
  buttons.forEach((button, n) => { button.tabIndex = n === place ? 0 : -1; });
  if (focus && !at("zoom").open) buttons[place].focus();
  if (at("zoom").open) open();
}

function columns() {
  return getComputedStyle(at("gallery")).gridTemplateColumns.split(" ").length;
}

function turn(by) {
  const page = state.page + by;
  if (page >= 0 && page < state.pages) load(page).then(() => { window.scrollTo(0, 0); move(0); });
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input:not([type=range]), select");
  if (event.key === "Escape" && at("zoom").open) { event.preventDefault(); shut(); return; }
  if (typing) {
    if (event.key === "Escape" || (event.key === "Enter" && event.target === at("search"))) { event.preventDefault(); move(state.here); }
    return;
  }
  const rowwise = at("zoom").open ? 0 : columns();
  const by = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1, ArrowDown: rowwise, ArrowUp: -rowwise }[event.key];
  if (by) move(state.here + by);
  else if (event.key === "Enter" && !at("zoom").open && event.target.matches("body, .card button")) open();
  else if (event.key === "/" && !at("zoom").open) at("search").focus();
  else if (event.key === "n" && !at("zoom").open) turn(1);
  else if (event.key === "p" && !at("zoom").open) turn(-1);
  else return;
  event.preventDefault();
}

function shut() {
  const here = state.here; // closing gives the focus back to the image that was opened first
  state.opened = -1;
  at("zoom").close();
  move(here);
}

/* Start */

function options(id, pairs) {
  at(id).replaceChildren(...pairs.map(([value, text]) => make("option", { value }, text)));
}

async function copy() {
  try {
    await navigator.clipboard.writeText(at("export").textContent);
    at("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(at("export"));
    at("copy").textContent = "Selected: copy it now";
  }
}

function start() {
  options("class", [["", "all"], ...facts.classes.map((one, index) => [index, `${one.mark} ${one.name}`]), [facts.untagged, "without tags"]]);
  options("split", [["", "all"], ...facts.splits.map((name) => [name, name])]);
  options("status", [["", "all"], ...facts.statuses.map((name) => [name, name])]);
  options("order", Object.entries(facts.orders));
  options("result", facts.runs[0].results.map((name) => [name, name]));
  options("beside", (two ? facts.runs[1].results : []).map((name) => [name, name]));
  if (two && facts.runs[1].results.includes(at("result").value)) at("beside").value = at("result").value;
  at("beside-label").hidden = !two;
  at("gallery").classList.toggle("two", two);
  at("places").textContent = facts.runs.map((run) => run.place).join(" beside ");
  let waiting;
  at("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(load, 200, 0); });
  at("filters").addEventListener("change", (event) => { if (event.target !== at("search")) load(0); });
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("previous").addEventListener("click", () => turn(-1));
  at("next").addEventListener("click", () => turn(1));
  at("copy").addEventListener("click", copy);
  at("close").addEventListener("click", shut);
  at("zoom").addEventListener("cancel", (event) => { event.preventDefault(); shut(); });
  at("strength").addEventListener("input", (event) => document.documentElement.style.setProperty("--overlay", event.target.value));
  document.addEventListener("keydown", key);
  load(0);
}

start();
