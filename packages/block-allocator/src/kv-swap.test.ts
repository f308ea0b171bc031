/** Swapping sequences out and in: what is copied, what fails, and that nothing is lost. */
import { describe, expect, it } from 'vitest';
import { BlockPool } from './block-pool.js';
import { KvCacheManager } from './kv-cache-manager.js';
import { KvSwap, type SwapMove } from './kv-swap.js';
import { SlotMapping } from './slot-mapping.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });

function run(count: number, first = 0): Uint32Array {
  return Uint32Array.from({ length: count }, (_, index) => first + index);
}

/** A manager with swap space and the block contents of both tiers. */
class Machine {
  readonly manager = new KvCacheManager(new BlockPool({ blockCount: 11, blockSize: 4 }));
  readonly swap = new KvSwap(this.manager, { hostBlocks: 6 });
  readonly device = new Map<number, number>();
  readonly host = new Map<number, number>();

  start(tokens: Uint32Array): number {
    const step = new SlotMapping();
    const sequence = this.manager.tryAllocate(tokens, step) ?? 0;
    step.slots.forEach((slot, index) =>
      this.device.set(slot, tokens[tokens.length - step.length + index] ?? -1),
    );
    return sequence;
  }

  copy({ direction, groups }: SwapMove): void {
    const [source, target] =
      direction === 'out' ? [this.device, this.host] : [this.host, this.device];
    for (const { from, to } of groups) {
      from.forEach((block, index) => {
        for (let offset = 0; offset < 4; offset++) {
          target.set((to[index] ?? 0) * 4 + offset, source.get(block * 4 + offset) ?? -1);
        }
      });
    }
  }

  read(sequence: number): number[] {
    const table = this.manager.table(sequence);
    return [...table.positions].map((_, index) => this.device.get(table.slotAt(index)) ?? -1);
  }
}

