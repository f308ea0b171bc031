/** Each rule over text and names fires on a breach and stays silent on the nearest lawful one. */
import { describe, expect, it } from 'vitest';
import { checkName, checkText, checkTwin } from './text-rules.js';

const rules = (path: string, text: string): string[] =>
  checkText(path, text).map((found) => `${found.rule}:${found.line}`);

describe('checkText', () => {
  it('lets unfinished work stand only with an issue', () => {
    expect(rules('a.ts', '\n// TODO: later\n')).toEqual(['unfinished:2']);
    expect(rules('a.md', 'FIXME')).toEqual(['unfinished:1']);
    expect(rules('a.ts', '// TODO(#12): later')).toEqual([]);
    expect(rules('a.ts', 'const TODOS = 1')).toEqual([]);
  });

  it('finds paths of one machine', () => {
    expect(rules('a.ts', "open('/home/ada/model.gguf')")).toEqual(['machine-path:1']);
    expect(rules('a.json', '{"cwd":"/work/main"}')).toEqual(['machine-path:1']);
    expect(rules('a.md', 'see https://example.org/home/ada and src/work/main')).toEqual([]);
  });

  it('reads text files only, and not itself', () => {
    expect(rules('model.bin', 'TODO')).toEqual([]);
    expect(rules('tools/style/src/text-rules.ts', 'TODO')).toEqual([]);
    expect(rules('.ci/run', '# TODO')).toEqual(['unfinished:1']);
  });
});

describe('checkName', () => {
  const names = (path: string): string[] => checkName(path).map((found) => found.rule);

  it('wants lower-case words joined by hyphens, with the known endings', () => {
    expect(names('packages/core/src/deviceLimits.ts')).toEqual(['kebab-case']);
    expect(names('packages/core/src/device-limits.gpu.test.ts')).toEqual([]);
    expect(names('packages/packer/src/kernels/matmul-q4.wgsl.ts')).toEqual([]);
    expect(names('eslint.config.js')).toEqual([]);
  });

  it('wants names that say something', () => {
    expect(names('packages/core/src/utils.ts')).toEqual(['vague-name']);
    expect(names('packages/core/src/types.ts')).toEqual(['vague-name']);
    expect(names('packages/core/src/ggml-types.ts')).toEqual([]);
  });
});

describe('checkTwin', () => {
  const kernel = 'packages/packer/src/kernels/matmul.wgsl.ts';
  const twins = new Set(['packages/packer/src/kernels/plain.cpu.ts']);
  const rules = (text: string, paths = twins): string[] =>
    checkTwin(kernel, text, paths).map((found) => found.rule);

  it('wants the CPU definition of each kernel: beside it, or by name', () => {
    expect(rules('defineKernel({})')).toEqual(['cpu-twin']);
    expect(rules('defineKernel({})', new Set([kernel.replace('wgsl', 'cpu')]))).toEqual([]);
    expect(rules('/** Defined by plain.cpu.ts. */ defineKernel({})')).toEqual([]);
    expect(rules('/** Defined by absent.cpu.ts. */ defineKernel({})')).toEqual(['cpu-twin']);
  });

  it('lets shared WGSL text be', () => {
    expect(rules('export const text = 1;')).toEqual([]);
  });
});
