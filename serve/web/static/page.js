// What Gradio's parts cannot do by themselves. One listener each on the document, so that new results need no wiring.
(() => {
  "use strict";
  const root = document.documentElement;
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // ---- sliders inside results
  const sliders = {
    heat(input) {
      one(".cf-over", input.closest("figure")).style.opacity = input.value / 100;
      input.setAttribute("aria-valuetext", `${input.value} percent`);
    },
    split(input) {
      const stage = input.closest("section").querySelector(".cf-compare");
      stage.style.setProperty("--split", `${input.value}%`);
      input.setAttribute("aria-valuetext", `${input.value} percent`);
    },
    moment(input) {
      const figure = input.closest("figure");
      const moments = all(".cf-moment", figure);
      moments.forEach((each, k) => { each.hidden = k !== Number(input.value); });
      const now = moments[input.value];
      const full = one(".cf-full", now);
      if (full && !full.src) full.src = full.dataset.src;
      one(".cf-cursor", figure).setAttribute("transform", `translate(${now.dataset.x} 0)`);
      input.setAttribute("aria-valuetext", now.dataset.words);
    },
    "walk-at"(input) {
      const pictures = all("img", input.closest("figure"));
      pictures.forEach((each, k) => { each.hidden = k !== Number(input.value); });
      input.setAttribute("aria-valuetext", `step ${Number(input.value) + 1} of ${pictures.length}`);
    },
  };
  document.addEventListener("input", (event) => {
    const act = sliders[event.target.dataset && event.target.dataset.cf];
    if (act) act(event.target);
  });

  // ---- clicks inside results
  const setSlider = (input, value) => { input.value = value; sliders[input.dataset.cf](input); };
  document.addEventListener("click", (event) => {
    const sort = event.target.closest("[data-cf=sort]");
    if (sort) return sortBy(sort.closest("th"));
    const send = event.target.closest("[data-cf=send]");
    if (send) return tell(send.dataset.value);
    const mark = event.target.closest("[data-at]");
    if (mark) return setSlider(one("[data-cf=moment]", mark.closest("figure")), mark.dataset.at);
    const chart = event.target.closest("[data-cf=chart]");
    if (chart) { // a click between marks takes the nearest
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
      const places = all(".cf-moment", chart.closest("figure")).map((each) => Math.abs(each.dataset.x - point.x));
      setSlider(one("[data-cf=moment]", chart.closest("figure")), places.indexOf(Math.min(...places)));
    }
    const stage = event.target.closest("[data-cf=compare]");
    if (stage) {
      const box = stage.getBoundingClientRect();
      setSlider(one("[data-cf=split]", stage.closest("section")), Math.round(100 * (event.clientX - box.left) / box.width));
    }
  });

  function sortBy(heading) {
    const table = heading.closest("table"), body = table.tBodies[0];
    const column = [...heading.parentNode.children].indexOf(heading);
    const falling = heading.getAttribute("aria-sort") === "ascending";
    all("th[aria-sort]", table).forEach((each) => each.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = (row) => { const cell = row.cells[column]; return cell.dataset.key ?? cell.textContent.trim(); };
    const compare = (a, b) => key(a).localeCompare(key(b), undefined, { numeric: true });
    const number = (a, b) => key(a) - key(b);
    const rows = [...body.rows], numeric = rows.every((row) => key(row) !== "" && !isNaN(key(row)));
    rows.sort(numeric ? number : compare);
    body.append(...(falling ? rows.reverse() : rows));
  }

  // Gradio takes a field's text over by and by, so the button is pressed a moment later
  function tell(value) {
    const field = one("#cf-sent textarea, #cf-sent input"), go = one("button#cf-go, #cf-go button");
    field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    setTimeout(() => go.click(), 60);
  }

  // ---- paste a picture anywhere: into the first empty upload of the tab that is open
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData ? event.clipboardData.files : [])];
    if (!files.length || event.target.closest("textarea, input[type=text]")) return;
    const inputs = all(".cf-upload input[type=file]").filter((input) => input.closest(".cf-upload").offsetParent);
    const input = inputs.find((each) => !each.dataset.cfUsed) || inputs[0];
    if (!input) return;
    event.preventDefault();
    const transfer = new DataTransfer();
    (input.multiple ? files : files.slice(0, 1)).forEach((file) => transfer.items.add(file));
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    if (inputs.length > 1) { inputs.forEach((each) => delete each.dataset.cfUsed); input.dataset.cfUsed = "1"; }
  });

  // ---- what Gradio leaves out for screen readers
  function mend() {
    all(".cf-status").forEach((each) => { each.setAttribute("role", "status"); each.setAttribute("aria-live", "polite"); });
    all(".cf-upload").forEach((block) => {
      const label = (one("[data-testid=block-label], label", block) || {}).textContent;
      const button = one("button", block), input = one("input[type=file]", block);
      if (label && button && !button.dataset.cfNamed) {
        button.dataset.cfNamed = "1";
        button.setAttribute("aria-label", label.trim());
      }
      if (label && input) { input.setAttribute("aria-label", label.trim()); input.tabIndex = -1; }
    });
    all("[data-cf=moment]").forEach((input) => {
      const cursor = one(".cf-cursor", input.closest("figure"));
      if (!cursor.hasAttribute("transform")) sliders.moment(input);
    });
  }
  new MutationObserver(mend).observe(root, { childList: true, subtree: true });
  document.addEventListener("DOMContentLoaded", mend);
})();
