/** The real binary plans tiny-moe and a dense file from a saved report: no GPU is needed. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { InferenceModel, Placement, PlacementShortfall } from '@vramkit/offload';
import { buildGguf } from '@vramkit/packer/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const binary = fileURLToPath(new URL('../../bin/vramkit.js', import.meta.url));
const model = fileURLToPath(new URL('../../../../tools/models/tiny-moe', import.meta.url));

let folder: string;
let rates: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vramkit-plan-'));
  rates = join(folder, 'doctor.json');
  const figure = (median: number) => ({ median });
  const measured = {
    copy: figure(100),
    matmul: figure(5000),
    download: figure(4),
    uploadMapped: figure(8),
  };
  writeFileSync(rates, JSON.stringify({ ok: true, adapter: { driver: 'a card' }, measured }));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function vramkit(...args: string[]) {
  return spawnSync(process.execPath, [binary, 'plan', ...args], { cwd: folder, encoding: 'utf8' });
}

interface Printed {
  readonly model: InferenceModel;
  readonly plan: Placement | { readonly infeasible: readonly PlacementShortfall[] };
}

function planJson(...args: string[]): Printed & { status: number | null } {
  const { stdout, stderr, status } = vramkit('--rates', rates, '--json', ...args);
  expect(stderr).toBe('');
  return { ...(JSON.parse(stdout) as Printed), status };
}

describe('vramkit plan', { timeout: 120_000 }, () => {
  it('counts every byte of a mixture-of-experts model once', () => {
    const { model: counted, plan, status } = planJson('--model', model);
    expect(status).toBe(0);
    expect(counted).toMatchObject({ experts: 8, expertsPerToken: 2 });
    const { layers, layerBytes, experts, expertBytes, frameBytes } = counted;
    const bytes = frameBytes + layers * (layerBytes + experts * expertBytes);
    const file = statSync(join(model, 'model.safetensors')).size;
    expect(file - bytes).toBeGreaterThan(0); // the header
    expect(file - bytes).toBeLessThan(64 * 1024);
    expect(plan).toMatchObject({ shares: { experts: { device: 1 } }, streaming: 'none' });
  });

  it('splits it under a budget, and says tokens/s', () => {
    const args = ['--model', model, '--gpu-budget', '3M', '--workspace', '128K'];
    const { plan } = planJson(...args, '--prompt', '64', '--output', '32');
    if ('infeasible' in plan) throw new Error(JSON.stringify(plan));
    expect(plan.bytes.device).toBeLessThanOrEqual(3 * 2 ** 20);
    expect(plan.shares.experts.device).toBeLessThan(1);
    expect(plan.predicted.decodeTokensPerSecond).toBeGreaterThan(0);
    const text = vramkit('--rates', rates, ...args).stdout;
    expect(text).toMatch(/decode {2}\S+ tokens\/s, waits for \w+/);
    expect(text).toContain('rates: vramkit doctor on a card');
  });

  it('takes shares as given, and says which bytes are missing', () => {
    const fixed = planJson('--model', model, '--fix', 'kv=0/100/0');
    expect(fixed.plan).toMatchObject({ shares: { kv: { host: 1 } } });
    const budgets = ['--gpu-budget', '1M', '--host-budget', '1M', '--storage-budget', '0'];
    const short = planJson('--model', model, ...budgets);
    expect(short.status).toBe(1);
    if (!('infeasible' in short.plan)) throw new Error('it cannot fit');
    const { stderr, status } = vramkit('--rates', rates, '--model', model, ...budgets);
    expect(status).toBe(1);
    for (const { tier, missingBytes } of short.plan.infeasible) {
      expect(stderr).toContain(`${tier} lacks ${missingBytes} B`);
    }
  });

  it('says what part of a missing budget the workspace is', () => {
    const args = ['--rates', rates, '--model', model, '--gpu-budget', '48M'];
    const short = vramkit(...args);
    expect(short.stderr).toMatch(
      /device lacks \d+ B .*; raise --gpu-budget; --workspace takes 64\.00 MiB of the device\.\n$/,
    );
    expect(vramkit(...args, '--workspace', '8M').status).toBe(0);
  });

  it('keeps columns of large sizes apart', () => {
    const args = ['--rates', rates, '--model', model, '--gpu-budget', '4G'];
    const { stdout } = vramkit(...args, '--batch', '1000000000', '--prompt', '100000');
    expect(stdout).toMatch(/\nbytes +\S+ [KMG]?iB +\S+ [TPE]iB +\S+ [KMGTPE]?i?B   streaming/);
  });

  it('reads experts per token of a GGUF file', () => {
    const path = join(folder, 'm.gguf');
    const tensor = (name: string, ...shape: number[]) => ({
      name,
      type: 'F32' as const,
      shape,
      bytes: new Uint8Array(4 * shape.reduce((product, extent) => product * extent, 1)),
    });
    const tensors = [
      tensor('token_embd.weight', 8, 32),
      tensor('output.weight', 8, 32),
      tensor('blk.0.attn_k.weight', 16, 32),
      tensor('blk.0.attn_v.weight', 16, 32),
      tensor('blk.0.ffn_gate_exps.weight', 3, 64, 32),
    ];
    const metadata = { 'general.architecture': 'llama', 'llama.expert_used_count': 2 };
    writeFileSync(path, buildGguf({ metadata, tensors }));
    expect(planJson('--model', path).model).toEqual({
      layers: 1,
      frameBytes: 2 * 8 * 32 * 4,
      layerBytes: 2 * 16 * 32 * 4,
      experts: 3,
      expertsPerToken: 2,
      expertBytes: 64 * 32 * 4,
      kvBytesPerToken: 2 * 16 * 2,
      activeParameters: 8 * 32 + 2 * 16 * 32 + 2 * 64 * 32,
      workspaceBytes: 64 * 2 ** 20,
    });
  });

  it('refuses options of experts for a model that has none', () => {
    const path = join(folder, 'dense.gguf');
    const shape = [16, 32];
    const names = ['blk.0.attn_k.weight', 'blk.0.attn_v.weight'];
    const bytes = new Uint8Array(4 * 16 * 32);
    const tensors = names.map((name) => ({ name, type: 'F32' as const, shape, bytes }));
    writeFileSync(path, buildGguf({ metadata: { 'general.architecture': 'llama' }, tensors }));
    const args = ['--rates', rates, '--model', path];
    expect(vramkit(...args).status).toBe(0);
    for (const [option = '', value = ''] of [
      ['--experts-per-token', '2'],
      ['--fix', 'experts=0/100/0'],
    ]) {
      const { status, stderr } = vramkit(...args, option, value);
      expect(stderr).toMatch(new RegExp(`${option}.*has no experts`));
      expect(status).toBe(2);
    }
  });

  it.each([
    [[], 2, '--model is required'],
    [['--model', model, '--gpu-budget', 'lots'], 2, "--gpu-budget 'lots' is no size"],
    [['--model', model, '--host-budget', '9000000T'], 2, "--host-budget '9000000T' is above"],
    [['--model', model, '--fix', 'kv=50/40/0'], 2, "--fix 'kv=50/40/0' is not KIND=DEVICE/HOST"],
    [['--model', model, '--batch', '0'], 2, '--batch 0 is no whole number above 0'],
    [['--model', model, '--rates', 'none.json'], 1, 'not-found: none.json cannot be read'],
    [['--model', model, '--rates', join(model, 'eval.txt')], 1, "is no report of 'vramkit doctor"],
  ])('says what is wrong with %j and exits with %i', (args, code, message) => {
    const { stderr, status } = vramkit(...args);
    expect(stderr).toContain(message);
    expect(status).toBe(code);
  });
});
