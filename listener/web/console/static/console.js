// The console's only script: keys, zoom, uploads and live pages. Every page works without it.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);
const isTyping = target => target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]");

for (const element of all("[data-needs-script]")) element.hidden = false;

// --- live pages: fetch the page again and swap what is marked

// A gallery is swapped when somebody else changed it, or something was undone: one's own decisions
// stay where they are while one works.
async function refresh(isWhole = false) {
  const answer = await fetch(location.href, { headers: { accept: "text/html", "x-background": "1" } });
  if (answer.redirected && new URL(answer.url).pathname === "/sign-in") review?.sayExpired("Your session has ended.");
  if (!answer.ok || answer.redirected) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const revision = root => Number(one("#review-state [name=revision]", root)?.value ?? Infinity);
  const isBehind = isWhole || revision(fresh) > revision(document) || revision(document) === Infinity;
  for (const old of all(isBehind ? "[data-swap], [data-swap-late]" : "[data-swap]")) {
    const made = fresh.getElementById(old.id);
    if (!made || made.innerHTML === old.innerHTML) continue;
    const chosen = new Set(all("input:checked", old).map(input => input.value));
    const focused = old.contains(document.activeElement) ? pathOf(document.activeElement) : null;
    old.replaceChildren(...made.childNodes);
    for (const input of all("input[type=checkbox]", old)) if (chosen.has(input.value)) input.checked = true;
    if (focused) one(focused, old)?.focus();
  }
}

function pathOf(element) {
  if (element.id) return `#${CSS.escape(element.id)}`;
  const href = element.getAttribute("href");
  if (href) return `a[href="${CSS.escape(href)}"]`;
  return element.value && element.name ? `[name="${CSS.escape(element.name)}"][value="${CSS.escape(element.value)}"]` : null;
}

const live = document.body.dataset.live;
if (live) {
  let waiting = null;
  const source = new EventSource(live);
  source.addEventListener("changed", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => refresh(), 150);
  });
  addEventListener("pagehide", () => source.close());
}

// --- galleries: arrow keys go from cell to cell, H shows the heat maps

function tilesOf(gallery) { return all("a.look", gallery); }

function besideInGallery(link, key) {
  const links = all("[data-gallery] a.look");
  const at = links.indexOf(link);
  if (key === "ArrowRight") return links[at + 1];
  if (key === "ArrowLeft") return links[at - 1];
  const here = link.getBoundingClientRect();
  const ahead = links.filter(other => {
    const top = other.getBoundingClientRect().top;
    return key === "ArrowDown" ? top > here.top + 5 : top < here.top - 5;
  });
  const tops = ahead.map(other => other.getBoundingClientRect().top);
  const row = key === "ArrowDown" ? Math.min(...tops) : Math.max(...tops);
  const inRow = ahead.filter(other => Math.abs(other.getBoundingClientRect().top - row) < 5);
  return inRow.sort((a, b) => Math.abs(a.getBoundingClientRect().left - here.left) - Math.abs(b.getBoundingClientRect().left - here.left))[0];
}

function showHeat(isOn) {
  for (const image of all("[data-gallery] image")) {
    const plain = image.getAttribute("href").replace(/-heat$/, "");
    image.setAttribute("href", isOn ? `${plain}-heat` : plain);
  }
}

// --- review: one key a class, many cells at once, the next cell by itself

const TRIES = 5;
const pause = milliseconds => new Promise(wake => setTimeout(wake, milliseconds));
let review = null;

class Review {
  constructor(form) {
    this.form = form;
    this.address = document.body.dataset.review;
    this.csrf = document.body.dataset.csrf;
    this.told = one("#review-told");
    this.keys = new Map(all("[data-key]", form).map(button => [button.dataset.key, button.dataset.class]));
    this.queue = Promise.resolve();
    this.waiting = 0;
    this.epoch = 0;
    const comment = one("#comment", form);
    comment?.addEventListener("focus", () => { comment.placeholder = this.placeOf(this.chosen()); });
    addEventListener("beforeunload", event => { if (this.waiting) event.preventDefault(); });
    // A click on a button takes the focus from the cell that it is meant for.
    addEventListener("focusin", event => { this.last = event.target.closest?.(".cell")?.dataset.cell ?? this.last; });
    // The second click of a double click would be for the next cell.
    form.addEventListener("click", event => {
      const button = event.target.closest("button");
      if (event.detail > 1 && button && button.dataset.act !== "undo") event.preventDefault();
    });
    form.addEventListener("submit", event => {
      const button = event.submitter;
      if (!button?.name) return;
      event.preventDefault();
      const [act, to = ""] = button.value.split(":");
      if (act === "comment") this.comment();
      else if (act === "set_target") this.write(act, [], { to: one("#target").value });
      else this.do(act, to);
    });
    this.classes = new Set(this.keys.values());
    const galleries = one("#galleries");
    if (galleries) this.letDrag(galleries);
  }

