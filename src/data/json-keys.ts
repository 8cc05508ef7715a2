// Finds a key that an object of a JSON text states twice, which JSON.parse passes over in silence (the last one wins).
// Not a parser: the text must already have been accepted by JSON.parse.

/** The first key that occurs twice in one object of `text`, at any depth, or null. Escapes are resolved before comparing. */
export function duplicateKey(text: string): string | null {
  const open: (Set<string> | null)[] = []; // keys seen in each open object; null for an array
  for (let at = 0; at < text.length; at++) {
    const c = text[at];
    if (c === "{") open.push(new Set());
    else if (c === "[") open.push(null);
    else if (c === "}" || c === "]") open.pop();
    else if (c === '"') {
      const end = closingQuote(text, at);
      if (isKey(text, end + 1)) {
        const keys = open.at(-1);
        const key = JSON.parse(text.slice(at, end + 1)) as string;
        if (keys?.has(key) === true) return key;
        keys?.add(key);
      }
      at = end;
    }
  }
  return null;
}

/** Index of the quote that closes the string opened at `start`. */
function closingQuote(text: string, start: number): number {
  let end = text.indexOf('"', start + 1);
  for (; end !== -1; end = text.indexOf('"', end + 1)) {
    let slashes = 0;
    while (text[end - 1 - slashes] === "\\") slashes++;
    if (slashes % 2 === 0) break;
  }
  return end === -1 ? text.length : end;
}

/** True if the string that ends before `at` is followed by a colon. */
function isKey(text: string, at: number): boolean {
  let i = at;
  while (text[i] === " " || text[i] === "\n" || text[i] === "\t" || text[i] === "\r") i++;
  return text[i] === ":";
}
