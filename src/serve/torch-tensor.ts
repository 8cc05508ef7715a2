// A tensor as `torch.save` writes it, which is what vLLM takes as `prompt_embeds`: a ZIP without compression that holds a pickle of the
// tensor's shape and, beside it, the numbers. Writing only; nothing here reads a pickle, which could run code.
const LITTLE = "little";

/** A pickle (protocol 2) of a contiguous float32 tensor whose storage is `data/0`. */
function pickleOf(rows: number, width: number): Buffer {
  const parts: Buffer[] = [];
  const raw = (...bytes: number[]) => parts.push(Buffer.from(bytes));
  const global = (module: string, name: string) => parts.push(Buffer.from(`c${module}\n${name}\n`));
  const text = (value: string) => {
    const bytes = Buffer.from(value);
    const head = Buffer.alloc(5);
    head.write("X");
    head.writeUInt32LE(bytes.length, 1);
    parts.push(head, bytes);
  };
  const int = (value: number) => {
    const bytes = Buffer.alloc(5);
    bytes.write("J");
    bytes.writeInt32LE(value, 1);
    parts.push(bytes);
  };
  const [MARK, TUPLE, TUPLE2, EMPTY_TUPLE, PERSISTENT, FALSE, REDUCE, STOP] = Buffer.from(
    "(t\x86)Q\x89R.",
    "latin1",
  );
  raw(0x80, 2);
  global("torch._utils", "_rebuild_tensor_v2");
  raw(MARK as number);
  raw(MARK as number);
  text("storage");
  global("torch", "FloatStorage");
  text("0");
  text("cpu");
  int(rows * width);
  raw(TUPLE as number, PERSISTENT as number);
  int(0); // where in the storage it begins
  int(rows);
  int(width);
  raw(TUPLE2 as number);
  int(width); // strides
  int(1);
  raw(TUPLE2 as number, FALSE as number); // wants no gradient
  global("collections", "OrderedDict");
  raw(EMPTY_TUPLE as number, REDUCE as number, TUPLE as number, REDUCE as number, STOP as number);
  return Buffer.concat(parts);
}

// zlib's own is not in every Node 20.
const CRC = Uint32Array.from({ length: 256 }, (_, i) => {
  let value = i;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc32(bytes: Uint8Array): number {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = (CRC[(sum ^ byte) & 0xff] as number) ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

/** A ZIP file of stored entries. */
function zipOf(entries: readonly (readonly [name: string, content: Buffer])[]): Buffer {
  const body: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const [name, content] of entries) {
    const title = Buffer.from(name);
    const sum = crc32(content);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0); // version needed
    common.writeUInt16LE(0x21, 8); // 1 January 1980
    common.writeUInt32LE(sum, 10);
    common.writeUInt32LE(content.length, 14);
    common.writeUInt32LE(content.length, 18);
    common.writeUInt16LE(title.length, 22);
    const local = Buffer.concat([Buffer.from("PK\x03\x04"), common, title, content]);
    const place = Buffer.alloc(14);
    place.writeUInt32LE(offset, 10);
    directory.push(Buffer.concat([Buffer.from("PK\x01\x02\x14\x00"), common, place, title]));
    body.push(local);
    offset += local.length;
  }
  const central = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06");
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...body, central, end]);
}

/** The bytes of `torch.save(tensor)` for a float32 tensor [rows, width]. */
export function torchTensor(rows: readonly (readonly number[])[]): Buffer {
  const width = rows[0]?.length ?? 0;
  const data = Buffer.alloc(4 * rows.length * width);
  rows.forEach((row, t) => row.forEach((value, i) => data.writeFloatLE(value, 4 * (t * width + i))));
  return zipOf([
    ["archive/data.pkl", pickleOf(rows.length, width)],
    ["archive/byteorder", Buffer.from(LITTLE)],
    ["archive/data/0", data],
    ["archive/version", Buffer.from("3\n")],
  ]);
}