  // A second way to what the keys do: cells are dragged to a gallery or to the button of a class.
  letDrag(galleries) {
    const goalOf = target => {
      const place = target.closest?.("#galleries section, #review [data-class]");
      const name = place?.dataset.class ?? place?.id.replace("class-", "");
      return this.classes.has(name) ? { place, name } : null;
    };
    const leave = () => { for (const place of all(".over")) place.classList.remove("over"); };
    galleries.addEventListener("dragstart", event => {
      const cell = event.target.closest?.(".cell");
      if (!cell) return;
      const chosen = all(".cell:has(input:checked)");
      this.dragged = chosen.includes(cell) ? chosen : [cell];
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setData("text/plain", this.dragged.map(one => one.dataset.cell).join(" "));
    });
    addEventListener("dragover", event => {
      const goal = this.dragged && goalOf(event.target);
      leave();
      if (!goal) return;
      event.preventDefault();
      goal.place.classList.add("over");
    });
    addEventListener("drop", event => {
      const goal = this.dragged && goalOf(event.target);
      const cells = this.dragged?.filter(cell => cell.dataset.now !== goal?.name) ?? [];
      leave();
      this.dragged = null;
      if (!goal) return;
      event.preventDefault();
      for (const input of all(".cell input:checked")) input.checked = false;
      if (!cells.length) return;
      this.write("reclassify", cells, { to: goal.name });
      this.queue = this.queue.then(() => refresh(true));
    });
    addEventListener("dragend", () => { leave(); this.dragged = null; });
  }

  get revision() { return one("#review-state [name=revision]").value; }
  set revision(value) { for (const input of all("[name=revision]")) input.value = value; }

  chosen() {
    const checked = all(".cell:has(input:checked)");
    if (checked.length) return checked;
    const cell = document.activeElement?.closest(".cell") ?? (this.last && one(`.cell[data-cell="${CSS.escape(this.last)}"]`));
    return cell ? [cell] : [];
  }

  key(event, link) {
    if (event.key.startsWith("Arrow") && event.shiftKey && link) {
      const next = besideInGallery(link, event.key);
      for (const cell of [link, next]) if (cell) one("input", cell.closest(".cell")).checked = true;
      next?.focus();
      event.preventDefault();
      return true;
    }
    if (!one("#keys-on")?.checked || event.shiftKey) return false;
    const key = event.key.toLowerCase();
    if (event.target.closest("button, summary") && (key === "enter" || key === " ")) return false;
    const acts = {
      " ": () => this.do("seen"), enter: () => link && this.do("confirm"), u: () => this.do("undo"), f: () => this.do("star"),
      c: () => one("#comment")?.focus(), v: () => link && location.assign(link.href),
    };
    const act = this.keys.has(key) ? () => this.do("reclassify", this.keys.get(key)) : acts[key];
    // A key that is held down decides one cell, not a row of them.
    if (!act || (!event.repeat && act() === null)) return false;
    event.preventDefault();
    return true;
  }

  do(act, to = "") {
    const cells = act === "undo" ? [] : this.chosen();
    if (!cells.length && act !== "undo") { this.say("Choose a cell first."); return null; }
    if (act === "star" && cells.every(cell => one(".mark", cell).textContent.includes("★"))) act = "unstar";
    const groups = new Map();
    for (const cell of cells) {
      const goal = act === "confirm" ? cell.dataset.now : to;
      groups.set(goal, [...(groups.get(goal) ?? []), cell]);
    }
    if (act === "undo") groups.set("", []);
    for (const [goal, some] of groups) this.write(act, some, { to: goal });
    for (const input of all(".cell input:checked")) input.checked = false;
    if (cells.length) this.goOn(cells.at(-1));
    return true;
  }

