// Checks that ops share. Each throws before any native call, with every shape in its text.
import type { Dtype } from "../../engine/index.js";
import { NlaError } from "../../error.js";
import { formatShape } from "../shape.js";
import type { Tensor } from "../tensor.js";

/** @throws NlaError `tensor.dtype` where an operand has another type */
export function requireDtype(op: string, dtype: Dtype, ...operands: readonly Tensor[]): void {
  for (const operand of operands) {
    if (operand.dtype === dtype) continue;
    throw new NlaError({
      code: "tensor.dtype",
      subject: op,
      found: `operands ${operands.map((each) => `${each.dtype} ${formatShape(each.shape)}`).join(" and ")}`,
      wanted: dtype,
      next: `Cast ${operand.name} to ${dtype} first.`,
    });
  }
}

/** @throws NlaError `tensor.argument` where a number is not finite as float32, which ggml takes, or fails `holds` */
export function requireNumber(
  op: string,
  name: string,
  value: number,
  wanted = "a finite number",
  holds = true,
): void {
  if (typeof value === "number" && Number.isFinite(Math.fround(value)) && holds) return;
  throw new NlaError({
    code: "tensor.argument",
    subject: `${op}, argument ${name}`,
    found: String(value),
    wanted,
    next: "Check where the number comes from.",
  });
}
