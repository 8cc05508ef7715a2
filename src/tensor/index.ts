// What the tensor layer shows to the layers above.
export { adamw } from "./adamw.js";
export type { AdamwOptions, AdamwState, Optimizer, ParameterGroup, StepReport } from "./adamw.js";
export { Arena } from "./arena.js";
export type { TensorSpec } from "./arena.js";
export { GradientSums } from "./gradients.js";
export { Graph } from "./graph.js";
export type { GraphOptions } from "./graph.js";
export * as ops from "./ops/index.js";
export { PackedMatrices, PackedMatrix } from "./packed.js";
export { formatShape, shapeError, sizeOf } from "./shape.js";
export type { Shape } from "./shape.js";
export { Tensor } from "./tensor.js";
export type { HostArray } from "./tensor.js";
export {
  BLOCKS,
  BYTES,
  canMap,
  Device,
  fileChanged,
  isBlockDtype,
  listDevices,
  mapFile,
  OpProfile,
  quantizeRows,
} from "../engine/index.js";
export { extentOf } from "./shape.js";
export type { BlockDtype, DeviceInfo, Dtype, FileMapping, OpTime } from "../engine/index.js";
