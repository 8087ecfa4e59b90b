// Filters the cases, unfolds traces, and switches between light and dark. All text goes in as text, never as HTML.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const make = (tag, props = {}, ...inside) => {
    const element = Object.assign(document.createElement(tag), props);
    element.append(...inside);
    return element;
  };
  const draw = (tag, attributes, ...inside) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...inside);
    return element;
  };

  // Light and dark. If the page may not store anything, the choice lasts as long as the page.
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("roomwire-theme"); } catch { return null; } };
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => { $("theme").textContent = isDark() ? "Light" : "Dark"; };
  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();
  $("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("roomwire-theme", root.dataset.theme); } catch { /* the choice is not stored */ }
    label();
  });
  system.addEventListener("change", label);
  label();

  // The filter. The text of a case is read once, at the first search for words.
  const cases = [...document.querySelectorAll(".case")];
  const sections = [...document.querySelectorAll(".section")];
  const buttons = [...document.querySelectorAll("[data-verdict]")];
  const texts = new Map();
  const says = (item) => {
    if (!texts.has(item)) texts.set(item, item.textContent.toLowerCase().replace(/\s+/g, " "));
    return texts.get(item);
  };
  const within = (section, wanted) => section === wanted || section.startsWith(wanted + ".");
  function filter() {
    const words = $("text").value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdicts = buttons.filter((b) => b.getAttribute("aria-pressed") === "true").map((b) => b.dataset.verdict);
    const role = $("role").value, section = $("section").value, differ = $("differ")?.checked;
    let shown = 0;
    for (const item of cases) {
      const data = item.dataset;
      const fits = (!role || data.role === role) && (!section || within(data.section, section))
        && (!verdicts.length || data.verdicts.split(" ").some((verdict) => verdicts.includes(verdict)))
        && (!differ || "differs" in data) && words.every((word) => finds(item, word));
      item.hidden = !fits;
      shown += fits;
    }
    for (const group of sections) group.hidden = !group.querySelector(".case:not([hidden])");
    $("shown").textContent = shown === cases.length ? `${shown} cases` : `${shown} of ${cases.length}`;
    $("nothing").hidden = shown > 0;
  }
  // An id ends where the word ends: RW-JOIN-1 does not find RW-JOIN-10.
  function finds(item, word) {
    if (!/^rw-[a-z]+-\d+$/.test(word)) return says(item).includes(word);
    return new RegExp(word + "(?!\\d)").test(says(item));
  }
  function clear() {
    $("text").value = $("role").value = $("section").value = "";
    if ($("differ")) $("differ").checked = false;
    for (const button of buttons) button.setAttribute("aria-pressed", "false");
    filter();
  }
  document.querySelector(".filter").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["text", "role", "section", "differ"]) $(id)?.addEventListener("input", filter);
  for (const button of buttons) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      filter();
    });
  }
  $("clear").addEventListener("click", () => { clear(); $("text").focus(); });
  for (const button of document.querySelectorAll("[data-find]")) {
    button.addEventListener("click", () => {
      clear();
      $("text").value = button.dataset.find;
      filter();
      $("cases").scrollIntoView();
      $("text").focus({ preventScroll: true });
    });
  }
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      $("text").focus();
    } else if (event.key === "Escape" && event.target === $("text")) {
      clear();
    }
  });

  // A link to a case or a requirement unfolds the elements around it.
  function follow() {
    let target = null;
    try { target = $(decodeURIComponent(location.hash.slice(1))); } catch { return; }
    if (!target) return;
    if (target.closest("[hidden]")) clear();
    for (let element = target; element; element = element.parentElement) {
      if (element.tagName === "DETAILS") element.open = true;
    }
    target.scrollIntoView();
  }
  addEventListener("hashchange", follow);

  // Traces are data until they are unfolded.
  const HEIGHT = 28, EDGE = 36;
  document.addEventListener("toggle", (event) => {
    const element = event.target;
    if (!element.open) return;
    if (element.matches(".case")) {
      for (const trace of element.querySelectorAll(".trace[data-first]:not(:has(.steps))")) {
        trace.open = true;
      }
    } else if (element.matches(".trace") && !("drawn" in element.dataset)) {
      element.dataset.drawn = "";
      show(element);
    }
  }, true);

  async function show(element) {
    let steps;
    try {
      steps = diagram(await data(element.dataset.trace), element.dataset.role);
    } catch (error) {
      steps = make("p", { className: "steps problem", textContent: `This browser cannot read the trace: ${error}` });
    }
    element.append(steps);
    if ("first" in element.dataset) steps.scrollTop = steps.scrollHeight; // the failure is at the end
  }

  // A trace in the page is base64 of deflated JSON.
  async function data(id) {
    const octets = Uint8Array.from(atob(JSON.parse($(id).textContent)), (character) => character.charCodeAt(0));
    const stream = new Blob([octets]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }

  function diagram(rows, role) {
    const peers = [...new Set(rows.map((row) => row[1]))];
    const gap = peers.length > 8 ? 28 : 64;
    const lanes = peers.map((peer, at) => EDGE + at * gap);
    const end = lanes[lanes.length - 1] + Math.max(gap, 88);
    const width = end + EDGE;
    const picture = (...inside) => draw("svg", { width, height: HEIGHT, "aria-hidden": "true" }, ...inside);
    const lives = () => [...lanes, end].map((x) => draw("line", { class: "life", x1: x, x2: x, y1: 0, y2: HEIGHT }));
    const name = (x, text) => draw("text", { x, y: 18, "text-anchor": "middle" }, text);
    // A peer that has lines only is not a connection, but the suite itself.
    const speaks = (peer) => rows.some((row) => row[1] === peer && row[3] !== "line");
    const heads = peers.map((peer, at) => name(lanes[at], speaks(peer) ? peer : "suite"));
    const steps = make("div", { className: "steps" },
      make("div", { className: "lanes" }, make("span", { className: "at", textContent: "s" }),
        picture(...heads, name(end, role))));
    for (const row of rows) steps.append(step(row, picture, lives, lanes[peers.indexOf(row[1])], end));
    return steps;
  }

  function step([at, peer, by, kind, name, text, note, hex, length, fields], picture, lives, x, end) {
    const mark = by === "" ? [draw("circle", { class: "event", cx: x, cy: HEIGHT / 2, r: 4 })]
      : arrow(by === "suite" ? x : end, by === "suite" ? end : x, by);
    const rest = text.startsWith(name) ? text.slice(name.length) : kind === "line" ? "" : text && ` ${text}`;
    const what = make("span", { className: "what" });
    what.append(by === "" || kind === "line" ? name : make("b", { textContent: name }), rest);
    if (note) what.append(" ", make("span", { className: "note", textContent: note }));
    const who = by === "" ? peer : by === "suite" ? `${peer} sends` : `${peer} receives`;
    // Where there is no room for the picture, an arrow in the text says the direction.
    const way = by === "" ? peer : by === "suite" ? `${peer} →` : `${peer} ←`;
    const line = make("summary", {}, make("span", { className: "at", textContent: Number(at).toFixed(3) }),
      picture(...lives(), ...mark), make("span", { className: `way from-${by}`, textContent: way }), what);
    line.setAttribute("aria-label", `${who}: ${name}${rest} ${note}`);
    const element = make("details", { className: "step" }, line);
    if (!hex && !text) {
      element.className = "step plain";
      line.addEventListener("click", (event) => event.preventDefault());
    } else {
      element.addEventListener("toggle", () => {
        if (element.open && !element.querySelector(".inside")) element.append(inside(text, hex, length, fields || []));
      });
    }
    return element;
  }

  function arrow(from, to, by) {
    const y = HEIGHT / 2, back = to > from ? -7 : 7;
    return [draw("line", { class: `arrow from-${by}`, x1: from, x2: to + back / 2, y1: y, y2: y }),
      draw("path", { class: `from-${by}`, d: `M${to} ${y} l${back} -4 v8 z` })];
  }

  // Octets by field, sixteen a line. Octets that the trace did not keep are counted.
  function inside(text, hex, length, fields) {
    const table = make("table", { className: "fields" }, make("tbody"));
    const rows = fields.length ? fields : [[0, length || 0, "", ""]];
    const kept = hex.length / 2;
    for (const [at, count, name, value] of hex ? rows : []) {
      const octets = hex.slice(2 * at, 2 * Math.min(at + count, at + 128)).match(/../g) || [];
      const lines = [];
      for (let from = 0; from < octets.length; from += 16) lines.push(octets.slice(from, from + 16).join(" "));
      if (count > octets.length) lines.push(`${lines.length ? "... " : ""}${count} octets`);
      const cells = [at, lines.join("\n"), name, value];
      const row = make("tr", {}, ...cells.map((cell) => make("td", { textContent: cell })));
      row.cells[1].className = "hex";
      row.cells[3].className = "value";
      if (!count && name !== "and more" && fields.length) row.className = "remark";
      table.tBodies[0].append(row);
    }
    const box = make("div", { className: "inside" });
    if (text) box.append(make("div", { className: "full", textContent: text }));
    box.append(table);
    if (kept < length) box.append(make("div", { className: "dim", textContent: `${kept} of ${length} octets are kept` }));
    return box;
  }

  filter();
  follow();
})();
