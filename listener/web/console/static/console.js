// The console's only script: keys, zoom, uploads and live pages. Every page works without it.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);
const isTyping = target => target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]");

for (const element of all("[data-needs-script]")) element.hidden = false;

// --- live pages: fetch the page again and swap what is marked

async function refresh() {
  const answer = await fetch(location.href, { headers: { accept: "text/html", "x-background": "1" } });
  if (!answer.ok || answer.redirected) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const old of all("[data-swap]")) {
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
    waiting = setTimeout(refresh, 150);
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

if (document.body.dataset.page === "smear") {
  const heat = one("#heat");
  heat?.addEventListener("change", () => showHeat(heat.checked));
  addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey || isTyping(event.target)) return;
    const link = event.target.closest?.("[data-gallery] a.look");
    if (link && event.key.startsWith("Arrow") && !event.shiftKey) {
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
  const flip = id => { const box = one(id); if (box) { box.checked = !box.checked; toggle(box); } };
  const go = rel => { const link = one(`.toolbar a[rel=${rel}]`); if (link) link.click(); return Boolean(link); };
  addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey || isTyping(event.target)) return;
    const acts = {
      "+": () => viewer.zoom(1.5), "=": () => viewer.zoom(1.5), "-": () => viewer.zoom(1 / 1.5), "0": () => viewer.whole(),
      o: () => flip("#show-outlines"), l: () => flip("#show-labels"), h: () => flip("#show-heat"),
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
