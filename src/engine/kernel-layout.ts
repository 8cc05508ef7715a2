// The self-test of the native kernels: one small graph with their "layout" op in it, which reports what it reads of ggml's
// tensors. It is run before any other op, and on nothing that another layout could turn into a wild access but itself: the
// size of a tensor has been compared, and ggml's version is pinned.
import type { Ggml, Pointer } from "./ggml.js";
import { GGML_TYPE } from "./dtype.js";

const EXTENT = [3, 5, 2, 4] as const;
const FLAGS = 0x12345;
const VALUE = 0.75;
const CPU = 0; // ggml's device type

/** Flags and a float in the 64 bits of a userdata pointer. */
export function packSettings(flags: number, value: number): Pointer {
  const bits = new DataView(new ArrayBuffer(8));
  bits.setUint32(0, flags, true);
  bits.setFloat32(4, value, true);
  return bits.getBigUint64(0, true) as Pointer;
}

/**
 * Runs the "layout" op.
 *
 * @returns null where it read what it should, else what it read
 */
export function tensorLayout(ggml: Ggml, op: Pointer): string | null {
  const device = Array.from({ length: Number(ggml.ggml_backend_dev_count()) }, (_, i) =>
    ggml.ggml_backend_dev_get(i),
  ).find((each) => each !== null && ggml.ggml_backend_dev_type(each) === CPU);
  const backend = device ? ggml.ggml_backend_dev_init(device, null) : null;
  if (!backend) return "no CPU device opens";
  const context = ggml.init(64 * (Number(ggml.ggml_tensor_overhead()) + 96) + 65_536);
  const allocator = ggml.ggml_gallocr_new(ggml.ggml_backend_get_default_buffer_type(backend)) as Pointer;
  try {
    const graph = ggml.ggml_new_graph_custom(context, 64, false) as Pointer;
    const probe = ggml.ggml_new_tensor_4d(context, GGML_TYPE.f32, ...EXTENT) as Pointer;
    ggml.ggml_set_input(probe);
    const view = ggml.ops.view_4d(context, probe, 1, 1, 1, 1, 4, 4, 4, 4 * 7) as Pointer; // element 7
    const sources = BigUint64Array.of(probe, probe, view);
    const settings = packSettings(FLAGS, VALUE);
    const result = ggml.ggml_custom_4d(
      context,
      GGML_TYPE.f32,
      12,
      1,
      1,
      1,
      sources as unknown as Pointer,
      3,
      op,
      -1,
      settings,
    ) as Pointer;
    ggml.ggml_set_output(result);
    ggml.ggml_build_forward_expand(graph, result);
    if (!ggml.ggml_gallocr_reserve(allocator, graph) || !ggml.ggml_gallocr_alloc_graph(allocator, graph)) {
      return "no memory";
    }
    const values = Float32Array.from({ length: 120 }, (_, i) => i + 0.5);
    ggml.tensorSet(probe, values, 0, values.byteLength);
    const status = ggml.ggml_backend_graph_compute(backend, graph);
    if (status !== 0) return `status ${status} from ggml`;
    const found = new Float32Array(12);
    ggml.tensorGet(result, found, 0, found.byteLength);
    const wanted = [...EXTENT, 1, 3, 15, 30, GGML_TYPE.f32, 7.5, FLAGS, VALUE];
    return wanted.every((each, i) => each === found[i])
      ? null
      : `read ${[...found].join(", ")}, not ${wanted.join(", ")}`;
  } finally {
    ggml.ggml_gallocr_free(allocator);
    ggml.ggml_free(context);
    ggml.ggml_backend_free(backend);
  }
}
