/**
 * The stacks that the conformance suite runs on: every implementation over a bottom, every wrapper
 * around each, wrappers around wrappers, and implementations over wrapped bottoms.
 */
import type { MemoryResource } from '../resource.js';
import { arenaResource } from '../resources/arena.js';
import { countedResource } from '../resources/counted.js';
import { limitedResource } from '../resources/limited.js';
import { pooledResource } from '../resources/pooled.js';
import { tracedResource } from '../resources/traced.js';

/** Capacity of every stack that has one, bytes. */
export const STACK_CAPACITY_BYTES = 1024 * 1024;

/** One way to stand on another resource. */
interface Layer {
  readonly name: string;
  /** Whether the layer bounds what it hands out. */
  readonly bounds: boolean;
  over(upstream: MemoryResource): MemoryResource;
}

const capacity = { limitBytes: STACK_CAPACITY_BYTES };
const block = { sizeBytes: STACK_CAPACITY_BYTES, kind: 'weights', label: 'arena' } as const;

/** Layers that get memory of their own from below. */
const IMPLEMENTATIONS: readonly Layer[] = [
  { name: 'pooled', bounds: false, over: (upstream) => pooledResource(upstream) },
  { name: 'arena', bounds: true, over: (upstream) => arenaResource(upstream, block) },
];

/** Layers that pass allocations through. */
const WRAPPERS: readonly Layer[] = [
  { name: 'limited', bounds: true, over: (upstream) => limitedResource(upstream, capacity) },
  { name: 'counted', bounds: false, over: (upstream) => countedResource(upstream) },
  {
    name: 'traced',
    bounds: false,
    over: (upstream) => tracedResource(upstream, () => undefined, { now: () => 0 }),
  },
];

/** A stack to test: its name, its capacity, and how to build it on a bottom. */
export interface ResourceStack {
  readonly name: string;
  readonly capacityBytes: number;
  /** Layers above the bottom. */
  readonly depth: number;
  /** Builds the stack; `all` lists its layers from the bottom up. */
  build(bottom: MemoryResource): { resource: MemoryResource; all: readonly MemoryResource[] };
}

function stackOf(bottomName: string, layers: readonly Layer[]): ResourceStack {
  return {
    name: layers.reduce((inner, { name }) => `${name}(${inner})`, bottomName),
    capacityBytes: layers.some(({ bounds }) => bounds) ? STACK_CAPACITY_BYTES : Infinity,
    depth: layers.length,
    build(bottom) {
      const all = [bottom];
      let resource = bottom;
      for (const layer of layers) {
        resource = layer.over(resource);
        all.push(resource);
      }
      return { resource, all };
    },
  };
}

/** Every stack of up to three layers in which each layer is over each other kind once. */
export function resourceStacks(bottomName: string): ResourceStack[] {
  const layers = [...IMPLEMENTATIONS, ...WRAPPERS];
  const pairs = layers.flatMap((lower) => layers.map((upper) => [lower, upper]));
  const triples = IMPLEMENTATIONS.flatMap((lower) =>
    WRAPPERS.flatMap((middle) => WRAPPERS.map((upper) => [lower, middle, upper])),
  );
  const singles = layers.map((layer) => [layer]);
  return [[], ...singles, ...pairs, ...triples].map((stack) => stackOf(bottomName, stack));
}
