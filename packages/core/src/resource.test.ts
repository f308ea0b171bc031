/** The conformance suite on every stack over a bottom without a GPU, and the throwing twin. */
import { describe, expect, it } from 'vitest';
import { allocate, paddedBytes } from './resource.js';
import { describeResource, faultyResource, hostResource, resourceStacks } from './testing.js';

const api = { describe, it, expect };

for (const stack of resourceStacks('host')) {
  const { name, capacityBytes, depth } = stack;
  // Deeper stacks add no new states, only new pairings: one short walk is enough.
  const walks = depth < 2 ? { steps: 300, seeds: [1, 2, 3] } : { steps: 100, seeds: [4] };
  describeResource(
    name,
    () => {
      const { resource, all } = stack.build(hostResource());
      const upstream = all.at(-2);
      return upstream === undefined ? { resource } : { resource, upstream };
    },
    api,
    { capacityBytes, ...walks },
  );
}

describeResource(
  'host with a capacity',
  () => ({ resource: hostResource({ capacityBytes: 100_000 }) }),
  api,
  {
    capacityBytes: 100_000,
  },
);

describe('paddedBytes', () => {
  it.each([
    [0, 4],
    [1, 4],
    [4, 4],
    [5, 8],
    [2 ** 40 + 1, 2 ** 40 + 4],
  ])('%d B take %d B', (sizeBytes, taken) => expect(paddedBytes(sizeBytes)).toBe(taken));
});

describe('allocate', () => {
  it('says that the driver or fragmentation is to blame where the limit has room', () => {
    const resource = faultyResource(hostResource({ capacityBytes: 4096 }), { failAt: [0] });
    const request = { sizeBytes: 1024, kind: 'weights', label: 'layer 3' } as const;
    expect(() => allocate(resource, request)).toThrow(
      /needed 1024 B of kind 'weights' for 'layer 3', 4096 B free of 4096 B, but no range/,
    );
    expect(allocate(resource, request).sizeBytes).toBe(1024);
  });
});
