// Embeddings in a request: nested JSON numbers, or base64 of bfloat16. Every number is checked: NaN would poison a whole batch.
import { bf16ToF32 } from "../data/floats.js";
import { requestError } from "./http-error.js";

/** Rows of embeddings, [tokens][width]. */
export type Embeds = readonly Float32Array[];

const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

function rowOf(row: unknown, width: number, subject: string): Float32Array {
  if (!Array.isArray(row) || row.length !== width) {
    const found = Array.isArray(row) ? `${row.length} numbers` : typeof row;
    throw requestError("width", subject, found, `${width} numbers, the model's width`);
  }
  const values = new Float32Array(width);
  for (let i = 0; i < width; i++) {
    const value: unknown = row[i];
    values[i] = typeof value === "number" ? value : Number.NaN;
    // Beyond float32 a finite number becomes infinite.
    if (!Number.isFinite(values[i]))
      throw requestError(
        "embeds",
        `${subject}[${i}]`,
        JSON.stringify(value) ?? "nothing",
        "a finite float32",
      );
  }
  return values;
}

function isMatrix(value: readonly unknown[]): boolean {
  return Array.isArray(value[0]) && !Array.isArray(value[0][0]);
}

/** `input_embeds`: one sequence, or a list of them. @throws NlaError `http.width`, `http.embeds` */
export function embedsOf(value: readonly unknown[], width: number): Embeds[] {
  const list = isMatrix(value) ? [value] : value;
  return list.map((sequence, s) => {
    const subject = isMatrix(value) ? "input_embeds" : `input_embeds[${s}]`;
    if (!Array.isArray(sequence) || sequence.length === 0)
      throw requestError("embeds", subject, "no rows", "a list of rows of numbers");
    return sequence.map((row, t) => rowOf(row, width, `${subject}[${t}]`));
  });
}

/** `input_embeds_b64_bf16` with `input_embeds_shape`. @throws as {@link embedsOf} */
export function packedEmbedsOf(
  value: string | readonly string[],
  shape: readonly unknown[] | undefined,
  width: number,
): Embeds[] {
  const list = typeof value === "string" ? [value] : value;
  const shapes = typeof value === "string" ? [shape] : (shape ?? []);
  return list.map((text, i) => packedOne(text, shapes[i], width));
}

function packedOne(text: string, shape: unknown, width: number): Embeds {
  const subject = "input_embeds_shape";
  const [tokens, wide] = Array.isArray(shape) ? (shape as unknown[]) : [];
  const fits =
    Array.isArray(shape) && shape.length === 2 && Number.isSafeInteger(tokens) && (tokens as number) > 0;
  if (!fits) throw requestError("embeds", subject, JSON.stringify(shape) ?? "nothing", "[tokens, width]");
  if (wide !== width)
    throw requestError("width", subject, `width ${String(wide)}`, `${width}, the model's width`);
  if (text.length % 4 !== 0 || !BASE64.test(text))
    throw requestError("embeds", "input_embeds_b64_bf16", `${text.length} characters`, "base64");
  const bytes = Buffer.from(text, "base64");
  const wanted = 2 * (tokens as number) * width;
  if (bytes.byteLength !== wanted) {
    const found = `${bytes.byteLength} bytes`;
    throw requestError(
      "embeds",
      "input_embeds_b64_bf16",
      found,
      `${wanted}, for ${String(tokens)} rows of ${width} bfloat16`,
    );
  }
  const bits = new Uint16Array(bytes.byteLength / 2);
  for (let i = 0; i < bits.length; i++) bits[i] = bytes.readUInt16LE(2 * i);
  const values = bf16ToF32(bits);
  const at = values.findIndex((each) => !Number.isFinite(each));
  if (at >= 0) {
    const where = `input_embeds_b64_bf16, row ${Math.floor(at / width)}, element ${at % width}`;
    throw requestError("embeds", where, String(values[at]), "a finite number");
  }
  return Array.from({ length: tokens as number }, (_, t) => values.subarray(t * width, (t + 1) * width));
}
