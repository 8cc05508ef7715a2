// The Arrow schema that Parquet files carry in their "ARROW:schema" entry, so that Arrow readers see fixed-size lists.
//
// Parquet itself has only lists; pyarrow keeps the exact types in a base64 Arrow IPC message (a FlatBuffer) beside them.
// Only what our columns need is encoded: integers, floats, booleans, strings, fixed-size lists and lists of structs.
// Of an entry that is there only the kind of a list is read; a file without one is read just as well.

/** An Arrow type of our columns. */
export type ArrowType =
  | { readonly kind: "int"; readonly bits: 32 | 64 }
  | { readonly kind: "float"; readonly bits: 32 | 64 }
  | { readonly kind: "utf8" }
  | { readonly kind: "bool" }
  | { readonly kind: "fixed-list"; readonly size: number; readonly item: ArrowType }
  | { readonly kind: "list"; readonly item: ArrowType }
  | { readonly kind: "struct"; readonly fields: readonly ArrowField[] };

/** A named, nullable Arrow field. */
export interface ArrowField {
  readonly name: string;
  readonly type: ArrowType;
}

// Numbers of the unions and enums in Arrow's Message.fbs and Schema.fbs (format version 5).
const METADATA_V5 = 4;
const HEADER_SCHEMA = 1;
const TYPE = { int: 2, float: 3, utf8: 5, bool: 6, list: 12, struct: 13, "fixed-list": 16 } as const;
const PRECISION = { 32: 1, 64: 2 } as const;

/** The base64 text for the key "ARROW:schema": an encapsulated Schema message with `fields`, all nullable. */
export function encodeArrowSchema(fields: readonly ArrowField[]): string {
  const message = table(
    [short(METADATA_V5), byte(HEADER_SCHEMA), reference(schemaTable(fields)), long(0)], // version, header type, header, body
  );
  const body = new FlatBuffer().finish(message);
  const padded = Math.ceil(body.byteLength / 8) * 8;
  const out = new Uint8Array(8 + padded);
  const view = new DataView(out.buffer);
  view.setUint32(0, 0xffffffff, true); // marks the length that follows as such
  view.setUint32(4, padded, true);
  out.set(body, 8);
  return Buffer.from(out.buffer).toString("base64");
}

/** What Arrow readers take a column of lists for; null where the schema lacks the column or cannot be read. */
export function listKindOf(schema: string, column: string): "fixed" | "variable" | null {
  const bytes = Buffer.from(schema, "base64");
  try {
    const start = bytes.readUInt32LE(0) === 0xffffffff ? 8 : 4; // files before Arrow 0.15 lack the mark
    const message = start + bytes.readUInt32LE(start);
    const header = fieldAt(bytes, message, 2);
    if (header === null) return null;
    const list = fieldAt(bytes, header + bytes.readUInt32LE(header), 1);
    if (list === null) return null;
    const fields = list + bytes.readUInt32LE(list);
    for (let i = 0; i < bytes.readUInt32LE(fields); i++) {
      const at = fields + 4 + 4 * i;
      const field = at + bytes.readUInt32LE(at);
      const name = fieldAt(bytes, field, 0);
      if (name === null) continue;
      const text = name + bytes.readUInt32LE(name);
      if (bytes.toString("utf8", text + 4, text + 4 + bytes.readUInt32LE(text)) !== column) continue;
      const kind = fieldAt(bytes, field, 2);
      if (kind === null) return null;
      return bytes[kind] === TYPE["fixed-list"] ? "fixed" : "variable";
    }
    return null;
  } catch (thrown) {
    if (thrown instanceof RangeError) return null; // an offset beyond the end: the entry is damaged
    throw thrown;
  }
}

/** Where slot `index` of the table at `table` is; null where it is left out. */
function fieldAt(bytes: Buffer, table: number, index: number): number | null {
  const vtable = table - bytes.readInt32LE(table);
  const place = 4 + 2 * index;
  if (place >= bytes.readUInt16LE(vtable)) return null;
  const offset = bytes.readUInt16LE(vtable + place);
  return offset === 0 ? null : table + offset;
}

function schemaTable(fields: readonly ArrowField[]): Table {
  return table([short(0), reference(vector(fields.map(fieldTable)))]); // little-endian, fields
}

function fieldTable({ name, type }: ArrowField): Table {
  return table([
    reference(text(name)),
    byte(1), // nullable
    byte(TYPE[type.kind]),
    reference(typeTable(type)),
    null, // dictionary
    reference(vector(childrenOf(type).map(fieldTable))),
  ]);
}

