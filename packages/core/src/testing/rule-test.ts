/** One run of one rule of the resource suite: the resource, and how to say what must hold. */
import { isVramError, type VramErrorCode } from '../errors.js';
import {
  allocate,
  MEMORY_KINDS,
  type Allocation,
  type MemoryKind,
  type MemoryResource,
  type MemoryStats,
} from '../resource.js';

/** The part of a test library that the suites use. */
export interface TestApi {
  describe(name: string, body: () => void): unknown;
  it(name: string, body: () => void | Promise<void>): unknown;
  expect(actual: unknown): { toEqual(expected: unknown): void };
}

/** What a rule needs to know of its subject. */
export interface RuleSubject {
  readonly resource: MemoryResource;
  readonly upstream?: MemoryResource;
  readonly gpuDevice?: GPUDevice;
}

/** Registers one rule. */
export type Rule = (title: string, body: (test: RuleTest) => void | Promise<void>) => void;

/** Assertions about one resource. */
export class RuleTest {
  readonly subject: RuleSubject;
  readonly resource: MemoryResource;
  readonly #api: TestApi;

  constructor(api: TestApi, subject: RuleSubject) {
    this.#api = api;
    this.subject = subject;
    this.resource = subject.resource;
  }

  /** Expects deep equality; `what` shows in the failure. */
  same(what: string, actual: unknown, expected: unknown): void {
    this.#api.expect({ [what]: actual }).toEqual({ [what]: expected });
  }

  /** Expects `call` to throw a `VramError` of `code`, and returns its context. */
  throws(code: VramErrorCode, call: () => unknown): Record<string, unknown> {
    try {
      call();
    } catch (error) {
      if (!isVramError(error)) throw error;
      this.same(`the code of "${error.message}"`, error.code, code);
      return { ...error.context };
    }
    this.same(`a call that must throw ${code}`, 'returned', 'threw');
    return {};
  }

  /** Allocates; the resource must have room. */
  take(sizeBytes: number, kind: MemoryKind = 'staging', label: string = kind): Allocation {
    return allocate(this.resource, { sizeBytes, kind, label });
  }

  /** A snapshot, whose sums and inequalities are checked. */
  stats(): MemoryStats {
    const stats = this.resource.stats();
    const byKind = MEMORY_KINDS.reduce((sum, kind) => sum + stats.liveBytesByKind[kind], 0);
    this.same('live bytes by kind, summed', byKind, stats.liveBytes);
    const taken = stats.liveBytes + stats.paddingBytes;
    this.same('padding >= 0', stats.paddingBytes >= 0, true);
    this.same(`live + padding ${taken} within reserved`, taken <= stats.reservedBytes, true);
    this.same(`live + padding ${taken} within the limit`, taken <= stats.limitBytes, true);
    this.same('reserved within its peak', stats.reservedBytes <= stats.peakReservedBytes, true);
    return stats;
  }

  /** Expects that nothing is live. */
  empty(): void {
    const { liveBytes, paddingBytes, allocationCount } = this.stats();
    this.same('what is live', { liveBytes, paddingBytes, allocationCount }, NOTHING);
  }
}

const NOTHING = { liveBytes: 0, paddingBytes: 0, allocationCount: 0 };
