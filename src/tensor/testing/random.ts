// Seeded numbers for tests. Not the project's random source (that is data/python-random.ts, a layer beside this one).

/** Uniform numbers in [0, 1). */
export type Random = () => number;

/** A generator of 32-bit state (a Weyl sequence through two multiply-xorshift rounds); same seed, same numbers. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d);
    mixed = Math.imul(mixed ^ (mixed >>> 12), 0x297a2d39);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}

/** Standard normal numbers, by Box and Muller. */
export function normals(random: Random, count: number): number[] {
  return Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()),
  );
}

/** Uniform numbers between two bounds. */
export function uniforms(random: Random, count: number, low: number, high: number): number[] {
  return Array.from({ length: count }, () => low + (high - low) * random());
}

/** Whole numbers from 0 up to, not including, `end`. */
export function integers(random: Random, count: number, end: number): number[] {
  return Array.from({ length: count }, () => Math.floor(random() * end));
}

/** A seed from a text, so that a test's numbers depend on its name and not on its place in a list. */
export function seedOf(text: string): number {
  let hash = 2166136261;
  for (const character of text) hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 16777619);
  return hash >>> 0;
}

/** The nearest number with 8 significant bits: exact in bfloat16. */
export function bfloat16Of(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer);
  const word = bits[0] as number;
  bits[0] = ((word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000) >>> 0;
  return new Float32Array(bits.buffer)[0] as number;
}
