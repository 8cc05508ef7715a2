// What the engine shows to the layer above. Pointers leave this folder only as opaque handles.
export { Device, listDevices } from "./device.js";
export type { DeviceInfo, DeviceKind, DeviceOptions } from "./device.js";
export { BLOCKS, BYTES, GGML_TYPE, isBlockDtype } from "./dtype.js";
export type { BlockDtype, Dtype } from "./dtype.js";
export { fileChanged, mapFile } from "./mapping.js";
export type { FileMapping } from "./mapping.js";
export { quantizeRows } from "./quantize.js";
export type { OpName, Pointer as Handle } from "./ggml.js";
export { describeKernels, KERNEL_LEVELS, loadKernels } from "./kernels.js";
export type {
  DirectMatrix,
  DirectProduct,
  KernelLevel,
  KernelName,
  KernelReport,
  Kernels,
} from "./kernels.js";
export { GGML_VERSION, loadLibrary, nativePackages } from "./library.js";
export type { GgmlLibrary, NativePackage } from "./library.js";
export { bytesOf, canMap, NativeMemory, readTensor, requireRoom, writeTensor } from "./memory.js";
export type { Extent, NativeSpec } from "./memory.js";
export { NativeGraph } from "./native-graph.js";
export type { KernelSettings } from "./native-graph.js";
export { OpProfile } from "./profile.js";
export type { OpTime } from "./profile.js";
export { describeEngine } from "./report.js";
export type { DeviceReport, EngineProblem, EngineReport, GgmlReport } from "./report.js";
export { selfTest } from "./self-test.js";
export type { SelfTestResult } from "./self-test.js";
