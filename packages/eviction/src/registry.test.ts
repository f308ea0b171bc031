/** Policies by name: each known one, spellings, and names that are not known. */
import { expect, it } from 'vitest';
import { KV_POLICY_NAMES, kvPolicy } from './registry.js';

const options = { budgetTokens: 64, blockSize: 16, sinkTokens: 20, protectLastBlocks: 2 };

it('makes every policy it names, with the options that are its own', () => {
  expect(KV_POLICY_NAMES.length).toBeGreaterThanOrEqual(13);
  for (const name of KV_POLICY_NAMES) expect(kvPolicy(name, options).name).toBe(name);
  expect(kvPolicy('streamingLlm', options).protect.firstTokens).toBe(32);
  expect(kvPolicy('pagedEviction', options).protect.lastTokens).toBe(32);
  expect(kvPolicy('full', options).budgetTokens).toBe(Infinity);
});

it('does not mind case and hyphens', () => {
  expect(kvPolicy('paged-eviction', options).name).toBe('pagedEviction');
  expect(kvPolicy('Streaming-LLM', options).name).toBe('streamingLlm');
});

it('lists the known names for one it does not know', () => {
  for (const name of ['lru', '', 'toString', '__proto__', 'constructor']) {
    expect(() => kvPolicy(name, options)).toThrow(
      expect.objectContaining({
        code: 'not-found',
        message: expect.stringContaining('full, random, streamingLlm, ') as string,
        context: { name, known: KV_POLICY_NAMES },
      }),
    );
  }
});
