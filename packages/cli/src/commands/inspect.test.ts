/** The model by argument or by option, by the command in this process. */
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { runCaptured } from '../testing/run-captured.js';
import { inspect } from './inspect.js';

const model = fileURLToPath(new URL('../../../../tools/models/tiny-moe', import.meta.url));

const run = (...args: string[]) => runCaptured(['inspect', ...args], [inspect]);

describe('vramkit inspect', () => {
  it('takes a model as argument or as option', async () => {
    const named = await run(model);
    expect(named).toMatchObject({ status: 0, err: '' });
    expect(named.out).toMatch(/\d+ tensors of a safetensors file, \d+ B\n$/);
    expect(await run('--model', model)).toEqual(named);
  });

  it('refuses both and neither', async () => {
    const both = await run(model, '--model', model);
    expect(both.status).toBe(2);
    expect(both.err).toContain('PATH and --model both name a model');
    const neither = await run();
    expect(neither.status).toBe(2);
    expect(neither.err).toContain('name a model: PATH or --model');
  });
});
