// Scores of tiny-moe against PyTorch's: inverse norms of every expert, closed form and probes.
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { mopeq, mopeqProbe } from '@vramkit/packer';
import { expect, it } from 'vitest';
import { loadUnit, openMoeModel } from './moe-model.js';
import { scoreUnits } from './score-units.js';

const folder = fileURLToPath(new URL('../../../tools/models/tiny-moe/', import.meta.url));
interface Reference {
  readonly sensitivity: { readonly inverse_frobenius_norm_sum: number[][] };
}

it('checklist 9: mopeq equals PyTorch, and its probes within 1e-4', async () => {
  const text = await readFile(new URL('reference.json', `file://${folder}`), 'utf8');
  const { sensitivity } = JSON.parse(text) as Reference;
  const expected = sensitivity.inverse_frobenius_norm_sum.flat();
  const model = await openMoeModel(folder);
  expect(model.experts).toHaveLength(32);
  const scores = await scoreUnits(model, mopeq());
  scores.forEach((score, i) => {
    // PyTorch sums the squares in f32.
    expect(Math.abs(score / (expected[i] ?? NaN) - 1)).toBeLessThan(1e-5);
  });
  const [unit] = model.experts;
  if (unit === undefined) throw new Error('no expert');
  const probed = await mopeqProbe({ probes: 4 }).score(await loadUnit(unit));
  expect(Math.abs(probed / (scores[0] ?? NaN) - 1)).toBeLessThan(1e-4);
  await model.close();
});
