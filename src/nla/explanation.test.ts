// Extraction and wrapping of explanations against the reference, and the plain format.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { explanationToShow, extractExplanation, wrapExplanation } from "./explanation.js";

const file = sharedPath("golden/nla/train/extraction.json");

interface Golden {
  rows: { response: string; training: string | null; client: string }[];
  wrapped: { text: string; wrapped: string; back: string }[];
}

describeWith(file, "explanations equal the reference's", () => {
  const golden = JSON.parse(readFileSync(file as string, "utf8")) as Golden;

  it("covers all responses", () => expect(golden.rows.length).toBe(44));

  it.each(golden.rows.map((row) => [JSON.stringify(row.response).slice(0, 60), row] as const))(
    "%s",
    (_, row) => {
      expect(extractExplanation(row.response)).toBe(row.training);
      expect(explanationToShow(row.response)).toBe(row.client);
    },
  );

  it("wraps, and reads back what it wrapped", () => {
    expect(golden.wrapped.length).toBe(6);
    for (const { text, wrapped, back } of golden.wrapped) {
      expect(wrapExplanation(text)).toBe(wrapped);
      expect(extractExplanation(wrapped)).toBe(back);
    }
  });
});

describe("plain format", () => {
  it("is the whole text, outer blanks included", () => {
    const text = " of the <explanation>king\n";
    expect(wrapExplanation(text, { format: "plain" })).toBe(text);
    expect(extractExplanation(text, { format: "plain" })).toBe(text);
  });

  it("stops at the first end token", () => {
    const options = { format: "plain", endText: "</s>" } as const;
    expect(extractExplanation("of the king </s> more </s>", options)).toBe("of the king ");
    expect(extractExplanation("</s>", options)).toBe("");
    expect(extractExplanation("no end", options)).toBe("no end");
  });
});

describe("hostile responses", () => {
  it("take linear time", () => {
    const blanks = " ".repeat(2_000_000);
    const start = performance.now();
    expect(extractExplanation(`<explanation>${blanks}x`)).toBeNull();
    expect(extractExplanation(`<explanation>${blanks}x${blanks}</explanation>`)).toBe("x");
    expect(performance.now() - start).toBeLessThan(5000);
  });
});
