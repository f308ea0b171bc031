/**
 * A device: one `GPUDevice`, opened or adopted, with everything that belongs to exactly one device.
 *
 * It holds the budgeted memory, the kernel cache, the uniform buffer, the readback ring, counters
 * and the errors that the driver reported since the last look. Nothing is global: two devices share
 * no state. An adopted device is used and never destroyed; an opened one is destroyed on disposal.
 *
 * WebGPU reports most errors later than the call that caused them. Core gathers them (error scopes
 * around creations, `uncapturederror` for the rest) and rejects the next {@link VramDevice.settle}
 * or readback with the first one. After a loss every call throws `device-lost`.
 */
import { assertArgument, fail } from './assert.js';
import { BufferUsage } from './buffer.js';
import { createCounters, type DeviceCounters } from './counters.js';
import { createGpu, holdUntilSettled } from './dawn.js';
import { VramError } from './errors.js';
import { KernelCache } from './kernel.js';
import { LIMIT_NAMES, readLimits, type DeviceLimits } from './limits.js';
import { allocate, type Allocation, type MemoryResource } from './resource.js';
import { assertNoneLive } from './resources/ledger.js';
import { deviceResource, type DeviceResource } from './resources/device.js';
import { limitedResource, type LimitedResource } from './resources/limited.js';
import { tracedResource } from './resources/traced.js';
import { ReadbackRing } from './readback.js';
import type { Clock, TraceSink } from './tracing.js';
import { UniformScratch } from './uniform-scratch.js';

/** Options of {@link openDevice} and {@link adoptDevice}. */
export interface DeviceOptions {
  /** Hard limit on device bytes taken through this device, bytes. Default: none. */
  readonly budgetBytes?: number;
  /** Limits lower than the device's own, for tests and for portability checks. Default: none. */
  readonly limits?: Partial<DeviceLimits>;
  /** Name in driver tools. Default: 'vramkit'. */
  readonly label?: string;
  /**
   * Receives every allocation and free of the device, with the bytes that are live behind it.
   * Default: none.
   */
  readonly trace?: { readonly sink: TraceSink; readonly now: Clock };
}

/** Options of {@link openDevice}. */
export interface OpenDeviceOptions extends DeviceOptions {
  /** Where adapters come from. Default: `navigator.gpu`, else Dawn from npm `webgpu`. */
  readonly gpu?: GPU;
  /** Which of several adapters WebGPU should prefer. Default: 'high-performance'. */
  readonly powerPreference?: GPUPowerPreference;
  /** Optional features to leave off although the adapter has them. Default: none. */
  readonly withoutFeatures?: readonly GPUFeatureName[];
}

/** Adapter identification as WebGPU gives it; empty strings where it gives none. */
export interface AdapterDescription {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
}

/** Optional features that vramkit uses where they exist. */
const WANTED_FEATURES = ['shader-f16', 'subgroups', 'timestamp-query'] as const;
const UNIFORM_BUFFER_BYTES = 256 * 1024;
const MAX_GATHERED_ERRORS = 32;
/** What errors outside a guarded creation are attributed to. */
const COMMAND = 'command';

/** One GPU device and what belongs to it; see {@link openDevice} and {@link adoptDevice}. */
export class VramDevice {
  /** The WebGPU device. */
  readonly gpuDevice: GPUDevice;
  /** Limits that every structure splits over. */
  readonly limits: DeviceLimits;
  /** Enabled optional features. */
  readonly features: ReadonlySet<string>;
  /** What the adapter says of itself. */
  readonly adapter: AdapterDescription;
  /** Counts since the device was opened. */
  readonly counters: DeviceCounters = createCounters();
  /** All device memory goes through this resource, within `budgetBytes`. */
  readonly memory: LimitedResource;
  /** Compiled kernels and bind groups; batches use it. @internal */
  readonly kernels: KernelCache;
  /** Device side of the uniforms of a batch. */
  readonly uniformBuffer: GPUBuffer;
  /** Reusable staging buffers for reads. */
  readonly readback: ReadbackRing;
  /** Resolves with the error once the device is lost; never before. */
  readonly lost: Promise<VramError>;

  readonly #owned: boolean;
  readonly #base: DeviceResource;
  readonly #traced: MemoryResource | undefined;
  readonly #uniformAllocation: Allocation;
  readonly #live = new Set<Allocation>();
  readonly #scratch: UniformScratch[] = [];
  readonly #waiting = new Set<(error: VramError) => void>();
  readonly #scopes = new Set<Promise<void>>();
  #errors: VramError[] = [];
  #lostError: VramError | undefined;
  #disposed = false;
  /** Keeps Dawn's instance reachable; see dawn.ts. */
  #gpu: GPU | undefined;

