#include "host/report/page.hpp"

namespace tenon {

// Categories: Okabe and Ito's colours, told apart with every kind of colour vision, a little lighter in the dark.
const char* const kPageStyle = R"css(
:root {
  color-scheme: light dark;
  --page: #fbfaf8; --card: #ffffff; --ink: #1f2328; --quiet: #63686f; --line: #e3e1dc; --accent: #1f2328;
  --good: #0a6ebd; --bad: #c1560a;
  --x0: #9aa0a8; --x1: #0072b2; --x2: #e08e00; --x3: #00936b; --x4: #c2649a; --x5: #3fa7e0; --x6: #cc5500;
  --x7: #b5a800; --x8: #6f55a8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15171a; --card: #1c1f23; --ink: #e6e4df; --quiet: #9aa0a8; --line: #30343a; --accent: #f2f0ea;
    --good: #5cb3f2; --bad: #f29a4a;
    --x0: #7f868f; --x1: #4aa8e0; --x2: #f0b040; --x3: #35c29a; --x4: #e08cc0; --x5: #8fd0f8; --x6: #f58a50;
    --x7: #d8cc40; --x8: #a994e0;
  }
}
.x0 { --c: var(--x0) } .x1 { --c: var(--x1) } .x2 { --c: var(--x2) } .x3 { --c: var(--x3) } .x4 { --c: var(--x4) }
.x5 { --c: var(--x5) } .x6 { --c: var(--x6) } .x7 { --c: var(--x7) } .x8 { --c: var(--x8) }
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 3.5rem }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
header, main, footer { max-width: 72rem; margin: 0 auto; padding: 0 clamp(1rem, 4vw, 2.5rem) }
header { padding-top: clamp(1.5rem, 5vw, 3.5rem) }
h1 {
  font-size: clamp(1.7rem, 5vw, 2.6rem); line-height: 1.1; margin: 0 0 .5rem; letter-spacing: -.02em;
  overflow-wrap: anywhere
}
h2 { font-size: 1.35rem; margin: 0 0 .25rem; letter-spacing: -.01em }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem }
h3 small, figcaption small { color: var(--quiet); font-weight: 400; margin-left: .6rem }
p { margin: 0 0 1rem }
.lead, .words { color: var(--quiet); max-width: 46rem }
.lead { font-size: 1.05rem }
nav {
  position: sticky; top: 0; z-index: 2; margin-top: 1.5rem; border-block: 1px solid var(--line);
  background: color-mix(in srgb, var(--page) 92%, transparent); backdrop-filter: blur(6px);
}
nav ul {
  list-style: none; display: flex; gap: 1.4rem; margin: 0 auto; max-width: 72rem; overflow-x: auto;
  padding: .65rem clamp(1rem, 4vw, 2.5rem); white-space: nowrap; scrollbar-width: none;
}
nav a { color: var(--quiet); text-decoration: none; font-size: .92rem }
nav a:hover, nav a:focus-visible { color: var(--ink) }
section { padding: 2.4rem 0 0 }
footer { color: var(--quiet); font-size: .85rem; padding-block: 3rem }
.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .9rem; margin: 1.6rem 0 0;
  padding: 0; list-style: none
}
.tiles li { background: var(--card); border: 1px solid var(--line); border-radius: .7rem; padding: .8rem 1rem }
.tiles b {
  display: block; font-size: 1.55rem; line-height: 1.25; font-weight: 600; font-variant-numeric: tabular-nums;
  letter-spacing: -.01em
}
.tiles span { color: var(--quiet); font-size: .88rem }
.wide { overflow-x: auto; margin-bottom: 1.2rem; background: var(--card); border: 1px solid var(--line); border-radius: .7rem }
.wide:focus-visible, button:focus-visible, summary:focus-visible, a:focus-visible {
  outline: 2px solid var(--good); outline-offset: 2px
}
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums }
th, td { padding: .55rem .8rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
tbody tr:last-child > * { border-bottom: 0 }
thead th { font-weight: 500; color: var(--quiet); font-size: .82rem; vertical-align: bottom; line-height: 1.3 }
thead svg { margin-top: .2rem } thead text { font-size: 11px; fill: var(--quiet) }
tbody th { font-weight: 600; white-space: nowrap }
td { white-space: nowrap }
td small, th small { display: block; color: var(--quiet); font-weight: 400; font-size: .78rem }
td b { font-weight: 600 }
#verdicts td { white-space: normal }
.swatch {
  display: inline-block; width: .72em; height: .72em; border-radius: .2em; background: var(--c); margin-right:
  .4em; vertical-align: .02em
}
.swatch.again {
  background: repeating-linear-gradient(45deg, var(--c) 0 2px, transparent 2px 4px); outline: 1px solid var(--c)
}
.legend {
  list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: 0 0 .8rem; padding: 0; font-size:
  .88rem; color: var(--quiet)
}
text.end { text-anchor: end } text.middle { text-anchor: middle }
.key svg { vertical-align: -.15em; margin-right: .35em; --c: var(--quiet) }
.heat { --tint: transparent; background: color-mix(in srgb, var(--tint) calc(var(--m) * 38%), transparent) }
.heat.better { --tint: var(--good) } .heat.worse { --tint: var(--bad) }
.heat small { color: color-mix(in srgb, var(--ink) 80%, transparent) }
.heat.unsure, .heat.unsure small { color: var(--quiet) }
.heat.own { box-shadow: inset 0 0 0 2px var(--accent) }
.word { padding: .05em .3em; border-radius: .25em; white-space: nowrap; color: var(--ink) }
.word.better { background: color-mix(in srgb, var(--good) 28%, transparent) }
.word.worse { background: color-mix(in srgb, var(--bad) 28%, transparent) }
.passed { color: var(--good); font-weight: 600 } .failed { color: var(--bad); font-weight: 600 }
svg { display: block } .key svg { display: inline-block }
.zero { stroke: var(--quiet); stroke-dasharray: 2 2; fill: none }
.whisker { stroke: var(--c, var(--accent)); stroke-width: 1.5; opacity: .55; fill: none }
.dot.alone { fill: var(--card); stroke: var(--c); stroke-width: 2 }
.dot.composed { fill: var(--accent) }
.dot.oracle { stroke: var(--quiet); stroke-width: 2.5; fill: none }
.whisker.oracle { stroke: var(--quiet) }
.part { fill: var(--c); stroke: var(--card); stroke-width: 1 } .part.again { fill-opacity: .55 }
.bar { border-radius: .25rem; max-width: 100% }
.switch {
  display: inline-flex; border: 1px solid var(--line); border-radius: .6rem; overflow: hidden; margin-bottom:
  1rem; max-width: 100%
}
.switch button {
  font: inherit; font-size: .88rem; color: var(--quiet); background: none; border: 0; padding: .35rem .8rem;
  cursor: pointer
}
.switch button[aria-pressed=true] { background: var(--ink); color: var(--page) }
html:not([data-ready]) .switch { display: none }
figure { margin: 0 0 1.2rem } figcaption { font-weight: 600; margin-bottom: .35rem }
.passage {
  background: var(--card); border: 1px solid var(--line); border-radius: .7rem; padding: .9rem 1.1rem; white-space:
  pre-wrap;
  overflow-wrap: anywhere; font: .9rem/1.85 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  unicode-bidi: isolate;
}
.passage span {
  border-radius: .2em; padding-block: .12em; -webkit-box-decoration-break: clone; box-decoration-break: clone
}
.passage .first { color: var(--quiet) }
.passage[data-by=expert] span:not(.first) {
  background: color-mix(in srgb, var(--c) calc(var(--a) * 34%), transparent);
  box-shadow: inset 0 -2px color-mix(in srgb, var(--c) calc(var(--a) * 100%), transparent);
}
.passage[data-by=expert] span.x0 { background: none; box-shadow: none }
.passage[data-by=expert] .again { text-decoration: underline dashed var(--c) }
.passage[data-by=gain] .better { background: color-mix(in srgb, var(--good) calc(var(--m) * 45%), transparent) }
.passage[data-by=gain] .worse { background: color-mix(in srgb, var(--bad) calc(var(--m) * 45%), transparent) }
.passage span.under { outline: 1.5px solid var(--ink) }
#tip {
  position: fixed; z-index: 3; pointer-events: none; max-width: min(20rem, calc(100vw - 1.5rem)); background:
  var(--ink); color: var(--page);
  border-radius: .5rem; padding: .45rem .7rem; font-size: .85rem; line-height: 1.4; overflow-wrap: anywhere;
}
#tip[hidden] { display: none }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: 1rem }
.chart {
  background: var(--card); border: 1px solid var(--line); border-radius: .7rem; padding: .8rem .9rem .5rem;
  margin: 0
}
.chart svg { width: 100%; height: auto }
.chart text { font-size: 10.5px; fill: var(--quiet); font-variant-numeric: tabular-nums }
.chart .note { paint-order: stroke; stroke: var(--card); stroke-width: 3px }
.grid { stroke: var(--line); fill: none } .axis { stroke: var(--quiet); fill: none }
.raw {
  stroke: var(--c); opacity: .3; fill: none } .smooth { stroke: var(--c); stroke-width: 2.2; fill: none;
  stroke-linejoin: round
}
.level { stroke: var(--quiet); stroke-dasharray: 4 3; fill: none } .level.own { stroke: var(--c) }
.chart .dot { fill: var(--c); stroke: var(--card); stroke-width: 1.5 }
details { border-bottom: 1px solid var(--line) } details:first-of-type { border-top: 1px solid var(--line) }
summary { cursor: pointer; padding: .65rem .2rem; font-weight: 600; overflow-wrap: anywhere }
summary span { color: var(--quiet); font-weight: 400; margin-right: .5rem }
dl {
  display: grid; grid-template-columns: minmax(8rem, 14rem) minmax(0, 1fr); gap: .3rem 1.2rem; margin: .2rem 0
  1.2rem 1.2rem; font-size: .88rem
}
dt { color: var(--quiet) } dd { margin: 0; overflow-wrap: anywhere }
.digest { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .8rem }
@media (max-width: 40rem) {
  dl { grid-template-columns: 1fr; gap: 0 } dd { margin-bottom: .5rem } th, td { padding: .5rem .6rem }
  /* A row becomes a card, and every cell says which column it was. */
  html[data-ready] thead { display: none }
  html[data-ready] :is(table, tbody) { display: block }
  html[data-ready] tbody tr {
    display: grid; grid-template-columns: repeat(auto-fill, minmax(6.6rem, 1fr)); gap: .6rem .5rem; padding: .9rem
    .8rem; border-bottom: 1px solid var(--line)
  }
  html[data-ready] tbody tr:last-child { border-bottom: 0 }
  html[data-ready] tbody tr > * { padding: 0 .3rem; border: 0; white-space: normal }
  html[data-ready] tbody th { overflow-wrap: anywhere }
  html[data-ready] tbody th { grid-column: 1 / -1 } html[data-ready] td:has(svg) { grid-column: span 2 }
  html[data-ready] td:empty { display: none }
  html[data-ready] td[data-label]::before {
    content: attr(data-label); display: block; color: var(--quiet); font-size: .75rem; line-height: 1.4
  }
  html[data-ready] td:not(.heat) + td.heat { grid-column-start: 1 }
  html[data-ready] td.heat[data-label]::before { color: inherit; opacity: .8 }
  html[data-ready] td.heat { padding: .3rem .5rem; border-radius: .4rem }
  html[data-ready] td svg { max-width: 100% }
}
@media print { nav, .switch { display: none } .wide { overflow: visible } details { break-inside: avoid } }
)css";

