// One document of the world as a page that stands alone: the text by beats, every fact as a bar over the tokens at which it holds, and
// the truth at the token under the pointer. No outside file, no library; it reads without a script too, which only moves the cursor.
import { REPORT_STYLE } from "../evaluate/report-style.js";
import { labelAt } from "../world/labels.js";
import { Chooser } from "../world/chooser.js";
import { CATEGORIES, truthAt } from "../world/facts.js";
import type { FactSpan, WorldDocument } from "../world/facts.js";

const STYLE = `
main { max-width: 64rem; }
.text { line-height: 2; margin: 1.4rem 0; }
.w { cursor: default; padding: .12em .18em; border-radius: .2em; }
.b0 { border-bottom: 2px solid var(--a); } .b1 { border-bottom: 2px solid var(--b); }
.b2 { border-bottom: 2px solid var(--c); } .b3 { border-bottom: 2px solid var(--d); }
.beat { font: 11px/1 ui-sans-serif, system-ui, sans-serif; color: var(--soft); margin: 0 .3em 0 .7em; white-space: nowrap; }
.beat:first-child { margin-left: 0; }
.w.at { background: var(--ink); color: var(--paper); }
.lanes { position: relative; font: 12px/1.2 ui-sans-serif, system-ui, sans-serif; margin: 1.2rem 0; }
.lane { display: grid; grid-template-columns: 5.2rem 1fr; align-items: center; border-top: 1px solid var(--rule); }
.lane > span { color: var(--soft); }
.track { position: relative; height: 1.55rem; }
.fact { position: absolute; top: .2rem; bottom: .2rem; border-radius: .2rem; background: var(--wash); border-left: 3px solid var(--a);
  padding: .14rem .3rem; overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
.hidden .fact { border-left-color: var(--b); }
.state .fact { border-left-color: var(--c); }
.cursor { position: absolute; top: 0; bottom: 0; width: 0; border-left: 1px solid var(--ink); pointer-events: none; }
.truth { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 0 1.2rem; margin: .6rem 0; padding: 0; list-style: none; }
.truth li { display: flex; gap: .5rem; align-items: baseline; border-top: 1px solid var(--rule); padding: .3rem 0; font: 14px/1.4 ui-sans-serif, system-ui, sans-serif; }
.truth b { min-width: 4.2rem; font-weight: 400; color: var(--soft); }
.truth small { color: var(--soft); margin-left: auto; white-space: nowrap; }
.panel { min-height: 19rem; }
.label { color: var(--soft); font-size: 15px; }
`.trim();

/** Facts that nothing at the token need say, and those of the place in the text. */
const HIDDEN: ReadonlySet<string> = new Set(["motive", "aim", "test", "answer", "rhyme"]);
const STATE: ReadonlySet<string> = new Set(["now", "next"]);

/** The page of one document, complete HTML. `at` is the token that is shown first. */
export function worldPage(document: WorldDocument, { at }: { readonly at?: number } = {}): string {
  const { kind, seed, index, words, nats } = document;
  const shown = at ?? Math.floor((words.length * 2) / 3);
  const truths = words.map((_, position) => ({
    facts: truthAt(document, position).map(({ category, value, from }) => [category, value, position - from]),
    label: labelAt(document, position, new Chooser(seed, index, position), {}),
  }));
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(kind)} ${index} of world ${seed}</title>
<style>
${REPORT_STYLE}
${STYLE}
</style>
<main>
<h1>A ${escape(kind)} and all that is true of it</h1>
<p class="lead">Document ${index} of the world with seed ${seed}: ${words.length} tokens, ${nats.toFixed(1)} nats of choices,
${(nats / words.length).toFixed(3)} per token. Point at a word.</p>
<div class="text">${textOf(document)}</div>
<div class="lanes">
${CATEGORIES.map((category) => lane(document, category)).join("")}<div class="cursor"></div>
</div>
<div class="panel">
<h3>True at token <span class="number">${shown}</span></h3>
<ul class="truth"></ul>
<p class="label"></p>
</div>
<noscript><p>The bars above show from which token on each fact is evident.</p></noscript>
</main>
<script>
const truths = ${JSON.stringify(truths).replaceAll("<", "\\u003c")};
const words = [...document.querySelectorAll(".w")];
const lanes = document.querySelector(".lanes");
let now = -1;
function show(p) {
  if (p === now || !truths[p]) return;
  words[now]?.classList.remove("at");
  now = p;
  words[p].classList.add("at");
  document.querySelector(".number").textContent = p + ", " + words[p].textContent;
  document.querySelector(".truth").replaceChildren(...truths[p].facts.map(([category, value, distance]) => {
    const item = document.createElement("li");
    const name = document.createElement("b");
    const back = document.createElement("small");
    name.textContent = category;
    back.textContent = distance > 0 ? distance + " back" : "";
    item.append(name, " " + value, back);
    return item;
  }));
  document.querySelector(".label").textContent = truths[p].label;
  place();
}
function place() {
  const track = lanes.querySelector(".track");
  const left = track.offsetLeft + (track.offsetWidth * (now + .5)) / truths.length;
  lanes.querySelector(".cursor").style.left = left + "px";
}
words.forEach((word, p) => word.addEventListener("pointerenter", () => show(p)));
lanes.addEventListener("pointermove", (event) => {
  const box = lanes.querySelector(".track").getBoundingClientRect();
  show(Math.floor(((event.clientX - box.left) / box.width) * truths.length));
});
addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(now + 1);
  if (event.key === "ArrowLeft") show(now - 1);
});
addEventListener("resize", place);
show(${shown});
</script>
</html>
`;
}

function textOf({ words, facts }: WorldDocument): string {
  const beats = facts.filter(({ category }) => category === "now");
  return beats
    .map(({ value, from, end }, i) => {
      const inside = words.slice(from, end).map((word) => `<span class="w b${i % 4}">${escape(word)}</span>`);
      return `<span class="beat">${escape(value)}</span>${inside.join(" ")}`;
    })
    .join(" ");
}

function lane({ words, facts }: WorldDocument, category: FactSpan["category"]): string {
  const own = facts.filter((each) => each.category === category);
  if (own.length === 0) return "";
  const group = HIDDEN.has(category) ? " hidden" : STATE.has(category) ? " state" : "";
  const percent = (tokens: number): string => `${((100 * tokens) / words.length).toFixed(3)}%`;
  const bars = own.map(({ value, from, end }) => {
    const title = `${value}, from token ${from} to ${end - 1}`;
    const style = `left:${percent(from)};width:calc(${percent(end - from)} - 2px)`;
    return `<span class="fact" style="${style}" title="${escape(title)}">${escape(value)}</span>`;
  });
  return `<div class="lane${group}"><span>${category}</span><div class="track">${bars.join("")}</div></div>\n`;
}

function escape(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
