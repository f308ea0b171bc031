/**
 * Every replacement policy against a naive model: plain arrays, oldest first, no links, no slots.
 *
 * A model says who goes, whatever it costs to find out. Random operations drive both; copies that
 * may not go change from question to question.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { arc } from './arc.js';
import { gdsf } from './gdsf.js';
import type { Replacement } from './held-slots.js';
import { lfu } from './lfu.js';
import { lru } from './lru.js';
import { s3Fifo } from './s3-fifo.js';
import { sieve } from './sieve.js';
import { slru } from './slru.js';

type Model = Pick<Replacement<number>, 'inserted' | 'touched' | 'removed' | 'chooseVictim'>;

const without = (list: readonly number[], id: number): number[] => list.filter((x) => x !== id);

function lruModel(): Model {
  let order: number[] = [];
  const use = (id: number): void => void (order = [...without(order, id), id]);
  return {
    inserted: use,
    touched: use,
    removed: (id) => void (order = without(order, id)),
    chooseVictim(mayEvict) {
      const victim = order.find(mayEvict);
      const refused = victim === undefined ? order : order.slice(0, order.indexOf(victim));
      refused.forEach(use);
      return victim;
    },
  };
}

function lfuModel(): Model {
  let time = 0;
  const held = new Map<number, { uses: number; since: number }>();
  const use = (id: number): void =>
    void held.set(id, { uses: (held.get(id)?.uses ?? 0) + 1, since: time++ });
  return {
    inserted: use,
    touched: use,
    removed: (id) => void held.delete(id),
    chooseVictim(mayEvict) {
      const order = [...held].sort(([, a], [, b]) => a.uses - b.uses || a.since - b.since);
      const ids = order.map(([id]) => id);
      const victim = ids.find(mayEvict);
      const refused = victim === undefined ? ids : ids.slice(0, ids.indexOf(victim));
      refused.forEach(use);
      return victim;
    },
  };
}

function slruModel(): Model {
  let probation: number[] = [];
  let kept: number[] = [];
  const settle = (): void => {
    while (kept.length > Math.floor(0.8 * (kept.length + probation.length))) {
      probation.push(...kept.splice(0, 1));
    }
  };
  const use = (id: number): void => {
    probation = without(probation, id);
    kept = [...without(kept, id), id];
    settle();
  };
  return {
    inserted: (id) => void probation.push(id),
    touched: use,
    removed(id) {
      probation = without(probation, id);
      kept = without(kept, id);
      settle();
    },
    chooseVictim(mayEvict) {
      for (let left = probation.length + kept.length; left > 0; left--) {
        const id = probation[0] ?? kept[0] ?? NaN;
        if (mayEvict(id)) return id;
        use(id);
      }
      return undefined;
    },
  };
}

function sieveModel(): Model {
  let queue: { id: number; used: boolean }[] = [];
  let hand = 0;
  return {
    inserted: (id) => void queue.push({ id, used: false }),
    touched(id) {
      for (const each of queue) if (each.id === id) each.used = true;
    },
    removed(id) {
      if (queue.findIndex((each) => each.id === id) < hand) hand--;
      queue = queue.filter((each) => each.id !== id);
      // Behind the newest the hand starts over, whatever comes in the meantime.
      if (hand >= queue.length) hand = 0;
    },
    chooseVictim(mayEvict) {
      // Two turns over copies that may not go leave no mark, and the hand where it was.
      if (!queue.some(({ id }) => mayEvict(id))) {
        for (const each of queue) each.used = false;
        return undefined;
      }
      for (;;) {
        const at = queue[hand];
        if (at === undefined) throw new Error('the hand is at no copy');
        if (!at.used && mayEvict(at.id)) return at.id;
        at.used = false;
        hand = (hand + 1) % queue.length;
      }
    },
  };
}

function s3FifoModel(): Model {
  let [small, main, ghost]: number[][] = [[], [], []];
  const uses = new Map<number, number>();
  return {
    inserted(id) {
      uses.set(id, 0);
      if (ghost?.includes(id) === true) {
        ghost = without(ghost, id);
        main?.push(id);
      } else small?.push(id);
    },
    touched: (id) => void uses.set(id, Math.min(3, (uses.get(id) ?? 0) + 1)),
    removed(id, reason) {
      if (reason === 'capacity' && small?.includes(id) === true) ghost?.push(id);
      small = without(small ?? [], id);
      main = without(main ?? [], id);
      const most = 0.9 * (small.length + main.length);
      while ((ghost?.length ?? 0) > most) ghost?.shift();
    },
    chooseVictim(mayEvict) {
      const [s, m] = [small ?? [], main ?? []];
      const size = s.length + m.length;
      let asked = 0;
      while (asked < size) {
        const fromSmall = s.length > 0 && (s.length >= 0.1 * size || m.length === 0);
        const [id = NaN] = fromSmall ? s : m;
        const count = uses.get(id) ?? 0;
        const isCandidate = fromSmall ? count <= 1 : count === 0;
        if (isCandidate && mayEvict(id)) return id;
        if (isCandidate) asked++;
        else uses.set(id, fromSmall ? 0 : count - 1);
        (fromSmall ? s : m).shift();
        m.push(id);
      }
      return m.find(mayEvict) ?? s.find(mayEvict);
    },
  };
}

function arcModel(): Model {
  const lists: Record<'t1' | 't2' | 'b1' | 'b2', number[]> = { t1: [], t2: [], b1: [], b2: [] };
  let [p, c] = [0, 0];
  const take = (id: number): void => {
    for (const name of ['t1', 't2', 'b1', 'b2'] as const) lists[name] = without(lists[name], id);
  };
  const trim = (): void => {
    const { t1, t2, b1, b2 } = lists;
    while (t1.length + b1.length > c && b1.length > 0) b1.shift();
    while (t1.length + t2.length + b1.length + b2.length > 2 * c && b1.length + b2.length > 0) {
      if (b2.length > 0) b2.shift();
      else b1.shift();
    }
  };
  return {
    inserted(id) {
      const { b1, b2 } = lists;
      const isKnown = b1.includes(id) || b2.includes(id);
      if (b1.includes(id)) p = Math.min(c, p + Math.max(1, b2.length / b1.length));
      if (b2.includes(id)) p = Math.max(0, p - Math.max(1, b1.length / b2.length));
      take(id);
      lists[isKnown ? 't2' : 't1'].push(id);
      trim();
    },
    touched(id) {
      take(id);
      lists.t2.push(id);
    },
    removed(id, reason) {
      const ghost = lists.t1.includes(id) ? lists.b1 : lists.b2;
      take(id);
      if (reason === 'capacity') (ghost === lists.b1 ? lists.b1 : lists.b2).push(id);
      trim();
    },
    chooseVictim(mayEvict) {
      c = lists.t1.length + lists.t2.length;
      p = Math.min(p, c);
      trim();
      const once = lists.t1.length;
      const from = (list: readonly number[]): number | undefined => {
        const victim = list.find(mayEvict);
        const refused = victim === undefined ? list : list.slice(0, list.indexOf(victim));
        for (const id of refused) {
          take(id);
          lists.t2.push(id);
        }
        return victim;
      };
      const [t1, t2] = [[...lists.t1], [...lists.t2]];
      if (once > p) return from(t1) ?? from(t2);
      const victim = from(t2);
      if (victim !== undefined) return victim;
      p = Math.max(0, once - 1);
      return from(t1);
    },
  };
}

function gdsfModel(): Model {
  let [clock, victims, time] = [0, 0, 0];
  const held = new Map<number, { uses: number; value: number; priority: number; time: number }>();
  let aside: { id: number; until: number }[] = [];
  const enter = (id: number): void => {
    aside = aside.filter((each) => each.id !== id);
    const each = held.get(id);
    if (each === undefined) return;
    each.priority = clock + each.uses * each.value;
    each.time = time++;
  };
  return {
    inserted(id, { sizeBytes, reloadCost }) {
      const value = reloadCost / Math.max(1, sizeBytes);
      held.set(id, { uses: 1, value, priority: 0, time: 0 });
      enter(id);
    },
    touched(id) {
      const each = held.get(id);
      if (each !== undefined) each.uses++;
      enter(id);
    },
    removed(id, reason) {
      const isAside = aside.some((each) => each.id === id);
      if (reason === 'capacity') {
        victims++;
        if (!isAside) clock = Math.max(clock, held.get(id)?.priority ?? NaN);
      }
      aside = aside.filter((each) => each.id !== id);
      held.delete(id);
    },
    chooseVictim(mayEvict) {
      while (aside[0] !== undefined && aside[0].until <= victims) enter(aside[0].id);
      const isAside = (id: number): boolean => aside.some((each) => each.id === id);
      const order = [...held].filter(([id]) => !isAside(id));
      order.sort(([, a], [, b]) => a.priority - b.priority || a.time - b.time);
      for (const [id] of order) {
        if (mayEvict(id)) return id;
        aside.push({ id, until: victims + held.size + 1 });
      }
      return aside.find(({ id }) => mayEvict(id))?.id;
    },
  };
}

const pairs: Record<string, readonly [() => Replacement<number>, () => Model]> = {
  lru: [lru, lruModel],
  lfu: [lfu, lfuModel],
  slru: [slru, slruModel],
  sieve: [sieve, sieveModel],
  s3Fifo: [s3Fifo, s3FifoModel],
  arc: [arc, arcModel],
  gdsf: [gdsf, gdsfModel],
};

const operation = fc.record({
  kind: fc.constantFrom('read', 'read', 'read', 'read', 'drop', 'ask'),
  id: fc.nat(24),
  refused: fc.nat(2 ** 25 - 1),
  sizeBytes: fc.constantFrom(0, 1, 8, 64),
  reloadCost: fc.constantFrom(0, 1, 3, 100),
});

describe('against naive models', () => {
  for (const [name, [make, makeModel]] of Object.entries(pairs)) {
    it(`${name} names the same victims`, () => {
      fc.assert(
        fc.property(
          fc.array(operation, { maxLength: 120 }),
          fc.boolean(),
          (operations, isPinned) => {
            const [policy, model] = [make(), makeModel()];
            const held = new Set<number>();
            for (const { kind, id, refused, ...size } of operations) {
              const mayEvict = (each: number): boolean =>
                !isPinned || ((refused >> each) & 1) === 0;
              const choose = (): number | undefined => {
                const victim = policy.chooseVictim(mayEvict);
                expect(victim).toBe(model.chooseVictim(mayEvict));
                return victim;
              };
              const drop = (victim: number, reason: 'capacity' | 'explicit'): void => {
                for (const each of [policy, model]) each.removed(victim, reason);
                held.delete(victim);
              };
              if (kind === 'ask') choose();
              else if (kind === 'drop' && held.has(id)) drop(id, 'explicit');
              else if (kind === 'read' && held.has(id)) {
                for (const each of [policy, model]) each.touched(id);
              } else if (kind === 'read') {
                const victim = held.size < 10 ? undefined : choose();
                if (victim !== undefined) drop(victim, 'capacity');
                for (const each of [policy, model]) each.inserted(id, size);
                held.add(id);
              }
              policy.check();
            }
          },
        ),
        { numRuns: 150 },
      );
    });
  }
});
