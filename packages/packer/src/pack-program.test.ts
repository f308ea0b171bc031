/** The embedded program is exactly what its source bundles to; `vitest -u` writes it anew. */
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { format } from 'prettier';
import { expect, it } from 'vitest';

it('bundles to the text in pack-program.ts', async () => {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL('./pack-thread.ts', import.meta.url))],
    bundle: true,
    minify: true,
    format: 'iife',
    target: 'es2022',
    conditions: ['@vramkit/source'],
    write: false,
  });
  const lines = outputFiles[0]?.text.trim().match(/[^]{1,90}/g) ?? [];
  const text = `/**
 * The program of a packing thread, bundled from pack-thread.ts by pack-program.test.ts. Not written
 * by hand.
 */

/** JavaScript. */
export const PACK_PROGRAM = [
${lines.map((line) => `${JSON.stringify(line)},`).join('\n')}
].join('');
`;
  const formatted = await format(text, {
    parser: 'typescript',
    printWidth: 100,
    singleQuote: true,
  });
  await expect(formatted).toMatchFileSnapshot('pack-program.ts');
});
