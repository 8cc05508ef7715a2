// The style of the report: one column of text, figures as wide as it, dark where the reader's system is, plain on paper.

/** CSS of the report. */
export const REPORT_STYLE = `
:root {
  color-scheme: light dark;
  --paper: #fdfcf9; --ink: #1d1d1b; --soft: #6a6862; --rule: #dedbd2; --wash: #f3f1ea;
  --a: #0f6e84; --b: #b4541a; --c: #6b5aa8; --d: #4f7d2c;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #161715; --ink: #e9e7e1; --soft: #9d9a92; --rule: #383833; --wash: #1f201d;
    --a: #58bcd3; --b: #ee9a61; --c: #b3a3ee; --d: #9ccb70; }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 17px/1.55 Charter, "Bitstream Charter", "Iowan Old Style", "Source Serif 4", Cambria, Georgia, serif;
  text-rendering: optimizeLegibility; -webkit-text-size-adjust: 100%;
}
main { max-width: 47rem; margin: 0 auto; padding: 3.5rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.15; font-weight: 600; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; line-height: 1.3; font-weight: 600; margin: 3.2rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; font-weight: 600; margin: 1.8rem 0 .2rem; }
p { margin: .6rem 0; hyphens: auto; }
.lead { color: var(--soft); margin-top: 0; }
.key { font-size: 3.2rem; line-height: 1.1; font-weight: 600; margin: 1.6rem 0 0; letter-spacing: -.02em; font-variant-numeric: lining-nums tabular-nums; }
.key small { display: inline-block; line-height: 1.4; font-size: 1rem; font-weight: 400; letter-spacing: 0; color: var(--soft); }
figure { margin: 1.4rem 0; break-inside: avoid; }
figcaption { font: 13px/1.45 ui-sans-serif, system-ui, sans-serif; color: var(--soft); margin-bottom: .35rem; }
figcaption b { color: var(--ink); font-weight: 600; }
.swatch { display: inline-block; width: .9em; height: .2em; vertical-align: .28em; margin: 0 .35em 0 .8em; }
figcaption .name { white-space: nowrap; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font: 11px ui-sans-serif, system-ui, sans-serif; fill: var(--soft); font-variant-numeric: tabular-nums; }
.grid { stroke: var(--rule); stroke-width: .7; } .zero { stroke: var(--soft); stroke-width: .8; }
.mark { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0 1.6rem; } .pair figure { margin: .8rem 0; min-width: 0; }
@media (max-width: 38rem) { .pair { grid-template-columns: 1fr; } }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font: 14px/1.45 ui-sans-serif, system-ui, sans-serif; margin: .8rem 0; font-variant-numeric: lining-nums tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--ink); padding: .3rem .7rem .3rem 0; vertical-align: bottom; }
td { padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th.n, td.n { text-align: right; white-space: nowrap; } th:last-child, td:last-child { padding-right: 0; }
td.step { width: 1%; padding-right: 1.4rem; white-space: nowrap; color: var(--soft); }
td.said { white-space: pre-wrap; overflow-wrap: anywhere; font: 15px/1.45 Charter, "Bitstream Charter", Cambria, Georgia, serif; }
.passage { background: var(--wash); padding: .55rem .8rem; margin: .5rem 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 15px; line-height: 1.45; }
.passage::after { content: "\\258D"; color: var(--b); }
.bar { display: inline-block; height: .6em; background: var(--a); vertical-align: baseline; min-width: 1px; }
.none { color: var(--soft); font-style: italic; }
details summary { cursor: pointer; font-weight: 600; margin: .8rem 0; }
pre { background: var(--wash); padding: .8rem 1rem; overflow-x: auto; font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
@media print {
  :root { --paper: #fff; --ink: #000; --soft: #444; --rule: #bbb; --wash: #f4f4f4; --a: #0f6e84; --b: #b4541a; --c: #6b5aa8; --d: #4f7d2c; color-scheme: light; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; } tr, .passage { break-inside: avoid; } h2, h3 { break-after: avoid; }
}
`.trim();