function childrenOf(type: ArrowType): readonly ArrowField[] {
  if (type.kind === "struct") return type.fields;
  if (type.kind === "fixed-list") return [{ name: "item", type: type.item }];
  // pyarrow calls the child "item" in memory and "element" in the Parquet schema; it matches them by position.
  return type.kind === "list" ? [{ name: "item", type: type.item }] : [];
}

function typeTable(type: ArrowType): Table {
  if (type.kind === "int") return table([int(type.bits), byte(1)]); // width, signed
  if (type.kind === "float") return table([short(PRECISION[type.bits])]);
  if (type.kind === "fixed-list") return table([int(type.size)]);
  return table([]);
}

// A FlatBuffer, written forwards: every table is preceded by its own vtable and followed by what it refers to, so that
// all references point ahead, as the format demands.
type Slot = Scalar | { readonly to: Block } | null;
interface Scalar {
  readonly bytes: 1 | 2 | 4 | 8;
  readonly value: number;
}
type Table = { readonly slots: readonly Slot[] };
type Block = Table | { readonly items: readonly Block[] } | { readonly text: string };

const byte = (value: number): Scalar => ({ bytes: 1, value });
const short = (value: number): Scalar => ({ bytes: 2, value });
const int = (value: number): Scalar => ({ bytes: 4, value });
const long = (value: number): Scalar => ({ bytes: 8, value });
const reference = (to: Block): Slot => ({ to });
const table = (slots: readonly Slot[]): Table => ({ slots });
const vector = (items: readonly Block[]): Block => ({ items });
const text = (value: string): Block => ({ text: value });

class FlatBuffer {
  private bytes = new Uint8Array(1024);
  private view = new DataView(this.bytes.buffer);
  private length = 0;

  finish(root: Table): Uint8Array {
    this.pointTo(this.take(4, 4), root);
    return this.bytes.slice(0, this.length);
  }

  /** Reserves `count` zero bytes at the next multiple of `align` and returns where. */
  private take(count: number, align: number): number {
    const at = Math.ceil(this.length / align) * align;
    this.length = at + count;
    if (this.length > this.bytes.byteLength) {
      const larger = new Uint8Array(this.length * 2);
      larger.set(this.bytes);
      this.bytes = larger;
      this.view = new DataView(larger.buffer);
    }
    return at;
  }

  private write(block: Block): number {
    if ("slots" in block) return this.writeTable(block.slots);
    if ("items" in block) return this.writeVector(block.items);
    const utf8 = new TextEncoder().encode(block.text);
    const at = this.take(4 + utf8.byteLength + 1, 4); // zero-terminated beside its length
    this.view.setUint32(at, utf8.byteLength, true);
    this.bytes.set(utf8, at + 4);
    return at;
  }

  private writeVector(items: readonly Block[]): number {
    const at = this.take(4 + 4 * items.length, 4);
    this.view.setUint32(at, items.length, true);
    for (const [i, item] of items.entries()) this.pointTo(at + 4 + 4 * i, item);
    return at;
  }

  private pointTo(from: number, block: Block): void {
    const target = this.write(block); // may move the bytes, so it is done before the view is used
    this.view.setUint32(from, target - from, true);
  }

  private writeTable(slots: readonly Slot[]): number {
    const vtable = this.take(4 + 2 * slots.length, 2);
    const start = this.take(4, 8); // tables start at 8, so that any field can be aligned inside
    const places = slots.map((slot) => {
      if (slot === null) return 0;
      const size = "to" in slot ? 4 : slot.bytes;
      return this.take(size, size) - start;
    });
    this.view.setUint16(vtable, 4 + 2 * slots.length, true);
    this.view.setUint16(vtable + 2, this.length - start, true);
    for (const [i, place] of places.entries()) this.view.setUint16(vtable + 4 + 2 * i, place, true);
    this.view.setInt32(start, start - vtable, true);
    for (const [i, slot] of slots.entries()) {
      const at = start + (places[i] as number);
      if (slot === null) continue;
      if ("to" in slot) this.pointTo(at, slot.to);
      else if (slot.bytes === 1) this.view.setUint8(at, slot.value);
      else if (slot.bytes === 2) this.view.setInt16(at, slot.value, true);
      else if (slot.bytes === 4) this.view.setInt32(at, slot.value, true);
      else this.view.setBigInt64(at, BigInt(slot.value), true);
    }
    return start;
  }
}