  comment() {
    const field = one("#comment");
    if (field.value.trim()) this.write("comment", this.chosen(), { comment: field.value });
    field.value = "";
  }

  placeOf(cells) {
    if (cells.length > 1) return `on ${cells.length} cells`;
    return cells.length ? `on ${one(".place", cells[0])?.textContent ?? "the cell"}` : "on the smear";
  }

  goOn(cell) {
    const links = all("[data-gallery] a.look");
    (links[links.indexOf(one("a.look", cell)) + 1] ?? one("a.look", cell)).focus();
  }

  write(act, cells, { to = "", comment = "" }) {
    const data = new FormData();
    for (const [name, value] of [["blind", this.form.elements.blind?.value ?? ""], ["act", act], ["to", to], ["comment", comment], ["event_id", crypto.randomUUID().replaceAll("-", "")]]) data.set(name, value);
    for (const cell of cells) { data.append("cell", cell.dataset.cell); data.append("before", cell.dataset.now); }
    const epoch = this.epoch;
    this.count(1);
    this.queue = this.queue
      .then(() => this.send(act, to, cells, data, epoch))
      .catch(error => this.refused(act, data, error.message))
      .finally(() => this.count(-1));
  }

  async send(act, to, cells, data, epoch) {
    // What was pressed on a page that proved to be old is not written to the new one.
    if (epoch !== this.epoch) return this.giveBack(act, data);
    const headers = { accept: "application/json", "x-csrf-token": this.csrf, "if-match": `"${this.revision}"` };
    const answer = await this.post(data, headers);
    const told = await answer.json().catch(() => ({}));
    if (answer.status === 401) {
      this.giveBack(act, data);
      return this.sayExpired("Not saved: your session has ended.");
    }
    if (!answer.ok) {
      const since = (told.since ?? []).map(other => `${other.who}: ${`${other.act} ${other.to}`.replaceAll("_", " ")} ${other.cells.join(" ")}`).join("; ");
      this.refused(act, data, `${told.detail ?? answer.status} ${since}`);
      if (answer.status === 412) {
        this.epoch += 1;
        await refresh(true);
      }
      return;
    }
    this.say("");
    this.revision = told.revision;
    if (act === "undo") return refresh(true);
    for (const cell of cells) this.show(cell, act, to);
    clearTimeout(this.later);
    this.later = setTimeout(() => refresh(), 250);
  }

  // The same act again has the same id, so that it stands once whether the first try arrived or not.
  async post(data, headers) {
    for (let tried = 1; ; tried++) {
      try {
        const answer = await fetch(this.address, { method: "POST", body: data, headers });
        if (answer.status < 500 || tried === TRIES) return answer;
      } catch {
        if (tried === TRIES) throw new Error("the service does not answer.");
      }
      this.say("The service does not answer. Trying again …");
      await pause(500 * 2 ** tried);
    }
  }

  count(change) {
    this.waiting += change;
    const told = one("#review-waiting");
    told.textContent = this.waiting ? `Saving ${this.waiting} …` : "";
  }

  refused(act, data, words) {
    this.giveBack(act, data);
    this.say(`Not saved: ${words}`);
  }

  // A comment that was not kept goes back to where it was typed.
  giveBack(act, data) {
    const field = one("#comment");
    if (act === "comment" && !field.value) field.value = data.get("comment");
  }

  sayExpired(words) {
    this.say(`${words} `);
    const link = Object.assign(document.createElement("a"), { href: `/sign-in?next=${encodeURIComponent(location.pathname)}`, textContent: "Sign in again" });
    this.told.append(link);
  }

  show(cell, act, to) {
    const isDecision = act === "reclassify" || act === "confirm";
    const isStarred = act === "star" || (act !== "unstar" && one(".mark", cell).textContent.includes("★"));
    cell.classList.toggle("decided", isDecision || cell.classList.contains("decided"));
    cell.classList.toggle("seen", isDecision || act === "seen" || cell.classList.contains("seen"));
    one(".mark", cell).textContent = `${isStarred ? "★" : ""}${cell.classList.contains("decided") ? "✓" : cell.classList.contains("seen") ? "·" : ""}`;
    if (act === "reclassify") {
      one(".decision", cell).textContent = `→ ${to.replaceAll("_", " ")}`;
      cell.dataset.now = to;
    }
  }

