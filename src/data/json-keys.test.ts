// Keys stated twice, at any depth and in any spelling; and none where there is none.
import { describe, expect, it } from "vitest";

import { duplicateKey } from "./json-keys.js";

describe("duplicateKey", () => {
  it.each([
    ['{"a":1,"a":2}', "a"],
    ['{"a":1 , "\\u0061" :2}', "a"],
    ['{"x":{"b":[{"c":1},{"c":1,"c":2}]}}', "c"],
    ['{"\\\\":1,"\\"":2,"\\\\":3}', "\\"],
  ])("%s has %j twice", (text, key) => {
    JSON.parse(text);
    expect(duplicateKey(text)).toBe(key);
  });

  it.each([
    '{"a":{"a":{"a":"a"}}}',
    '[{"a":1},{"a":1}]',
    '{"a":"\\"a\\":1,\\"a\\":","b":"}{","c":["a","a"]}',
    '"a"',
    "[]",
  ])("%s has none", (text) => {
    JSON.parse(text);
    expect(duplicateKey(text)).toBeNull();
  });
});
