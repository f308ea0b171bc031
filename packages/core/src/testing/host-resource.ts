/**
 * A memory resource without a GPU, to test bookkeeping above it.
 *
 * Its "buffers" are plain objects with a size and a label that stand for an identity; nothing can
 * be read from or written to them. Use it for wrappers, allocators and policies, never to prove
 * what a kernel computes.
 */
import { assertArgument } from '../assert.js';
import { DEFAULT_BUFFER_USAGE, paddedBytes, type MemoryResource } from '../resource.js';
import { AllocationLedger, checkRequest } from '../resources/ledger.js';

/** Options of {@link hostResource}. */
export interface HostResourceOptions {
  /** Most bytes at once, each request rounded up to 4. Default: no limit. */
  readonly capacityBytes?: number;
  /** Largest buffer, bytes; a larger request throws `invalid-argument`. Default: no limit. */
  readonly maxBufferBytes?: number;
}

/** A resource whose buffers are only identities. */
export interface HostResource extends MemoryResource {
  /** Buffers made so far. */
  buffersCreated(): number;
  /** Recomputes the sums. @throws VramError `invariant` where one differs. */
  check(): void;
}

/** Hands out one stand-in buffer per allocation. */
export function hostResource(options: HostResourceOptions = {}): HostResource {
  const { capacityBytes = Infinity, maxBufferBytes = Infinity } = options;
  const ledger = new AllocationLedger<void>('host');
  let created = 0;
  return {
    tryAllocate(request) {
      ledger.assertUsable();
      checkRequest(request);
      const size = paddedBytes(request.sizeBytes);
      assertArgument(size <= maxBufferBytes, `${size} B exceed a buffer of ${maxBufferBytes} B`);
      if (ledger.takenBytes + size > capacityBytes) return undefined;
      const { kind, label, sizeBytes, usage = DEFAULT_BUFFER_USAGE } = request;
      // Only an identity: no code under test may call a method of it.
      const buffer = { size, label, usage } as unknown as GPUBuffer;
      const allocation = { buffer, offsetBytes: 0, sizeBytes, kind, label };
      ledger.add(allocation, size, undefined);
      ledger.notePeak(ledger.takenBytes);
      created += 1;
      return allocation;
    },
    free: (allocation) => ledger.remove(allocation),
    stats: () => ledger.stats(ledger.takenBytes, capacityBytes),
    dispose: () => ledger.dispose(),
    buffersCreated: () => created,
    check: () => ledger.check(),
  };
}