  say(words) {
    this.told.textContent = words;
    this.told.hidden = !words;
  }
}

if (document.body.dataset.page === "smear") {
  if (document.body.dataset.review) review = new Review(one("#review"));
  const heat = one("#heat");
  heat?.addEventListener("change", () => showHeat(heat.checked));
  addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey || isTyping(event.target)) return;
    const link = event.target.closest?.("[data-gallery] a.look");
    if (review && review.key(event, link)) return;
    if (link && event.key.startsWith("Arrow")) {
      const next = besideInGallery(link, event.key);
      if (next) { next.focus(); event.preventDefault(); }
    } else if (event.key.toLowerCase() === "h" && heat) {
      heat.checked = !heat.checked;
      showHeat(heat.checked);
    }
  });
}

// --- a field: zoom, move, switch, and go to the neighbor

class Viewer {
  constructor(box) {
    this.box = box;
    this.svg = one("svg", box);
    this.width = Number(box.dataset.width);
    this.height = Number(box.dataset.height);
    const [x, y, width, height] = this.svg.getAttribute("viewBox").split(" ").map(Number);
    this.view = { x, y, width, height };
    this.marks = all(".cell-mark", this.svg);
    this.dragged = null;
    this.svg.addEventListener("wheel", event => {
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.25 : 0.8, this.place(event));
    }, { passive: false });
    this.svg.addEventListener("pointerdown", event => { this.dragged = { from: this.place(event), moved: false }; });
    this.svg.addEventListener("pointermove", event => this.drag(event));
    for (const end of ["pointerup", "pointerleave", "pointercancel"]) this.svg.addEventListener(end, () => { setTimeout(() => { this.dragged = null; }); });
    this.svg.addEventListener("click", event => { if (this.dragged?.moved) { event.preventDefault(); event.stopPropagation(); } }, true);
    this.svg.addEventListener("dragstart", event => event.preventDefault());
    this.fitText();
  }

  place(event) {
    const matrix = this.svg.getScreenCTM().inverse();
    return new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
  }

  drag(event) {
    if (!this.dragged || !event.buttons) return;
    const now = this.place(event);
    const dx = this.dragged.from.x - now.x, dy = this.dragged.from.y - now.y;
    if (!this.dragged.moved && Math.hypot(dx, dy) * this.svg.getScreenCTM().a < 4) return;
    this.dragged.moved = true;
    this.view.x += dx;
    this.view.y += dy;
    this.show();
  }

  zoom(factor, at = { x: this.view.x + this.view.width / 2, y: this.view.y + this.view.height / 2 }) {
    const width = Math.min(this.width, Math.max(16, this.view.width / factor));
    const scale = width / this.view.width;
    this.view = { x: at.x - (at.x - this.view.x) * scale, y: at.y - (at.y - this.view.y) * scale, width, height: this.view.height * scale };
    this.show();
  }

  whole() {
    this.view = { x: 0, y: 0, width: this.width, height: this.height };
    this.show();
  }

  show() {
    const { view } = this;
    view.x = Math.min(Math.max(view.x, -view.width / 2), this.width - view.width / 2);
    view.y = Math.min(Math.max(view.y, -view.height / 2), this.height - view.height / 2);
    this.svg.setAttribute("viewBox", [view.x, view.y, view.width, view.height].map(value => value.toFixed(2)).join(" "));
    this.fitText();
  }

  fitText() {
    const pixel = this.view.width / Math.max(1, this.svg.clientWidth);
    this.box.classList.toggle("sharp", pixel < 0.25);
    for (const text of all(".cell-label", this.svg)) {
      text.setAttribute("font-size", (pixel * 14).toFixed(3));
      text.setAttribute("stroke-width", (pixel * 3.5).toFixed(3));
    }
  }

  seen() { return this.marks.filter(mark => !mark.hasAttribute("hidden")); }

  neighbor(key) {
    const marks = this.seen();
    const chosen = one(".cell-mark.chosen", this.svg);
    if (!chosen) return marks[0];
    const x = Number(chosen.dataset.x), y = Number(chosen.dataset.y);
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    let best = null, least = Infinity;
    for (const mark of marks) {
      const along = (mark.dataset.x - x) * dx + (mark.dataset.y - y) * dy;
      const aside = Math.abs((mark.dataset.x - x) * dy) + Math.abs((mark.dataset.y - y) * dx);
      if (mark === chosen || along <= 0) continue;
      if (along + 2 * aside < least) { least = along + 2 * aside; best = mark; }
    }
    return best;
  }

  switch(name, isOn) { this.box.classList.toggle(name, !isOn); }

  heat() {
    if (one(".heat", this.svg)) return;
    const image = document.createElementNS("http://www.w3.org/2000/svg", "image");
    for (const [name, value] of [["href", this.box.dataset.heat], ["width", this.width], ["height", this.height], ["class", "heat"], ["preserveAspectRatio", "none"]]) image.setAttribute(name, value);
    one("image.photo", this.svg).after(image);
  }
}

