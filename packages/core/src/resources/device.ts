/**
 * The bottom of a stack: one `GPUBuffer` per allocation, created on demand and destroyed on free.
 *
 * Sizes are rounded up to 4 bytes, which WebGPU wants of copies and bindings; the difference is
 * padding. Creation runs inside an `out-of-memory` and a `validation` error scope. Their verdict
 * comes later, because WebGPU never says synchronously that a buffer could not be had: it goes to
 * `onError`, or rejects the next {@link DeviceResource.settled} where no callback was given. A
 * refused buffer stays an (unusable) allocation until its owner frees it.
 *
 * Only buffers created here are destroyed here; the device is borrowed.
 */
import { assertArgument, checkInteger } from '../assert.js';
import { isVramError, VramError } from '../errors.js';
import {
  DEFAULT_BUFFER_USAGE,
  paddedBytes,
  type Allocation,
  type AllocationRequest,
  type MemoryResource,
} from '../resource.js';
import { AllocationLedger, checkRequest } from './ledger.js';

/** Options of {@link deviceResource}. */
export interface DeviceResourceOptions {
  /** Largest buffer, bytes. Default: the device's `maxBufferSize`; lower it for tests. */
  readonly maxBufferBytes?: number;
  /** Called after each buffer creation. Default: none. */
  readonly onBufferCreated?: (allocation: Allocation) => void;
  /** Called after each buffer destruction. Default: none. */
  readonly onBufferDestroyed?: (allocation: Allocation) => void;
  /**
   * Called with what the driver said of a creation, later: codes `out-of-memory`, `validation` or
   * `device-lost`. Default: kept for {@link DeviceResource.settled}.
   */
  readonly onError?: (error: VramError) => void;
}

/** A {@link MemoryResource} whose buffers are confirmed by the driver later. */
export interface DeviceResource extends MemoryResource {
  /**
   * Waits for the driver's verdict on every buffer created before this call.
   * @throws VramError the first error that no `onError` received; later ones are dropped.
   */
  settled(): Promise<void>;
}

/**
 * Memory straight from a device: the slowest to allocate, with the least padding.
 *
 * A request over the largest buffer throws `invalid-argument`, as no budget helps it: split it.
 * @param gpuDevice Borrowed; never destroyed here.
 */
export function deviceResource(
  gpuDevice: GPUDevice,
  options: DeviceResourceOptions = {},
): DeviceResource {
  const { maxBufferSize } = gpuDevice.limits;
  const { maxBufferBytes = maxBufferSize } = options;
  checkInteger('maxBufferBytes', maxBufferBytes, 4, maxBufferSize);
  const ledger = new AllocationLedger<void>('device');
  const pending = new Set<Promise<void>>();
  let unreported: VramError | undefined;

  function report(error: VramError): void {
    if (options.onError !== undefined) options.onError(error);
    else unreported ??= error;
  }

  /** Creates the buffer between two error scopes and gathers what they say. */
  function createBuffer(request: AllocationRequest, size: number): GPUBuffer {
    gpuDevice.pushErrorScope('validation');
    gpuDevice.pushErrorScope('out-of-memory');
    try {
      const usage = request.usage ?? DEFAULT_BUFFER_USAGE;
      return gpuDevice.createBuffer({ label: request.label, size, usage });
    } catch (cause) {
      throw driverError('validation', request, messageOf(cause), cause);
    } finally {
      const verdicts = [gpuDevice.popErrorScope(), gpuDevice.popErrorScope()] as const;
      const gathered = gatherVerdict(verdicts, request).then((error) => {
        pending.delete(gathered);
        if (error !== undefined) report(error);
      });
      pending.add(gathered);
    }
  }

  return {
    tryAllocate(request) {
      ledger.assertUsable();
      checkRequest(request);
      const size = paddedBytes(request.sizeBytes);
      assertArgument(
        size <= maxBufferBytes,
        `'${request.label}' needs ${size} B, the largest buffer is ${maxBufferBytes} B; split it`,
        { label: request.label, kind: request.kind, neededBytes: size, maxBufferBytes },
      );
      const { kind, label, sizeBytes } = request;
      const buffer = createBuffer(request, size);
      const allocation: Allocation = { buffer, offsetBytes: 0, sizeBytes, kind, label };
      ledger.add(allocation, size, undefined);
      ledger.notePeak(ledger.takenBytes);
      options.onBufferCreated?.(allocation);
      return allocation;
    },
    free(allocation) {
      ledger.remove(allocation);
      allocation.buffer.destroy();
      options.onBufferDestroyed?.(allocation);
    },
    stats: () => ledger.stats(ledger.takenBytes, Infinity),
    dispose: () => ledger.dispose(),
    async settled() {
      await Promise.all(pending);
      const error = unreported;
      unreported = undefined;
      if (error !== undefined) throw error;
    },
  };
}

/** Turns the results of both scopes into one error, or none. */
async function gatherVerdict(
  [outOfMemory, validation]: readonly [Promise<GPUError | null>, Promise<GPUError | null>],
  request: AllocationRequest,
): Promise<VramError | undefined> {
  const [memory, usage] = await Promise.allSettled([outOfMemory, validation]);
  if (memory.status === 'rejected') {
    return driverError('device-lost', request, messageOf(memory.reason), memory.reason);
  }
  if (usage.status === 'rejected') {
    return driverError('device-lost', request, messageOf(usage.reason), usage.reason);
  }
  if (memory.value !== null) {
    return driverError('out-of-memory', request, memory.value.message, memory.value);
  }
  if (usage.value !== null) {
    return driverError('validation', request, usage.value.message, usage.value);
  }
  return undefined;
}

function driverError(
  code: 'out-of-memory' | 'validation' | 'device-lost',
  request: AllocationRequest,
  message: string,
  cause: unknown,
): VramError {
  if (isVramError(cause)) return cause;
  const { kind, label, sizeBytes } = request;
  return new VramError(
    code,
    `the driver gave no buffer of ${sizeBytes} B for '${label}' (${kind}): ${message}`,
    { context: { kind, label, neededBytes: paddedBytes(sizeBytes) }, cause },
  );
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
