/** The embedded WebAssembly is exactly what its source assembles to; `vitest -u` writes it anew. */
import { format } from 'prettier';
import { expect, it } from 'vitest';
import wabt from 'wabt';
import { wasmSource } from './wasm-source.js';

it('assembles to the bytes in wasm-bytes.ts', async () => {
  const assembler = await wabt();
  const parsed = assembler.parseWat('adam.wat', wasmSource(), { simd: true, threads: true });

  const { buffer } = parsed.toBinary({});
  parsed.destroy();
  expect(WebAssembly.validate(buffer as Uint8Array<ArrayBuffer>)).toBe(true);
  const lines =
    Buffer.from(buffer)
      .toString('base64')
      .match(/.{1,90}/g) ?? [];
  const text = `/**
 * The CPU's kernels, assembled from wasm-source.ts by wasm-bytes.test.ts. Not written by hand.
 */

/** WebAssembly in base64. */
export const ADAM_WASM = [
${lines.map((line) => `'${line}',`).join('\n')}
].join('');
`;
  const formatted = await format(text, {
    parser: 'typescript',
    printWidth: 100,
    singleQuote: true,
  });
  await expect(formatted).toMatchFileSnapshot('wasm-bytes.ts');
});