const viewerBox = one("#viewer");
if (viewerBox) {
  const viewer = new Viewer(viewerBox);
  const toggle = box => {
    if (box.id === "show-heat" && box.checked) viewer.heat();
    viewer.switch(box.dataset.hide, box.checked);
  };
  for (const box of all("[data-hide]")) box.addEventListener("change", () => toggle(box));
  for (const box of all("[data-only]")) box.addEventListener("change", () => {
    for (const mark of viewer.marks) if (mark.dataset.class === box.dataset.only) mark.toggleAttribute("hidden", !box.checked);
  });
  for (const link of all("[data-zoom]")) link.addEventListener("click", event => {
    event.preventDefault();
    const factor = Number(link.dataset.zoom);
    factor ? viewer.zoom(factor) : viewer.whole();
  });
  viewerBox.addEventListener("dblclick", event => {
    const { x, y } = viewer.place(event);
    if (!one("#field-review #x")) return;
    one("#x").value = x.toFixed(1);
    one("#y").value = y.toFixed(1);
    one("#to").focus();
  });
  const flip = id => { const box = one(id); if (box) { box.checked = !box.checked; toggle(box); } };
  const go = rel => { const link = one(`.toolbar a[rel=${rel}]`); if (link) link.click(); return Boolean(link); };
  addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey || isTyping(event.target)) return;
    const acts = {
      "+": () => viewer.zoom(1.5), "=": () => viewer.zoom(1.5), "-": () => viewer.zoom(1 / 1.5), "0": () => viewer.whole(),
      o: () => flip("#show-outlines"), l: () => flip("#show-labels"), h: () => flip("#show-heat"),
      r: () => { const shelf = one("#references"); if (shelf) { shelf.open = !shelf.open; shelf.scrollIntoView({ block: "nearest" }); } },
      PageUp: () => go("prev"), PageDown: () => go("next"),
    };
    const act = acts[event.key] ?? acts[event.key.toLowerCase()];
    if (act) { act(); event.preventDefault(); return; }
    if (event.key.startsWith("Arrow") && !event.shiftKey) {
      const next = viewer.neighbor(event.key);
      if (next) { event.preventDefault(); location.search = `?cell=${next.dataset.cell}`; }
    }
  });
}

// --- upload: previews, one request a file, progress; a batch survives a reload

