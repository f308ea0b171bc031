/**
 * The limits every structure splits over.
 *
 * They are the device's own, or lower ones that a caller sets: WebGPU clamps requested limits to
 * its defaults, so a test that wants a 1 MiB binding limit gets it from here, and core checks every
 * binding against it.
 */
import { assertArgument } from './assert.js';

/** Limits that vramkit reads; units as in WebGPU. */
export interface DeviceLimits {
  /** Largest storage binding, bytes. */
  readonly maxStorageBufferBindingSize: number;
  /** Largest buffer, bytes. */
  readonly maxBufferSize: number;
  /** Storage bindings of one kernel. */
  readonly maxStorageBuffersPerShaderStage: number;
  /** Workgroups along one dimension of a grid. */
  readonly maxComputeWorkgroupsPerDimension: number;
  /** Invocations of one workgroup. */
  readonly maxComputeInvocationsPerWorkgroup: number;
  /** Workgroup memory, bytes. */
  readonly maxComputeWorkgroupStorageSize: number;
  /** Alignment of a storage binding's offset, bytes. */
  readonly minStorageBufferOffsetAlignment: number;
  /** Alignment of a dynamic uniform offset, bytes. */
  readonly minUniformBufferOffsetAlignment: number;
}

const NAMES = [
  'maxStorageBufferBindingSize',
  'maxBufferSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupsPerDimension',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupStorageSize',
  'minStorageBufferOffsetAlignment',
  'minUniformBufferOffsetAlignment',
] as const satisfies readonly (keyof DeviceLimits)[];

/** The names of {@link DeviceLimits}, for a device request. */
export const LIMIT_NAMES: readonly (keyof DeviceLimits)[] = NAMES;

/**
 * The device's limits, lowered to `overrides` where those are given.
 * @throws VramError `invalid-argument` where an override is looser than the device's limit.
 */
export function readLimits(
  actual: GPUSupportedLimits,
  overrides: Partial<DeviceLimits> = {},
): DeviceLimits {
  const read = (name: keyof DeviceLimits): number => {
    const own = actual[name];
    const override = overrides[name];
    if (override === undefined) return own;
    const tighter = name.startsWith('min') ? override >= own : override <= own;
    assertArgument(tighter && override > 0, `${name} ${override} is looser than ${own}`, {
      name,
      own,
      override,
    });
    return override;
  };
  // NAMES lists exactly the keys of the interface, which `satisfies` checks above.
  return Object.fromEntries(NAMES.map((name) => [name, read(name)])) as unknown as DeviceLimits;
}

/**
 * Folds a linear count of workgroups into two dimensions within the grid limit. The kernel rebuilds
 * the linear index with `linear_workgroup` of {@link wgslLinearWorkgroup} and guards it, because
 * the fold may round up.
 * @throws VramError `invalid-argument` where even two dimensions do not hold `count`.
 */
export function foldGrid(count: number, maxPerDimension = 65_535): [number, number, number] {
  assertArgument(
    Number.isSafeInteger(count) && count >= 0 && count <= maxPerDimension * maxPerDimension,
    `a grid of ${count} workgroups does not fold into ${maxPerDimension} x ${maxPerDimension}`,
    { count, maxPerDimension },
  );
  const y = Math.max(1, Math.ceil(count / maxPerDimension));
  return [Math.ceil(count / y), y, 1];
}