describe('KvSwap', () => {
  it('brings a sequence back as it was, after its blocks were used for others', () => {
    const machine = new Machine();
    const { manager, swap } = machine;
    const sequence = machine.start(run(14));
    const out = swap.prepareOut(sequence);
    if (out === undefined) throw new Error('no room');
    machine.copy(out);
    expect(swap.completeOut(out, 'succeeded')).toBe(true);
    manager.check();
    expect(manager.pool.freeCount).toBe(10);
    expect([manager.has(sequence), swap.isAway(sequence)]).toEqual([false, true]);
    const other = machine.start(run(40, 100)); // all blocks
    expect(swap.prepareIn(sequence)).toBe(undefined);
    manager.free(other);
    const back = swap.prepareIn(sequence);
    if (back === undefined) throw new Error('no room');
    expect(manager.match(run(15))).toBe(0);
    machine.copy(back);
    swap.completeIn(back, 'succeeded');
    manager.check();
    expect(machine.read(sequence)).toEqual([...run(14)]);
    expect(swap.freeCount).toBe(6);
    expect(manager.match(run(15))).toBe(12);
    expect(manager.metrics().preemptions).toBe(1);
  });

  it('behaviour 54: blocks that are read by a move are not handed out, even if it is freed', () => {
    const machine = new Machine();
    const { manager, swap } = machine;
    const sequence = machine.start(run(14));
    const out = swap.prepareOut(sequence);
    if (out === undefined) throw new Error('no room');
    manager.free(sequence);
    expect(manager.pool.freeCount).toBe(6);
    expect(manager.tryAllocate(run(28, 100), new SlotMapping())).toBe(undefined);
    expect(swap.completeOut(out, 'succeeded')).toBe(false);
    expect([manager.pool.freeCount, swap.freeCount]).toEqual([10, 6]);
  });

  it('a sequence whose tokens a policy moved offers only blocks as they were', () => {
    const machine = new Machine();
    const { manager, swap } = machine;
    const sequence = machine.start(run(20));
    // Without token 4, the second block holds tokens 5 to 8 and must not pass for 4 to 7.
    const kept = [...run(20)].filter((position) => position !== 4);
    expect(manager.tryCompact(sequence, kept)).toBeDefined();
    const out = swap.prepareOut(sequence);
    if (out === undefined) throw new Error('no room');
    machine.copy(out);
    swap.completeOut(out, 'succeeded');
    machine.start(run(40, 100)); // all blocks: nothing of the prompt is left
    manager.free(2);
    expect(manager.match(run(21))).toBe(0);
    const back = swap.prepareIn(sequence);
    if (back === undefined) throw new Error('no room');
    machine.copy(back);
    swap.completeIn(back, 'succeeded');
    manager.check();
    expect(manager.match(run(21))).toBe(4);
  });

  it('what was damaged before it went is not offered after it came back', () => {
    const machine = new Machine();
    const { manager, swap } = machine;
    const sequence = machine.start(run(14));
    manager.invalidate([manager.table(sequence).blockAt(1)]);
    const out = swap.prepareOut(sequence);
    if (out === undefined) throw new Error('no room');
    swap.completeOut(out, 'succeeded');
    const back = swap.prepareIn(sequence);
    if (back === undefined) throw new Error('no room');
    swap.completeIn(back, 'succeeded');
    manager.check();
    expect(manager.match(run(15))).toBe(4);
  });

  it.each(['succeeded', 'failed'] as const)(
    'a sequence freed on its way in leaves nothing, and its blocks stay until the move has %s',
    (outcome) => {
      const machine = new Machine();
      const { manager, swap } = machine;
      const sequence = machine.start(run(14));
      const out = swap.prepareOut(sequence);
      if (out === undefined) throw new Error('no room');
      swap.completeOut(out, 'succeeded');
      const back = swap.prepareIn(sequence);
      if (back === undefined) throw new Error('no room');
      manager.free(sequence);
      expect(manager.pool.freeCount).toBe(6);
      swap.completeIn(back, outcome);
      expect([manager.pool.freeCount, swap.freeCount]).toEqual([10, 6]);
      expect([swap.isAway(sequence), manager.sequenceCount]).toEqual([false, 0]);
      manager.check();
    },
  );

  it('a failed move leaves the sequence where it was', () => {
    const machine = new Machine();
    const { manager, swap } = machine;
    const sequence = machine.start(run(14));
    const out = swap.prepareOut(sequence);
    if (out === undefined) throw new Error('no room');
    expect(() => swap.prepareOut(sequence)).toThrow(error('invalid-argument'));
    expect(swap.completeOut(out, 'failed')).toBe(false);
    expect(() => swap.completeOut(out, 'failed')).toThrow(error('invalid-argument'));
    expect([manager.has(sequence), swap.freeCount, manager.pool.freeCount]).toEqual([true, 6, 6]);
    const again = swap.prepareOut(sequence);
    if (again === undefined) throw new Error('no room');
    machine.copy(again);
    swap.completeOut(again, 'succeeded');
    const back = swap.prepareIn(sequence);
    if (back === undefined) throw new Error('no room');
    swap.completeIn(back, 'failed');
    expect([manager.has(sequence), swap.isAway(sequence)]).toEqual([false, true]);
    expect(manager.pool.freeCount).toBe(10);
    manager.check();
    swap.discard(sequence);
    expect([manager.sequenceCount, swap.freeCount]).toEqual([0, 6]);
    expect(() => swap.prepareIn(sequence)).toThrow(error('not-found'));
    expect(manager.cache.tryReset()).toBe(true);
    expect(manager.cache.nodes.size).toBe(0);
  });

  it('a sequence that changed meanwhile stays, and one that does not fit is refused', () => {
    const machine = new Machine();
    const { manager, swap } = machine;
    const sequence = machine.start(run(16));
    const out = swap.prepareOut(sequence);
    if (out === undefined) throw new Error('no room');
    manager.tryAppend(sequence, run(1), new SlotMapping());
    expect(swap.completeOut(out, 'succeeded')).toBe(false);
    expect(manager.has(sequence)).toBe(true);
    manager.tryAppend(sequence, run(8), new SlotMapping());
    expect(swap.prepareOut(sequence)).toBe(undefined);
    expect(swap.freeCount).toBe(6);
    manager.check();
  });
});
