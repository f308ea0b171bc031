/** The advisor: what is ruled out stays out, and the ranking follows from the workload. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { judgeStore, memoryStore, recommendStore, WORKLOADS } from './index.js';
import type { StoreCapabilities, StoreWorkload } from './index.js';

const best = (workload: StoreWorkload): string => {
  const [first] = recommendStore(workload);
  return `${first?.adapter} on ${first?.system}`;
};

describe('recommendStore', () => {
  it('gives the store that the survey gives', () => {
    expect(best({ kind: 'checkpoint', machines: 1 })).toBe('posixStore on local disk');
    expect(best({ kind: 'weights', machines: 1 })).toBe('posixStore on local disk');
    expect(best({ kind: 'index', machines: 1 })).toBe('sqliteStore on local disk');
    expect(best({ kind: 'kv-tier', machines: 1, blobCount: 100_000 })).toBe(
      'sqliteStore on local disk',
    );
    expect(best({ kind: 'index', machines: 8 })).toBe('cockroachStore on cockroachdb');
    expect(best({ kind: 'kv-tier', machines: 8, systems: ['ceph', 'hdfs', 'lustre'] })).toBe(
      'radosStore on ceph',
    );
    const cluster = { kind: 'checkpoint', machines: 8 } as const;
    expect(best({ ...cluster, systems: ['lustre', 'cockroachdb'] })).toBe('posixStore on lustre');
    expect(best({ ...cluster, systems: ['hdfs', 'local disk'] })).toBe('webHdfsStore on hdfs');
  });

  it('never names what cannot carry the workload, and always says why', () => {
    const workloads = fc.record({
      kind: fc.constantFrom(...WORKLOADS),
      machines: fc.integer({ min: 1, max: 100 }),
      blobBytes: fc.integer({ min: 0, max: 2 ** 40 }),
      blobCount: fc.nat(1e9),
    });
    fc.assert(
      fc.property(workloads, (workload) => {
        const advice = recommendStore(workload);
        const scores = advice.map(({ score }) => score);
        expect(scores).toEqual([...scores].sort((a, b) => b - a));
        for (const { adapter, system, reasons } of advice) {
          expect(reasons.length).toBeGreaterThan(0);
          if (workload.machines > 1) expect(system).not.toBe('local disk');
          const isDatabase = adapter === 'cockroachStore' || adapter === 'sqliteStore';
          if (workload.kind === 'index') expect(isDatabase).toBe(true);
          if (workload.blobBytes > 2 ** 30) expect(isDatabase).toBe(false);
        }
      }),
    );
    expect(recommendStore({ kind: 'index', machines: 2, systems: ['local disk'] })).toEqual([]);
    expect(() => recommendStore({ kind: 'index', machines: 0 })).toThrow(
      expect.objectContaining({ code: 'invalid-argument' }),
    );
  });
});

describe('judgeStore', () => {
  const suited = (capabilities: StoreCapabilities): string[] =>
    judgeStore(capabilities)
      .filter(({ suits }) => suits)
      .map(({ workload }) => workload);

  it('holds capabilities against the needs of each workload', () => {
    const memory = memoryStore().capabilities;
    expect(suited(memory)).toEqual(['weights', 'kv-tier']);
    const service: StoreCapabilities = { ...memory, durability: 'service' };
    expect(suited(service)).toEqual([...WORKLOADS]);
    expect(suited({ ...service, compareAndSwap: false })).toEqual([
      'checkpoint',
      'weights',
      'kv-tier',
    ]);
    expect(suited({ ...service, maxBlobBytes: 2 ** 20 })).toEqual(['kv-tier', 'index']);
    for (const { reasons } of judgeStore(memory)) expect(reasons.length).toBeGreaterThan(0);
  });
});
