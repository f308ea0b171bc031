/** Widths for byte targets of the whole file. */
import { fileURLToPath } from 'node:url';
import { openMoeModel } from '@vramkit/example-moe-pack';
import { expect, it } from 'vitest';
import { checkTarget, chooseWidths, plannedBytes, scoredUnits } from './pack-stage.js';

const folder = fileURLToPath(new URL('../../../tools/models/tiny-moe/', import.meta.url));

it('meets every target from the least on, and names the least', async () => {
  const model = await openMoeModel(folder);
  const units = await scoredUnits(model);
  const uniform = (bits: 2 | 8) => new Map(units.map(({ id }) => [id, bits]));
  const [least, most] = [plannedBytes(model, uniform(2)), plannedBytes(model, uniform(8))];
  for (const fileBytes of [least, least + 1, least + 40_000, 1_700_000, most, most + 1e6]) {
    const { widths, targetBytes } = chooseWidths(model, units, { fileBytes });
    expect(targetBytes).toBe(fileBytes);
    expect(plannedBytes(model, widths)).toBeLessThanOrEqual(fileBytes);
    expect(widths.size).toBe(32);
  }
  // What a target leaves unused is less than the cheapest step of any expert, header aside.
  const { widths, targetBytes } = chooseWidths(model, units, { bits: 3 });
  const left = targetBytes - plannedBytes(model, widths);
  expect(left).toBeLessThan(3 * 128 * 256 * (1 / 8) + 4096);
  expect(new Set(widths.values()).size).toBeGreaterThan(1);
  checkTarget(model, { fileBytes: least });
  const refused = expect.objectContaining({
    code: 'invalid-argument',
    context: { targetBytes: least - 1, leastBytes: least },
  });
  expect(() => checkTarget(model, { fileBytes: least - 1 })).toThrow(refused);
  expect(() => chooseWidths(model, units, { fileBytes: least - 1 })).toThrow(refused);
  await model.close();
});
