/** ONNX Runtime Web over a static KV cache in headless Chromium. */
import { withPage } from './browser.js';
import type { DecodeComparison, DecodeOptions } from './decode.js';
import { decoderModel } from './onnx-model.js';

/** Both loops of `decode.ts` in a page, on its own device. */
export function decodeInPage(options: Omit<DecodeOptions, 'model'>): Promise<DecodeComparison> {
  const run = `window.decode(${JSON.stringify(options)})`;
  return withPage(
    '/decode.html',
    async (page) => {
      await page.waitForFunction('window.decode', { timeout: 30_000 });
      return (await page.evaluate(run)) as DecodeComparison; // what decode.js says it is
    },
    { '/model.onnx': decoderModel(options) },
  );
}
