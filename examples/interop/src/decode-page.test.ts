/** ONNX Runtime Web in headless Chromium, its K and V in buffers of ours. */
import { expect, it } from 'vitest';
import { whyNoPackages } from './browser.js';
import { decodeInPage } from './decode-page.js';
import { whyNoRuntimes } from './runtimes.js';

const reason = whyNoRuntimes() ?? whyNoPackages();
if (reason !== undefined) {
  process.stderr.write(`interop with ONNX Runtime in a page skipped: ${reason}\n`);
}

it.skipIf(reason !== undefined)('decodes the same, and creates no buffer on the way', async () => {
  const steps = 32;
  const { usual, fixed, equal } = await decodeInPage({ layers: 2, heads: 2, headDim: 4, steps });
  expect(equal).toBe(true);
  expect(usual.creatingSteps).toBe(steps);
  expect(fixed.buffersCreated).toBe(0);
});