  /** Use {@link openDevice} or {@link adoptDevice}. */
  constructor(
    gpuDevice: GPUDevice,
    options: DeviceOptions & { readonly gpu?: GPU; readonly owned: boolean },
  ) {
    this.gpuDevice = gpuDevice;
    this.#gpu = options.gpu;
    this.#owned = options.owned;
    this.limits = readLimits(gpuDevice.limits, options.limits);
    this.features = new Set<string>(gpuDevice.features);
    this.adapter = describeAdapter(gpuDevice);
    this.lost = gpuDevice.lost.then((info) => this.#onLost(info));
    this.kernels = new KernelCache(this);
    this.#base = deviceResource(gpuDevice, {
      maxBufferBytes: this.limits.maxBufferSize,
      onBufferCreated: (allocation) => {
        this.counters.buffersCreated += 1;
        this.#live.add(allocation);
      },
      onBufferDestroyed: (allocation) => {
        this.kernels.forget(allocation.buffer);
        this.#live.delete(allocation);
      },
      onError: (error) => this.#gather(error),
    });
    const { trace } = options;
    this.#traced = trace && tracedResource(this.#base, trace.sink, { now: trace.now });
    this.memory = limitedResource(this.#traced ?? this.#base, {
      limitBytes: options.budgetBytes ?? Number.POSITIVE_INFINITY,
    });
    this.#uniformAllocation = allocate(this.memory, {
      sizeBytes: UNIFORM_BUFFER_BYTES,
      kind: 'staging',
      label: 'uniforms',
      usage: BufferUsage.uniform | BufferUsage.copyDestination,
    });
    this.uniformBuffer = this.#uniformAllocation.buffer;
    this.readback = new ReadbackRing(this);
    this.memory.onPressure(() => this.readback.trim());
    gpuDevice.addEventListener('uncapturederror', this.#onUncaptured);
  }

  /** Whether the device was lost. */
  get isLost(): boolean {
    return this.#lostError !== undefined;
  }

  /** @throws VramError `disposed` or `device-lost` where the device cannot be used any more. */
  assertUsable(): void {
    if (this.#disposed) fail('disposed', 'the device was disposed');
    if (this.#lostError !== undefined) throw this.#lostError;
  }

  #onLost(info: GPUDeviceLostInfo): VramError {
    const error = new VramError(
      'device-lost',
      `the GPU device is gone (${info.reason}): ${info.message}; open a new one`,
      { context: { reason: info.reason } },
    );
    this.#lostError = error;
    for (const reject of this.#waiting) reject(error);
    this.#waiting.clear();
    return error;
  }

  readonly #onUncaptured = (event: GPUUncapturedErrorEvent): void => {
    event.preventDefault();
    this.#gather(toVramError(event.error, COMMAND));
  };

  #gather(error: VramError): void {
    if (this.#errors.length < MAX_GATHERED_ERRORS) this.#errors.push(error);
  }

  /**
   * Runs a creation inside `validation` and `out-of-memory` error scopes. What they catch is
   * gathered and surfaces at the next {@link settle} or readback, named `what`.
   */
  guard<T>(what: string, create: () => T): T {
    this.gpuDevice.pushErrorScope('out-of-memory');
    this.gpuDevice.pushErrorScope('validation');
    try {
      return create();
    } finally {
      const scopes = [this.gpuDevice.popErrorScope(), this.gpuDevice.popErrorScope()];
      const pending: Promise<void> = Promise.all(scopes)
        .then(
          (errors) => {
            for (const error of errors) if (error !== null) this.#gather(toVramError(error, what));
          },
          () => undefined, // Scopes reject only with the device, which reports its own loss.
        )
        .finally(() => this.#scopes.delete(pending));
      this.#scopes.add(pending);
    }
  }

  /**
   * Awaits `promise`, or rejects with `device-lost` as soon as the device goes away.
   * @throws VramError `device-lost`; whatever `promise` rejects with otherwise.
   */
  async orLost<T>(promise: Promise<T>): Promise<T> {
    this.assertUsable();
    let stop: ((error: VramError) => void) | undefined;
    const loss = new Promise<never>((_resolve, reject) => {
      stop = reject;
      this.#waiting.add(reject);
    });
    try {
      return await Promise.race([promise, loss]);
    } catch (error) {
      // A lost device rejects its own promises before it announces the loss: let that arrive.
      await new Promise((resolve) => setTimeout(resolve, 0));
      if (this.#lostError === undefined && this.#disposed) this.assertUsable();
      throw this.#lostError ?? error;
    } finally {
      if (stop !== undefined) this.#waiting.delete(stop);
    }
  }

  /**
   * Waits until all submitted work is done and every pending creation has been checked.
   * @throws VramError the first error gathered since the last call; `device-lost`; `disposed`.
   */
  async settle(): Promise<void> {
    await this.orLost(this.gpuDevice.queue.onSubmittedWorkDone());
    await this.throwGathered();
  }

  /**
   * Waits for pending error scopes, not for submitted work, and throws the first gathered error.
   * @throws VramError as {@link settle}.
   */
  async throwGathered(): Promise<void> {
    await this.orLost(Promise.all([...this.#scopes, this.#base.settled()]));
    this.assertUsable();
    // A creation that failed is the cause; commands that used its result only follow from it.
    const cause = this.#errors.find((error) => error.context['what'] !== COMMAND);
    const error = cause ?? this.#errors[0];
    this.#errors = [];
    if (error !== undefined) throw error;
  }

  /** Host memory for the uniforms of one batch. @internal */
  takeScratch(): UniformScratch {
    return this.#scratch.pop() ?? new UniformScratch(UNIFORM_BUFFER_BYTES);
  }

  /** Gives back what `takeScratch` gave. @internal */
  returnScratch(scratch: UniformScratch): void {
    scratch.usedBytes = 0;
    this.#scratch.push(scratch);
  }

  /**
   * Releases everything; idempotent. Destroys the `GPUDevice` only where {@link openDevice} made
   * it.
   * @throws VramError `invariant` naming what is still allocated, unless the device is lost.
   */
  dispose(): void {
    if (this.#disposed) return;
    if (this.#lostError === undefined) assertNoneLive('the device', this.#leftOver());
    this.#release();
  }

  /**
   * Releases everything, also what is still allocated: at the end of a `using` block a leak must
   * not hide the error that ended it.
   */
  [Symbol.dispose](): void {
    if (!this.#disposed) this.#release();
  }

  /** What others took and did not free. */
  #leftOver(): Allocation[] {
    const own = [this.#uniformAllocation, ...this.readback.buffers];
    return [...this.#live].filter((allocation) => !own.includes(allocation));
  }

  #release(): void {
    const leftOver = this.#leftOver();
    this.#disposed = true;
    this.readback.dispose();
    this.memory.free(this.#uniformAllocation);
    this.kernels.clear();
    this.gpuDevice.removeEventListener('uncapturederror', this.#onUncaptured);
    for (const { buffer } of leftOver) buffer.destroy();
    if (leftOver.length === 0) {
      this.memory.dispose();
      this.#traced?.dispose();
      this.#base.dispose();
    }
    if (this.#owned) {
      // The queue answers after whatever else was asked of it, maps of buffers among them.
      const done = this.gpuDevice.queue.onSubmittedWorkDone();
      this.gpuDevice.destroy();
      const pending = [...this.#scopes, this.#base.settled(), done, this.gpuDevice.lost];
      holdUntilSettled(this.#gpu, pending);
    }
    this.#gpu = undefined;
  }
}

function describeAdapter(gpuDevice: GPUDevice): AdapterDescription {
  // `adapterInfo` is missing on devices of older implementations.
  const info = gpuDevice.adapterInfo as GPUAdapterInfo | undefined;
  return {
    vendor: info?.vendor ?? '',
    architecture: info?.architecture ?? '',
    device: info?.device ?? '',
    description: info?.description ?? '',
  };
}

function toVramError(error: GPUError, what: string): VramError {
  const outOfMemory = error.constructor.name === 'GPUOutOfMemoryError';
  return new VramError(outOfMemory ? 'out-of-memory' : 'validation', `${what}: ${error.message}`, {
    context: { what },
    cause: error,
  });
}

/**
 * Opens a device on the best adapter, with its largest limits and the optional features vramkit
 * uses.
 *
 * @throws VramError `no-adapter` where WebGPU offers none; `unsupported` where the device request
 * fails.
 * @example
 * ```ts
 * import { openDevice } from '@vramkit/core';
 * using device = await openDevice({ budgetBytes: 512 * 1024 * 1024 });
 * console.log(device.adapter.description, device.limits.maxBufferSize);
 * ```
 */
export async function openDevice(options: OpenDeviceOptions = {}): Promise<VramDevice> {
  const gpu = options.gpu ?? (await createGpu());
  const adapter = await gpu.requestAdapter({
    powerPreference: options.powerPreference ?? 'high-performance',
  });
  if (adapter === null) {
    return fail('no-adapter', 'WebGPU offers no adapter; run `npx vramkit doctor` for what to do');
  }
  const without = new Set<string>(options.withoutFeatures ?? []);
  const requiredFeatures = WANTED_FEATURES.filter(
    (name) => adapter.features.has(name) && !without.has(name),
  );
  const requiredLimits = Object.fromEntries(
    LIMIT_NAMES.map((name) => [name, adapter.limits[name]]),
  );
  let gpuDevice: GPUDevice;
  try {
    gpuDevice = await adapter.requestDevice({
      label: options.label ?? 'vramkit',
      requiredFeatures,
      requiredLimits,
    });
  } catch (cause) {
    throw new VramError('unsupported', 'the adapter gave no device', { cause });
  }
  try {
    return new VramDevice(gpuDevice, { ...options, gpu, owned: true });
  } catch (error) {
    gpuDevice.destroy();
    holdUntilSettled(gpu, [gpuDevice.lost]);
    throw error;
  }
}

/**
 * Uses a device that tfjs, ONNX Runtime, TypeGPU or a page made; it is never destroyed here.
 * @throws VramError `invalid-argument` where `limits` are looser than the device's, and for what is
 * no device, such as the promise of one.
 */
export function adoptDevice(gpuDevice: GPUDevice, options: DeviceOptions = {}): VramDevice {
  assertArgument(
    'createBuffer' in Object(gpuDevice),
    'this is no GPUDevice; await a promise of one',
  );
  return new VramDevice(gpuDevice, { ...options, owned: false });
}
