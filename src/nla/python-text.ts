// Python's idea of blank characters, for texts whose exact form is part of the NLA contract. Not a port of Python.
//
// JavaScript's `\s` and `trim()` differ from Python's `\s` and `strip()`: they take U+FEFF and leave U+001C..U+001F and
// U+0085. An explanation stripped by the wrong rule has other token ids than the reconstructor was trained on.

/** The inside of a regular-expression class with the characters for which Python's `str.isspace()` is true. */
export const PYTHON_SPACE =
  "\\t\\n\\v\\f\\r\\x1c-\\x1f \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

const SPACE = new RegExp(`^[${PYTHON_SPACE}]$`);

/** `text` without the characters at both ends for which `drop` says true. Linear, also on hostile texts of blanks. */
export function stripWhere(text: string, drop: (character: string) => boolean): string {
  let start = 0;
  let end = text.length;
  while (start < end && drop(text[start]!)) start++;
  while (end > start && drop(text[end - 1]!)) end--;
  return text.slice(start, end);
}

/** `text` without Python's blank characters at both ends (`str.strip()`). */
export function stripPython(text: string): string {
  return stripWhere(text, (character) => SPACE.test(character));
}

/**
 * What stands between the first `open` and the first `close` after it, stripped as Python does, or null where there is
 * no such pair. The same as the first match of `open\s*(.*?)\s*close` over lines, but linear in the text's length.
 */
export function between(text: string, open: string, close: string): string | null {
  const start = text.indexOf(open);
  if (start < 0) return null;
  const end = text.indexOf(close, start + open.length);
  return end < 0 ? null : stripPython(text.slice(start + open.length, end));
}