class Upload {
  constructor(form) {
    this.form = form;
    this.input = one("#files", form);
    this.list = one("#sending", form);
    this.told = one("#sending-told", form);
    this.button = one("#send", form);
    this.csrf = document.body.dataset.csrf;
    this.batch = form.dataset.batch ?? "";
    this.chosen = [];
    this.input.addEventListener("change", () => this.choose([...this.input.files]));
    form.addEventListener("submit", event => { event.preventDefault(); this.send(); });
    const drop = one("#drop", form);
    for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, event => { event.preventDefault(); drop.classList.add("over"); });
    for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
    drop.addEventListener("drop", event => { event.preventDefault(); this.choose([...event.dataTransfer.files]); });
    addEventListener("beforeunload", event => { if (this.isSending) event.preventDefault(); });
  }

  choose(files) {
    for (const { url } of this.chosen) if (url) URL.revokeObjectURL(url);
    const sorted = files.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
    this.chosen = sorted.map((file, index) => this.row(file, index + 1));
    this.list.replaceChildren(...this.chosen.map(({ row }) => row));
    this.told.textContent = files.length > 400 ? "At most 400 files at a time." : `${files.length} chosen`;
    this.button.disabled = files.length > 400 || !files.length;
  }

  row(file, number) {
    const make = (name, text = "", kind = "span") => Object.assign(document.createElement(kind), { className: name, textContent: text });
    const row = document.createElement("li");
    const url = /^image\/(jpeg|png|bmp|webp)$/.test(file.type) ? URL.createObjectURL(file) : "";
    const preview = url ? Object.assign(new Image(), { src: url, alt: "", loading: "lazy" }) : make("nothing");
    const bar = Object.assign(document.createElement("progress"), { max: 1, value: 0 });
    bar.setAttribute("aria-label", `Progress of ${file.name}`);
    const state = make("state soft", `${(file.size / 1e6).toFixed(1)} MB`);
    row.append(preview, make("name", file.name), bar, state);
    return { file, number, row, bar, state, url };
  }

  async send() {
    if (!this.chosen.length || this.isSending) return;
    this.isSending = true;
    this.button.disabled = true;
    try {
      if (!this.batch) await this.begin();
      let done = 0, refused = 0;
      for (const item of this.chosen) {
        const answer = await this.sendOne(item);
        done += 1;
        refused += answer.taken ? 0 : 1;
        this.told.textContent = `${done} of ${this.chosen.length} sent${refused ? `, ${refused} refused` : ""}`;
      }
      this.isSending = false;
      location.assign(`/upload/${this.batch}`);
    } catch (error) {
      this.told.textContent = error.message;
      this.told.className = "bad";
    } finally {
      this.isSending = false;
      this.button.disabled = false;
    }
  }

  async begin() {
    const data = new FormData(this.form);
    data.delete("files");
    data.set("expected", this.chosen.length);
    const answer = await fetch("/upload", { method: "POST", body: data, headers: { accept: "application/json", "x-csrf-token": this.csrf } });
    const told = await answer.json();
    if (!told.batch) throw new Error(told.message ?? told.detail ?? "The upload was not begun.");
    this.batch = told.batch;
    history.replaceState(null, "", `/upload/${this.batch}`);
  }

  async sendOne(item) {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.post(item);
      } catch (error) {
        if (attempt >= 4) { this.show(item, "bad", error.message); throw new Error(`${item.file.name}: ${error.message} Choose the files again: what is here already is not taken twice.`); }
        this.show(item, "warn", `again in ${attempt * 2} s: ${error.message}`);
        await new Promise(wake => setTimeout(wake, attempt * 2000));
      }
    }
  }

  // XMLHttpRequest, as fetch tells no progress of what it sends.
  post(item) {
    return new Promise((resolve, reject) => {
      const data = new FormData();
      data.set("number", item.number);
      data.set("files", item.file);
      const request = new XMLHttpRequest();
      request.open("POST", `/upload/${this.batch}`);
      request.setRequestHeader("accept", "application/json");
      request.setRequestHeader("x-csrf-token", this.csrf);
      request.upload.addEventListener("progress", event => { if (event.lengthComputable) item.bar.value = event.loaded / event.total; });
      request.addEventListener("error", () => reject(new Error("the connection was lost.")));
      request.addEventListener("load", () => {
        let told = {};
        try { told = JSON.parse(request.responseText); } catch { /* a proxy's page */ }
        if (request.status >= 500) return reject(new Error("the service does not answer now."));
        const file = told.files?.[0] ?? { taken: false, message: told.detail ?? `refused (${request.status})` };
        item.bar.value = 1;
        this.show(item, file.taken ? "ok" : "bad", file.taken ? (file.again ? "was here already" : "taken") : file.message);
        resolve(file);
      });
      request.send(data);
    });
  }

  show(item, look, words) {
    item.state.className = `state ${look}`;
    item.state.textContent = words;
  }
}

const uploadForm = one("#upload-form");
if (uploadForm) new Upload(uploadForm);
