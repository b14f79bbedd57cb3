"use strict";
// Texts of the user only ever become text nodes, so that no markup in them can come alive.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const SVG = document.querySelector("#plot svg").namespaceURI;
  const state = { board: null, measure: 0, a: 0, b: 1, sort: 1, down: true, point: null, filter: "", query: null, shown: 0 };
  const LISTED = 50;

  /* ---- making elements ---- */
  const fill = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  };
  const h = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
  const s = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);
  const auto = (name, text, style = null) => h(name, { dir: "auto", class: style }, text);
  const marked = (parts) => parts.map((part, i) => (i % 2 ? h("mark", {}, part) : part));

  /* ---- saying numbers ---- */
  const count = (number) => number.toLocaleString("en");
  const counted = (number, what) => `${count(number)} ${number === 1 ? what : what.endsWith("y") ? `${what.slice(0, -1)}ies` : `${what}s`}`;
  const three = (value) => Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 3 });
  const quality = (value) => value.toFixed(3);
  const signed = (value) => `${value < 0 ? "−" : value > 0 ? "+" : "±"}${Math.abs(value).toFixed(3)}`;
  const percent = (part, whole) => `${((100 * part) / whole).toFixed(1)} %`;
  const bytes = (value) => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    const power = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(1, value)) / 3)));
    return `${three(value / 1000 ** power)} ${units[power]}`;
  };
  const duration = (value) =>
    value < 1 ? `${three(value * 1000)} ms`
    : value < 120 ? `${three(value)} s`
    : value < 7200 ? `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`
    : `${Math.floor(value / 3600)} h ${Math.round((value % 3600) / 60)} min`;
  const known = (value, say) => (value === null ? "–" : say(value));
  const short = (text, length = 26) => ([...text].length > length ? `${[...text].slice(0, length - 1).join("")}…` : text);
  const value = (query, retriever) => query.values[retriever][state.measure] / data.steps;
  const solo = () => state.board.retrievers.length === 1;
  const name = (retriever) => state.board.retrievers[retriever].name;
  const measure = () => state.board.measures[state.measure];
  const difference = (query) => (solo() ? 0 : value(query, state.a) - value(query, state.b));

  /* ---- the table ---- */
  const columns = () => {
    const cost = (label, key, say) => ({ label, of: (r) => r.cost[key], cell: (r) => [known(r.cost[key], say)] });
    return [
      { label: "Retriever", of: (r) => r.name, text: true },
      ...state.board.measures.map((label, m) => ({ label, of: (r) => r.means[m], cell: (r) => withInterval(r, m) })),
      { label: "Against the best", of: (r) => (r.against ? r.against.difference : 0), cell: against },
      cost("Index time", "index_seconds", duration),
      cost("On disk", "index_bytes", bytes),
      cost("Memory", "memory_bytes", bytes),
      cost("Queries/s", "queries_per_second", three),
      cost("p50", "p50_ms", (ms) => duration(ms / 1000)),
      cost("p95", "p95_ms", (ms) => duration(ms / 1000)),
    ];
  };
  const bounds = (r, m) => r.intervals[m] || [r.means[m], r.means[m]];
  const withInterval = (r, m) => {
    const all = state.board.retrievers.map((other) => bounds(other, m));
    const low = Math.min(...all.map((found) => found[0]));
    const span = Math.max(...all.map((found) => found[1])) - low || 1;
    const x = (v) => 4 + (88 * (v - low)) / span;
    const [from, to] = bounds(r, m);
    const range = r.intervals[m] ? `${quality(from)} – ${quality(to)}` : "no interval";
    return [
      quality(r.means[m]),
      h("span", { class: "under" }, range),
      s("svg", { viewBox: "0 0 96 10", "aria-hidden": true },
        s("line", { class: "grid", x1: 4, x2: 92, y1: 5, y2: 5 }),
        s("path", { class: "whisker", fill: "none", d: `M${x(from)} 2v6M${x(from)} 5H${x(to)}M${x(to)} 2v6` }),
        s("circle", { class: "dot", cx: x(r.means[m]), cy: 5, r: 2.5 })),
    ];
  };
  const against = (r) => {
    if (!r.against) return [h("span", { class: "best" }, solo() ? "–" : "best")];
    const p = r.against.p < 0.001 ? "p < 0.001" : `p = ${r.against.p.toFixed(3)}`;
    const said = r.against.behind ? "beyond chance" : "may be chance";
    return [signed(r.against.difference), h("span", { class: "under" }, p), h("span", { class: r.against.behind ? "under behind" : "under" }, said)];
  };
  const sorted = () => {
    const { of, text } = columns()[state.sort];
    const sign = state.down ? -1 : 1;
    return [...state.board.retrievers].sort((x, y) => {
      const [p, q] = [of(x), of(y)];
      if (text) return sign * p.localeCompare(q);
      return (p === null) - (q === null) || sign * (p - q);
    });
  };
  const renderHead = () => {
    const cells = columns().map(({ label, text }, i) =>
      h("th", { scope: "col" }, h("button", {
        type: "button",
        onclick: () => {
          const better = i > 0 && i <= state.board.measures.length + 1; // the first click shows the best on top
          state.down = state.sort === i ? !state.down : better || label === "Queries/s";
          state.sort = i;
          renderRows();
        },
      }, text ? label : auto("span", label))));
    document.querySelector("#board thead").replaceChildren(h("tr", {}, ...cells));
  };
  const renderRows = () => {
    document.querySelectorAll("#board thead th").forEach((cell, i) => {
      if (i === state.sort) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    const rows = sorted().map((r) =>
      h("tr", {}, ...columns().map((column) =>
        column.text ? h("th", { scope: "row", dir: "auto" }, r.name) : h("td", {}, ...column.cell(r)))));
    document.querySelector("#board tbody").replaceChildren(...rows);
  };
  const renderBoard = () => {
    const board = state.board;
    const facts = [board.documents === null ? null : counted(board.documents, "document"), counted(board.total, "query")];
    if (board.uniqueness !== null) facts.push(`${percent(board.uniqueness, 1)} of the queries have only one document that can answer`);
    at("facts").replaceChildren("Task ", auto("strong", board.task), ` · ${facts.filter(Boolean).join(" · ")}`);
    at("verdict").textContent = board.verdict;
    at("notes").replaceChildren(...board.notes.map((note) => auto("li", note)));
    at("table-hint").textContent =
      "Means over all queries, with 95 % intervals by the bootstrap; each column of whiskers has a scale of its own. " +
      (solo() ? "" : `“Against the best” is the difference in ${board.measures[0]}, with p corrected for all pairs. `) +
      "Index time is from nothing, shared embeddings counted in full. Memory is the most that a fresh process held which " +
      "opened the collection and answered queries one at a time, as p50 and p95 are timed; queries/s is in batches.";
    at("settings").replaceChildren(...board.retrievers.filter((r) => Object.keys(r.settings).length).map((r) =>
      h("details", {}, h("summary", {}, "Settings of ", auto("bdi", r.name)),
        h("dl", {}, ...Object.entries(r.settings).flatMap(([key, text]) => [auto("dt", key), auto("dd", text)])))));
    renderHead();
    renderRows();
  };

  /* ---- axes ---- */
  const steps = (low, high) => {
    const step = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2].find((size) => (high - low) / size <= 6) || 0.25;
    const ticks = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9; i++) ticks.push(Number((i * step).toFixed(4)));
    return ticks;
  };
  const logs = (low, high) => {
    const ticks = [];
    const span = Math.log10(high / low);
    const digits = span > 2.2 ? [1] : span > 0.7 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 8];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const digit of digits) {
        const tick = Number((digit * 10 ** power).toPrecision(2));
        if (tick >= low && tick <= high) ticks.push(tick);
      }
    }
    return ticks;
  };
  const axes = (box, x, y, xs, ys, xName, yName, say) => [
    ...xs.flatMap((tick) => [
      s("line", { class: "grid", x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom }),
      s("text", { x: x(tick), y: box.bottom + 18, "text-anchor": "middle" }, say(tick))]),
    ...ys.flatMap((tick) => [
      s("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
      s("text", { x: box.left - 8, y: y(tick) + 4, "text-anchor": "end" }, String(tick))]),
    s("path", { class: "axis", fill: "none", d: `M${box.left} ${box.top}V${box.bottom}H${box.right}` }),
    s("text", { class: "name", x: (box.left + box.right) / 2, y: box.bottom + 38, "text-anchor": "middle" }, xName),
    s("text", { class: "name", x: 0, y: 0, "text-anchor": "middle", transform: `translate(14 ${(box.top + box.bottom) / 2}) rotate(-90)` }, yName),
  ];

  /* ---- quality against latency ---- */
  const renderPlot = () => {
    const svg = document.querySelector("#plot svg");
    const m = state.measure;
    const timed = state.board.retrievers.filter((r) => r.cost.p50_ms > 0);
    const untimed = state.board.retrievers.filter((r) => !(r.cost.p50_ms > 0));
    at("plot").hidden = !timed.length;
    const hints = [];
    if (timed.length) hints.push("Up and to the left is better. Lines are 95 % intervals" + (timed.some((r) => r.against && r.against.behind) ? `; a hollow point is behind the best in ${state.board.measures[0]} beyond chance.` : "."));
    if (untimed.length) hints.push(`Without latency: ${untimed.map((r) => `${r.name} (${measure()} ${quality(r.means[m])})`).join(", ")}.`);
    at("plot-hint").textContent = hints.join(" ");
    if (!timed.length) return;
    const width = at("plot").clientWidth || 600;
    const height = width < 560 ? 320 : 380;
    const box = { left: 58, right: width - 12, top: 12, bottom: height - 46 };
    const all = timed.flatMap((r) => [...bounds(r, m), r.means[m]]);
    const pad = Math.max(0.01, 0.12 * (Math.max(...all) - Math.min(...all)));
    const [low, high] = [Math.max(0, Math.min(...all) - pad), Math.min(1, Math.max(...all) + pad)];
    const times = timed.map((r) => r.cost.p50_ms);
    const [first, last] = [Math.min(...times) / 1.7, Math.max(...times) * 1.7];
    const x = (ms) => box.left + ((box.right - box.left) * Math.log(ms / first)) / Math.log(last / first);
    const y = (v) => box.bottom - ((box.bottom - box.top) * (v - low)) / (high - low || 1);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren(...axes(box, x, y, logs(first, last), steps(low, high), "p50 latency, ms (log scale)", measure(), (tick) => tick.toLocaleString("en")));
    const placed = timed.map((r) => {
      const [from, to] = bounds(r, m);
      const [cx, cy] = [x(r.cost.p50_ms), y(r.means[m])];
      const said = `${r.name}: ${measure()} ${quality(r.means[m])}${r.intervals[m] ? `, 95 % interval ${quality(from)} to ${quality(to)}` : ""}; p50 ${duration(r.cost.p50_ms / 1000)}`;
      svg.append(s("g", { role: "img", tabindex: 0, "aria-label": said },
        s("title", {}, said),
        s("path", { class: "whisker", fill: "none", d: `M${cx - 4} ${y(to)}h8M${cx} ${y(to)}V${y(from)}M${cx - 4} ${y(from)}h8` }),
        s("circle", { class: r.against && r.against.behind ? "dot far" : "dot", cx, cy, r: 5.5 })));
      return { r, cx, cy, boxes: [[cx - 7, cy - 7, cx + 7, cy + 7], [cx - 4, y(to), cx + 4, y(from)]] };
    });
    const taken = placed.flatMap((point) => point.boxes);
    for (const point of [...placed].sort((p, q) => p.cx - q.cx)) taken.push(label(svg, point, box, taken));
  };
  // The nearest free place beside a point; where none is free, the one that covers least.
  const label = (svg, { r, cx, cy }, box, taken) => {
    const text = s("text", { class: "label" }, short(r.name));
    svg.append(text);
    const width = text.getComputedTextLength() || 7 * r.name.length;
    let best = null;
    for (const [far, reach] of [0, 18, 36, 54, 72].flatMap((dy) => [0, 25, 50, 75, 100].map((dx) => [dy, dx]))) {
      for (const [side, dy] of [[1, 0], [-1, 0], [1, -1], [1, 1], [-1, -1], [-1, 1]]) {
        const left = side > 0 ? cx + 11 + reach : cx - 11 - reach - width;
        const middle = cy + dy * far;
        const area = [left - 2, middle - 8, left + width + 2, middle + 8];
        const outside = area[0] < box.left || area[2] > box.right + 8 || area[1] < box.top - 8 || area[3] > box.bottom;
        const covered = taken.reduce((sum, other) => sum + overlap(area, other), 0);
        const bad = covered + (outside ? 1e4 : 0) + far + reach;
        if (!best || bad < best.bad) best = { bad, area, left, middle, side, away: dy * far || reach };
      }
    }
    if (best.away) svg.insertBefore(s("line", { class: "lead", x1: cx, y1: cy, x2: best.side > 0 ? best.left - 2 : best.left + width + 2, y2: best.middle }), text);
    text.setAttribute("x", best.left);
    text.setAttribute("y", best.middle + 4.5);
    return best.area;
  };
  const overlap = (p, q) => 100 * Math.max(0, Math.min(p[2], q[2]) - Math.max(p[0], q[0])) * Math.max(0, Math.min(p[3], q[3]) - Math.max(p[1], q[1]));

  /* ---- query by query ---- */
  const counts = () => {
    const [low, high] = [Math.min(state.a, state.b), Math.max(state.a, state.b)];
    const row = (low * (2 * state.board.retrievers.length - low - 1)) / 2 + high - low - 1;
    const found = state.board.pairs[row][state.measure];
    return state.a < state.b ? found : [...found].reverse();
  };
  const renderShare = () => {
    if (solo()) return;
    const [won, tied, lost] = counts();
    const total = won + tied + lost;
    const bar = h("div", { class: "parts", "aria-hidden": true });
    for (const [part, style] of [[won, "is-a"], [tied, "is-tie"], [lost, "is-b"]]) {
      const piece = h("i", { class: style });
      piece.style.flexGrow = part;
      if (part) bar.append(piece);
    }
    at("share").replaceChildren(
      h("span", { class: "is-a", dir: "auto" }, name(state.a)), ` is better on ${counted(won, "query")} (${percent(won, total)}), `,
      h("span", { class: "is-tie" }, `both are equal on ${count(tied)} (${percent(tied, total)})`), ", ",
      h("span", { class: "is-b", dir: "auto" }, name(state.b)), ` is better on ${count(lost)} (${percent(lost, total)}).`, bar);
  };
  const key = (query) => `${Math.round(100 * value(query, state.a))},${Math.round(100 * value(query, state.b))}`;
  const renderScatter = () => {
    if (solo()) return;
    const svg = document.querySelector("#scatter svg");
    const width = Math.min(560, at("scatter").clientWidth || 480);
    const box = { left: 60, right: width - 14, top: 14, bottom: width - 48 };
    const inset = 18; // so that points on the edges lie within the axes
    const x = (v) => box.left + inset + (box.right - box.left - 2 * inset) * v;
    const y = (v) => box.bottom - inset - (box.bottom - box.top - 2 * inset) * v;
    const ticks = [0, 0.25, 0.5, 0.75, 1];
    const groups = new Map();
    for (const query of state.board.queries) groups.set(key(query), [...(groups.get(key(query)) || []), query]);
    const most = Math.max(1, ...[...groups.values()].map((found) => found.length));
    svg.setAttribute("viewBox", `0 0 ${width} ${width}`);
    svg.style.maxWidth = `${width}px`;
    const fits = Math.max(6, Math.floor((box.bottom - box.top) / 7.5) - measure().length - 8);
    const title = (r, letter) => `${measure()} of ${short(name(r), fits)} (${letter})`;
    const better = (r, letter) => `${width < 460 ? letter : short(name(r), 18)} better`;
    svg.replaceChildren(
      ...axes(box, x, y, ticks, ticks, title(state.a, "A"), title(state.b, "B"), String),
      s("line", { class: "diagonal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
      s("text", { class: "side-b", x: x(0.28), y: y(0.8), "text-anchor": "middle" }, better(state.b, "B")),
      s("text", { class: "side-a", x: x(0.72), y: y(0.19), "text-anchor": "middle" }, better(state.a, "A")));
    const points = [...groups].sort((p, q) => q[1].length - p[1].length).map(([where, found], i) => {
      const [across, up] = where.split(",").map((part) => part / 100);
      const size = found.length === 1 ? 4 : 6 + 11 * Math.sqrt((found.length - 1) / most);
      const style = across > up ? "a" : across < up ? "b" : "";
      const said = `${counted(found.length, "query")}: ${name(state.a)} ${across.toFixed(2)}, ${name(state.b)} ${up.toFixed(2)}`;
      return s("g", { class: `point ${style}${state.point === where ? " on" : ""}`, role: "button", tabindex: i ? -1 : 0, "aria-label": said, "data-where": where },
        s("title", {}, said),
        s("circle", { cx: x(across), cy: y(up), r: size }),
        size > 8 ? s("text", { x: x(across), y: y(up) + 4 }, count(found.length)) : null);
    });
    svg.append(...points);
  };
  const choosePoint = (where) => {
    state.point = state.point === where ? null : where;
    state.shown = LISTED;
    document.querySelectorAll("#scatter .point").forEach((point) => point.classList.toggle("on", point.dataset.where === state.point));
    renderList();
  };
  const listed = () => {
    const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
    return state.board.queries
      .filter((query) => !state.point || key(query) === state.point)
      .filter((query) => words.every((word) => `${query.text}\n${query.id}`.toLowerCase().includes(word)))
      .sort((p, q) => solo() ? value(p, 0) - value(q, 0) : Math.abs(difference(q)) - Math.abs(difference(p)));
  };
  const renderList = () => {
    const found = listed();
    at("list-title").textContent = solo() ? "Queries, the worst first" : "Queries where they differ most";
    at("chosen").hidden = !state.point;
    at("chosen").textContent = "Show all points ✕";
    const items = found.slice(0, state.shown).map((query) => {
      const by = difference(query);
      const style = by > 0 ? "is-a" : by < 0 ? "is-b" : "is-tie";
      const figures = solo() ? [quality(value(query, 0))]
        : [h("span", { class: style }, signed(by)), h("span", { class: "under" }, `${value(query, state.a).toFixed(2)} / ${value(query, state.b).toFixed(2)}`)];
      return h("li", {}, h("button", {
        type: "button",
        "aria-current": query === state.query ? "true" : null,
        onclick: () => { choose(query); at("detail").focus({ preventScroll: true }); at("detail").scrollIntoView({ block: "start" }); },
      }, auto("span", query.text, "text"), h("span", { class: "figures" }, ...figures)));
    });
    const left = found.length - items.length;
    at("queries").replaceChildren(...items);
    at("more").hidden = !left;
    at("more").textContent = `Show ${Math.min(LISTED, left)} more`;
    const hint = solo() || !found.length ? "" : ` Figures: A less B, then A / B, in ${measure()}.`;
    at("listed").textContent = found.length ? `${counted(found.length, "query")} here.${hint}` : "No query fits.";
  };
  const choose = (query) => {
    state.query = query;
    renderDetail();
    renderList();
  };

  /* ---- the chosen query ---- */
  const badge = (level) => (level ? h("span", { class: "badge" }, `relevant: ${level}`) : null);
  const heading = (number, query) => {
    const [id, title] = data.documents[number];
    const own = ((query.passages || {})[number] || [])[1];
    const breakable = (text) => text.split(/(?<=[./_:])/).flatMap((piece, i) => (i ? [h("wbr"), piece] : [piece]));
    return h("bdi", { class: "title" }, ...marked(own || [title || id]).flatMap((part) => (part.nodeType ? [part] : breakable(part))));
  };
  const hit = (query, number, rank, score, level, rest) => {
    const [id, title] = data.documents[number];
    const passage = ((query.passages || {})[number] || [])[0];
    return h("li", { class: level ? "relevant" : null },
      h("span", { class: "rank" }, rank), h("div", {}, heading(number, query), badge(level)), h("span", { class: "score" }, score),
      title || rest ? h("div", { class: "rest" }, ...(title ? [h("bdi", {}, id)] : []), title && rest ? ` · ${rest}` : rest) : null,
      passage && passage.join("") ? h("p", { dir: "auto" }, ...marked(passage)) : null);
  };
  const hits = (query, retriever, other) => {
    const levels = new Map(query.relevant);
    const there = other === null ? [] : query.hits[other];
    const items = query.hits[retriever].map((number, i) => {
      const rank = there.indexOf(number) + 1;
      const rest = other === null ? "" : rank ? `rank ${rank} in the other` : "";
      return hit(query, number, String(i + 1), String(query.scores[retriever][i]), levels.get(number), rest);
    });
    const further = query.further[retriever].map(([number, rank]) => hit(query, number, "", `rank ${count(rank)}`, levels.get(number), ""));
    const depth = query.depth[retriever];
    return h("div", { class: "list", "data-retriever": name(retriever) },
      h("header", { class: retriever === state.b && !solo() ? "is-b" : "is-a" }, auto("h3", name(retriever)), h("span", {}, `${measure()} ${quality(value(query, retriever))}`), items.length ? h("span", { class: "end" }, "score") : null),
      items.length ? h("ol", { class: "hits" }, ...items) : h("p", { class: "hint" }, "It found nothing."),
      further.length ? h("p", { class: "hint" }, `Relevant ones further down, of ${counted(depth, "hit")}:`) : null,
      further.length ? h("ol", { class: "hits further" }, ...further) : null);
  };
  const renderDetail = () => {
    const query = state.query;
    if (!query) return at("detail").replaceChildren();
    const pair = solo() ? [state.a] : [state.a, state.b];
    const found = new Set(pair.flatMap((r) => [...query.hits[r], ...query.further[r].map(([number]) => number)]));
    const missed = query.relevant.filter(([number]) => !found.has(number));
    const others = missed.map(([number, level]) => hit(query, number, "–", "", level, ""));
    const which = solo() ? "it did not find" : "neither found";
    at("detail").replaceChildren(
      auto("h3", query.text),
      h("p", { class: "id" }, "Query ", h("bdi", {}, query.id), query.passages ? "" : " · passages are left out of this page for this query"),
      h("div", { class: "lists" }, hits(query, state.a, solo() ? null : state.b), solo() ? null : hits(query, state.b, state.a)),
      others.length ? h("div", { class: "others" }, h("h3", {}, `Relevant documents that ${which}`), h("ol", { class: "hits" }, ...others)) : "",
      query.unnamed ? h("p", { class: "hint" }, `${counted(query.unnamed, "more relevant document")} for this query, not listed here.`) : "");
  };

  /* ---- everything ---- */
  const options = (select, names, chosen) => {
    select.replaceChildren(...names.map((text, i) => h("option", { value: i }, text)));
    select.value = chosen;
  };
  const renderPair = () => {
    renderShare();
    renderScatter();
    state.query = listed()[0] || null;
    renderList();
    renderDetail();
  };
  const renderTask = (number) => {
    const board = data.boards[number];
    Object.assign(state, { board, measure: 0, a: 0, b: 1, sort: 1, down: true, point: null, filter: "", shown: LISTED });
    at("filter").value = "";
    at("page").classList.toggle("solo", solo());
    const names = board.retrievers.map((r) => r.name);
    options(at("a"), names, 0);
    options(at("b"), names, solo() ? 0 : 1);
    document.querySelectorAll("select.measure").forEach((select) => options(select, board.measures, 0));
    const sample = [];
    if (board.queries.length < board.total) sample.push(`${count(board.queries.length)} of ${counted(board.total, "query")} are shown below: the most different and others drawn at random, alternately; the table and these shares count all.`);
    if (board.passages < board.queries.length) sample.push(`Passages are shown for ${counted(board.passages, "query")}, the most different first; the others show titles and ids.`);
    at("sample").textContent = sample.join(" ");
    renderBoard();
    renderPlot();
    renderPair();
  };
  const again = (change) => {
    change();
    Object.assign(state, { point: null, shown: LISTED });
    renderPair();
  };
  document.querySelectorAll("select.measure").forEach((select) => select.addEventListener("change", () => {
    const chosen = Number(select.value);
    document.querySelectorAll("select.measure").forEach((other) => { other.value = chosen; });
    again(() => { state.measure = chosen; });
    renderPlot();
  }));
  for (const [mine, theirs] of [["a", "b"], ["b", "a"]]) {
    at(mine).addEventListener("change", () => again(() => {
      const chosen = Number(at(mine).value);
      if (chosen === state[theirs]) state[theirs] = state[mine]; // the two change places
      state[mine] = chosen;
      at(theirs).value = state[theirs];
    }));
  }
  at("filter").addEventListener("input", () => { Object.assign(state, { filter: at("filter").value, shown: LISTED }); renderList(); });
  at("chosen").addEventListener("click", () => choosePoint(state.point));
  at("more").addEventListener("click", () => { state.shown += LISTED; renderList(); });
  const scatter = document.querySelector("#scatter svg");
  const pointOf = (event) => event.target.closest(".point");
  scatter.addEventListener("click", (event) => pointOf(event) && choosePoint(pointOf(event).dataset.where));
  scatter.addEventListener("keydown", (event) => {
    const points = [...scatter.querySelectorAll(".point")];
    const now = points.indexOf(pointOf(event));
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (now < 0 || !(step || event.key === "Enter" || event.key === " ")) return;
    event.preventDefault();
    if (!step) return choosePoint(points[now].dataset.where);
    const next = points[(now + step + points.length) % points.length];
    points[now].setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  });

  const dark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const nameTheme = () => { at("theme").textContent = dark() ? "Light" : "Dark"; at("theme").setAttribute("aria-label", dark() ? "Use light colours" : "Use dark colours"); };
  at("theme").addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; nameTheme(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
  nameTheme();

  at("theme").hidden = at("page").hidden = false;
  at("tasks").hidden = data.boards.length < 2;
  options(at("task"), data.boards.map((board) => board.task), 0);
  at("task").addEventListener("change", () => renderTask(Number(at("task").value)));
  renderTask(0);
  let drawn = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== drawn) { drawn = innerWidth; renderPlot(); renderScatter(); } });
})();