const char* const kPageScript = R"js(
"use strict";
const tip = document.getElementById("tip");
// The words of a title become the page's own tooltip, which follows the pointer and shows at once.
for (const token of document.querySelectorAll(".passage span")) {
  token.dataset.words = token.title;
  token.removeAttribute("title");
}
// On a narrow screen a row becomes a card, and its cells need the words of their columns.
for (const table of document.querySelectorAll("table")) {
  const words = [...table.tHead.rows[0].cells].map(cell => cell.firstChild ? cell.firstChild.textContent : "");
  for (const row of table.tBodies[0].rows)
    for (const cell of row.cells) if (cell.tagName === "TD") cell.dataset.label = words[cell.cellIndex];
}
let under = null;
function leave() {
  if (under) under.classList.remove("under");
  under = null;
  tip.hidden = true;
}
function point(event) {
  const token = event.target.closest ? event.target.closest(".passage span") : null;
  if (!token) return leave();
  if (token !== under) {
    leave();
    under = token;
    under.classList.add("under");
    tip.textContent = token.dataset.words;
    tip.hidden = false;
  }
  const box = tip.getBoundingClientRect(), edge = 8;
  const x = Math.min(event.clientX + 12, innerWidth - box.width - edge);
  const above = event.clientY + 18 + box.height + edge > innerHeight;
  tip.style.left = Math.max(edge, x) + "px";
  tip.style.top = (above ? event.clientY - box.height - 12 : event.clientY + 18) + "px";
}
document.addEventListener("pointermove", point);
document.addEventListener("pointerdown", point);
document.addEventListener("scroll", leave, {passive: true});
for (const button of document.querySelectorAll(".switch button"))
  button.addEventListener("click", () => {
    for (const passage of document.querySelectorAll(".passage")) passage.dataset.by = button.dataset.by;
    for (const other of document.querySelectorAll(".switch button"))
      other.setAttribute("aria-pressed", String(other === button));
  });
JSON.parse(document.getElementById("data").textContent);
document.documentElement.dataset.ready = "yes";
)js";

} // namespace tenon
