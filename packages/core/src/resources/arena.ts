/**
 * An arena: one buffer taken up front, cut into aligned ranges.
 *
 * Mental model: the buffer is a row of lines of `alignmentBytes`; an {@link OffsetAllocator} gives
 * out runs of lines in constant time. Nothing is taken from the upstream after creation. A
 * fragmented arena can refuse a request although its free bytes would hold it; nothing is ever
 * moved.
 *
 * One buffer has one limit that matters: within one dispatch WebGPU forbids binding it read-only in
 * one place and writable in another, even where the ranges are apart. Kernels of core then take a
 * variant with every binding writable, which refuses ranges that overlap, such as those of fused
 * keys and values; kernels of others do not know to. So use an arena for things that kernels only
 * read together (weights, experts) or only bind as read-write (paged caches), and a pool for
 * tensors that go in and out of kernels.
 */
import { assertArgument, checkInteger } from '../assert.js';
import { OffsetAllocator, type RangeHandle } from '../offset-allocator.js';
import {
  allocate,
  DEFAULT_BUFFER_USAGE,
  type Allocation,
  type MemoryKind,
  type MemoryResource,
} from '../resource.js';
import { AllocationLedger, checkRequest } from './ledger.js';

/** Options of {@link arenaResource}. */
export interface ArenaResourceOptions {
  /** Size of the buffer, bytes; a multiple of the alignment. */
  readonly sizeBytes: number;
  /** Kind under which the layers below see the buffer; requests may be of any kind. */
  readonly kind: MemoryKind;
  /** Name of the buffer. */
  readonly label: string;
  /**
   * Alignment of every range, bytes; a power of two >= 4. Default: 256, the storage and uniform
   * offset alignment that every device accepts.
   */
  readonly alignmentBytes?: number;
  /**
   * Usage of the buffer; requests may ask for any part of it. Default: {@link
   * DEFAULT_BUFFER_USAGE}.
   */
  readonly usage?: GPUBufferUsageFlags;
}

/** A {@link MemoryResource} that cuts up one buffer. */
export interface ArenaResource extends MemoryResource {
  /** Longest run of free bytes: the largest request that would be granted now. */
  largestFreeBytes(): number;
}

/**
 * Takes one buffer from `upstream` and cuts ranges out of it.
 * @throws VramError `out-of-memory` where the upstream has no room for the buffer,
 * `invalid-argument` where a size or the alignment of the upstream's range does not fit.
 */
export function arenaResource(
  upstream: MemoryResource,
  options: ArenaResourceOptions,
): ArenaResource {
  const { sizeBytes, kind, label } = options;
  const alignmentBytes = checkInteger('alignmentBytes', options.alignmentBytes ?? 256, 4, 2 ** 30);
  const usage = options.usage ?? DEFAULT_BUFFER_USAGE;
  assertArgument(
    Number.isInteger(Math.log2(alignmentBytes)),
    `alignmentBytes ${alignmentBytes} is not a power of two`,
  );
  checkInteger('sizeBytes', sizeBytes, alignmentBytes);
  assertArgument(
    sizeBytes % alignmentBytes === 0,
    `sizeBytes ${sizeBytes} is not a multiple of the alignment ${alignmentBytes}`,
    { sizeBytes, alignmentBytes },
  );
  const lines = new OffsetAllocator({ size: sizeBytes / alignmentBytes });
  const ledger = new AllocationLedger<RangeHandle>('arena');
  const block = allocate(upstream, { sizeBytes, kind, label, usage });
  if (block.offsetBytes % alignmentBytes !== 0) {
    upstream.free(block);
    assertArgument(false, `the upstream's range starts at ${block.offsetBytes} B, unaligned`, {
      offsetBytes: block.offsetBytes,
      alignmentBytes,
    });
  }

  return {
    tryAllocate(request) {
      ledger.assertUsable();
      checkRequest(request);
      const missingUsage = (request.usage ?? usage) & ~usage;
      assertArgument(missingUsage === 0, `the arena lacks usage flags ${missingUsage}`, {
        label: request.label,
        missingUsage,
      });
      if (request.sizeBytes > sizeBytes) return undefined;
      const lineCount = Math.max(1, Math.ceil(request.sizeBytes / alignmentBytes));
      const handle = lines.tryAllocate(lineCount);
      if (handle === undefined) return undefined;
      const allocation: Allocation = {
        buffer: block.buffer,
        offsetBytes: block.offsetBytes + lines.offsetOf(handle) * alignmentBytes,
        sizeBytes: request.sizeBytes,
        kind: request.kind,
        label: request.label,
      };
      ledger.add(allocation, lineCount * alignmentBytes, handle);
      return allocation;
    },
    free: (allocation) => lines.free(ledger.remove(allocation)),
    stats: () => ledger.stats(ledger.isDisposed ? 0 : sizeBytes, sizeBytes),
    dispose: () => ledger.dispose(() => upstream.free(block)),
    largestFreeBytes: () => lines.largestFreeSize() * alignmentBytes,
  };
}
