/** Every replacement policy passes the suite, with any ids and with dense ones. */
import { describe, expect, it } from 'vitest';
import { describeReplacementPolicy } from '../testing.js';
import { arc } from './arc.js';
import { gdsf } from './gdsf.js';
import type { Replacement, ReplacementOptions } from './held-slots.js';
import { lfu } from './lfu.js';
import { lru } from './lru.js';
import { s3Fifo } from './s3-fifo.js';
import { sieve } from './sieve.js';
import { denseIds } from './slot-index.js';
import { slru } from './slru.js';

const policies: Record<string, (options?: ReplacementOptions<number>) => Replacement<number>> = {
  ...{ lru, lfu, slru, sieve, s3Fifo, arc, gdsf },
};

for (const [name, make] of Object.entries(policies)) {
  describeReplacementPolicy(name, () => make(), { describe, expect, it });
  describeReplacementPolicy(`${name}, dense ids`, () => make({ ids: denseIds(4096) }), {
    describe,
    expect,
    it,
  });
}
