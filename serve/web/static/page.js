// What HTML cannot do by itself. One listener each on the document, so that new results need no wiring.
(() => {
  "use strict";
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // ---- sliders inside results
  const sliders = {
    heat(input) {
      one(".cf-over", input.closest("figure")).style.opacity = input.value / 100;
      input.setAttribute("aria-valuetext", `${input.value} percent`);
    },
    split(input) {
      one(".cf-compare", input.closest("section")).style.setProperty("--split", `${input.value}%`);
      input.setAttribute("aria-valuetext", `${input.value} percent`);
    },
    moment(input) {
      const figure = input.closest("figure");
      const moments = all(".cf-moment", figure), now = moments[input.value];
      moments.forEach((each) => { each.hidden = each !== now; });
      const full = one(".cf-full[data-src]", now);
      if (full) { full.src = full.dataset.src; delete full.dataset.src; }
      one(".cf-cursor", figure).setAttribute("transform", `translate(${now.dataset.x} 0)`);
      input.setAttribute("aria-valuetext", now.dataset.words);
    },
  };
  document.addEventListener("input", (event) => {
    const act = sliders[event.target.dataset && event.target.dataset.cf];
    if (act) act(event.target);
  });
  const setSlider = (input, value) => { input.value = value; sliders[input.dataset.cf](input); };

  // ---- clicks
  const clicks = {
    sort: (button) => sortBy(button.closest("th")),
    forget() { localStorage.removeItem(HISTORY); showHistory(); },
    magnify(button) {
      const figure = one("figure", button.closest(".cf-left")), image = one("img", figure);
      const on = figure.classList.toggle("cf-zoomed");
      button.setAttribute("aria-pressed", on);
      figure.tabIndex = on ? 0 : -1;
      if (on && button.dataset.src) { image.src = button.dataset.src; delete button.dataset.src; }
      if (on) { figure.setAttribute("role", "group"); figure.setAttribute("aria-label", "The picture, enlarged; arrow keys move it"); figure.focus(); }
    },
    chart(chart, event) { // the nearest moment
      const figure = chart.closest("figure"), drawn = one("svg", chart);
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawn.getScreenCTM().inverse());
      const places = all(".cf-moment", figure).map((each) => Math.abs(each.dataset.x - point.x));
      setSlider(one("[data-cf=moment]", figure), places.indexOf(Math.min(...places)));
    },
    compare(stage, event) {
      const box = stage.getBoundingClientRect();
      setSlider(one("[data-cf=split]", stage.closest("section")), Math.round(100 * (event.clientX - box.left) / box.width));
    },
  };
  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-cf]");
    const act = target && clicks[target.dataset.cf];
    if (act) act(target, event);
  });

  function sortBy(heading) {
    const table = heading.closest("table"), body = table.tBodies[0];
    const column = [...heading.parentNode.children].indexOf(heading);
    const falling = heading.getAttribute("aria-sort") === "ascending";
    all("th[aria-sort]", table).forEach((each) => each.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = (row) => { const cell = row.cells[column]; return cell.dataset.key ?? cell.textContent.trim(); };
    const rows = [...body.rows], numeric = rows.every((row) => key(row) !== "" && !isNaN(key(row)));
    rows.sort(numeric ? (a, b) => key(a) - key(b) : (a, b) => key(a).localeCompare(key(b), undefined, { numeric: true }));
    body.append(...(falling ? rows.reverse() : rows));
  }

  // ---- a box drawn on the picture fills in the form below it
  let from = null;
  const place = (event, box) => [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]
    .map((share) => 100 * Math.min(1, Math.max(0, share)));
  document.addEventListener("pointerdown", (event) => {
    const stage = event.target.closest(".cf-picture"), left = stage && stage.closest(".cf-left");
    const form = left && one(".cf-draw[open] form", left);
    if (!form) return;
    event.preventDefault();
    from = { form, stage, start: place(event, stage.getBoundingClientRect()) };
  });
  document.addEventListener("pointermove", (event) => {
    if (!from) return;
    const end = place(event, from.stage.getBoundingClientRect()), [x, y] = from.start;
    const found = { x: Math.min(x, end[0]), y: Math.min(y, end[1]), width: Math.abs(x - end[0]), height: Math.abs(y - end[1]) };
    for (const [name, value] of Object.entries(found)) from.form.elements[name].value = value.toFixed(1);
    showBox(from.form, from.stage);
  });
  document.addEventListener("pointerup", () => { from = null; });
  function showBox(form, stage) {
    const space = "http://www.w3.org/2000/svg";
    let drawn = one(".cf-drawn", stage);
    if (!drawn) {
      drawn = document.createElementNS(space, "svg");
      drawn.classList.add("cf-boxes", "cf-drawn");
      drawn.append(document.createElementNS(space, "rect"));
      stage.append(drawn);
    }
    for (const name of ["x", "y", "width", "height"]) drawn.firstChild.setAttribute(name, `${form.elements[name].value || 0}%`);
  }
  document.addEventListener("input", (event) => {
    const form = event.target.closest(".cf-draw form");
    if (form) showBox(form, one(".cf-picture", form.closest(".cf-left")));
  });

  // ---- files: sent when all are chosen; dropped and pasted ones go into the first empty place
  const give = (input, files) => {
    const transfer = new DataTransfer();
    (input.multiple ? files : files.slice(0, 1)).forEach((file) => transfer.items.add(file));
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  const inputs = () => all(".cf-upload input[name][type=file]");
  document.addEventListener("change", (event) => {
    const form = event.target.closest("[data-cf=upload]");
    if (!form || event.target.type !== "file") return;
    if (event.target.dataset.cf === "folder") return give(one("input[name]", form), [...event.target.files]);
    if (inputs().every((each) => each.files.length)) form.requestSubmit();
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData ? event.clipboardData.files : [])];
    const input = inputs().find((each) => !each.files.length) || inputs()[0];
    if (!files.length || !input || event.target.closest("textarea, input:not([type=file])")) return;
    event.preventDefault();
    give(input, files);
  });
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer && [...event.dataTransfer.types].includes("Files")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    const files = [...(event.dataTransfer ? event.dataTransfer.files : [])];
    const label = event.target.closest && event.target.closest(".cf-drop");
    const input = label ? one("input", label) : inputs().find((each) => !each.files.length) || inputs()[0];
    if (!files.length || !input) return;
    event.preventDefault();
    give(input, files);
  });
  document.addEventListener("htmx:xhr:progress", (event) => {
    const bar = one(".cf-sending progress", event.target);
    if (bar && event.detail.lengthComputable) bar.value = event.detail.loaded / event.detail.total;
  });
  document.addEventListener("htmx:beforeRequest", (event) => { const bar = one(".cf-sending", event.target); if (bar) bar.hidden = false; });
  document.addEventListener("htmx:afterRequest", (event) => { const bar = one(".cf-sending", event.target); if (bar) bar.hidden = true; });
  document.addEventListener("htmx:sendError", () => {
    one("#cf-said").textContent = "The server cannot be reached. Look whether it still runs, and try again.";
  });

  // ---- what was looked at, in this browser alone
  const HISTORY = "crossfake.history", MOST = 30;
  const history = () => { try { return JSON.parse(localStorage.getItem(HISTORY)) || []; } catch { return []; } };
  function remember() {
    const shown = one(".cf-result[data-sha256]"), files = one("#cf-files");
    if (!shown || !files || !files.childElementCount) return;
    const { name, verdict, when, sha256 } = shown.dataset;
    const others = history().filter((each) => each.sha256 !== sha256);
    try { localStorage.setItem(HISTORY, JSON.stringify([{ name, verdict, when, sha256 }, ...others].slice(0, MOST))); } catch { /* full, or not allowed */ }
  }
  function showHistory() {
    const section = one("#cf-history"), found = history();
    if (!section) return;
    section.hidden = !found.length;
    one("ul", section).replaceChildren(...found.map((each) => {
      const item = document.createElement("li");
      item.textContent = `${each.name}: ${each.verdict}, ${String(each.when).replace("T", " ").slice(0, 16)} UTC, SHA-256 ${String(each.sha256).slice(0, 12)}…`;
      return item;
    }));
  }

  // ---- a sign of life, so that what was sent is deleted when the page is closed
  const tab = crypto.getRandomValues(new Uint32Array(2)).join("");
  const here = () => fetch("/here", { method: "POST", body: new URLSearchParams({ tab }) }).catch(() => {});
  setInterval(here, 45000);
  addEventListener("pagehide", () => navigator.sendBeacon("/leave", new URLSearchParams({ tab })));
  addEventListener("pageshow", here);

  // ---- once for what is new on the page
  function prepare() {
    all(".cf-tools[hidden], .cf-folder[hidden]").forEach((each) => { each.hidden = false; });
    all("[data-cf=moment]").forEach((input) => {
      if (!one(".cf-cursor", input.closest("figure")).hasAttribute("transform")) sliders.moment(input);
    });
    remember();
    showHistory();
  }
  document.addEventListener("htmx:load", (event) => {
    if (event.target.id === "cf-main") { here(); scrollTo(0, 0); }
    prepare();
  });
  document.addEventListener("htmx:sseMessage", prepare);
  prepare();
})();
