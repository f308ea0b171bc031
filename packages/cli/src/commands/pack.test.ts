/** The real binary packs tiny-moe: sizes known before, widths to a target, interruption, checks. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { formatTime } from './pack-inputs.js';

const binary = fileURLToPath(new URL('../../bin/vramkit.js', import.meta.url));
const model = fileURLToPath(new URL('../../../../tools/models/tiny-moe', import.meta.url));

let folder: string;
let out: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vramkit-pack-'));
  out = join(folder, 'model.safetensors');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function vramkit(...args: string[]) {
  return spawnSync(process.execPath, [binary, ...args], { cwd: folder, encoding: 'utf8' });
}

/** Leaves only the query matrices to be packed. */
const keep = '*norm*,*embed*,*lm_head*,*block_sparse*,*k_proj*,*v_proj*,*o_proj*';
const how = ['--model', model, '--quantizer', 'rtn', '--group', '32'];

interface Listed {
  readonly name: string;
  readonly format: string;
  readonly bitsPerWeight: number;
}

function inspect(path: string): Listed[] {
  const { stdout, stderr, status } = vramkit('inspect', '--model', path, '--json');
  expect(stderr).toBe('');
  expect(status).toBe(0);
  return (JSON.parse(stdout) as { tensors: Listed[] }).tensors;
}

describe('vramkit pack', { timeout: 120_000 }, () => {
  it('checklist 24: a dry run states the size that the file then has', () => {
    const args = [...how, '--out', out, '--bits', '4'];
    const dry = vramkit('pack', ...args, '--dry-run');
    expect(dry.status, dry.stderr).toBe(0);
    expect(() => statSync(out)).toThrow();
    const real = vramkit('pack', ...args);
    expect(real.status, real.stderr).toBe(0);
    expect(real.stdout).toBe(dry.stdout);
    expect(real.stdout).toContain(`${statSync(out).size} B, 5.000 bits a packed weight`);
    const verified = vramkit('inspect', '--model', out, '--verify');
    expect(verified.stdout).toMatch(/tensors of a packed file, \d+ B, every checksum right/);
  });

  it('compact factors: groups of 32 in the bits of 64, named by inspect', () => {
    const path = join(folder, 'compact.safetensors');
    const args = ['--model', model, '--quantizer', 'rtn', '--factors', 'compact', '--out', path];
    const { status, stdout, stderr } = vramkit('pack', ...args);
    expect(status, stderr).toBe(0);
    expect(stdout).toContain(', 4.500 bits a packed weight');
    const packed = inspect(path).filter(({ format }) => format.startsWith('affine'));
    expect(new Set(packed.map(({ format }) => format))).toEqual(new Set(['affine4/32 compact']));
    expect(vramkit('inspect', '--model', path, '--verify').status).toBe(0);
    const unknown = vramkit('pack', ...args, '--factors', 'f8');
    expect(unknown.stderr).toContain("factors 'f8': f16 or compact");
  });

  it('checklist 13: rules by name, glob and expression; a rule without a match is said', () => {
    const rules = '/experts\\.0\\.w[13]/=2,*experts.1.*=3,nothing.*=8';
    const path = join(folder, 'rules.safetensors');
    const { status, stderr } = vramkit('pack', ...how, '--out', path, '--rules', rules);
    expect(status).toBe(0);
    const [rule, ...progress] = stderr.trimEnd().split('\n');
    expect(rule).toBe("vramkit: the rule 'nothing.*' matches no tensor");
    expect(progress).toHaveLength(10);
    expect(progress.at(-1)).toMatch(/^100 % .* left {2}model\./);
    const formats = new Map(inspect(path).map(({ name, format }) => [name, format]));
    const expert = 'model.layers.2.block_sparse_moe.experts.';
    expect(formats.get(`${expert}0.w1.weight`)).toBe('affine2/32');
    expect(formats.get(`${expert}0.w2.weight`)).toBe('affine4/32');
    expect(formats.get(`${expert}1.w2.weight`)).toBe('affine3/32');
    expect(formats.get('model.layers.2.block_sparse_moe.gate.weight')).toBe('BF16');
  });

  it('checklist 11: widths to a target in bits, never over it', () => {
    const path = join(folder, 'target.safetensors');
    const args = [...how, '--group', '64', '--out', path, '--dry-run'];
    const { status, stdout, stderr } = vramkit('pack', ...args, '--target-bits', '3');
    expect(status, stderr).toBe(0);
    const bits = Number(/([\d.]+) bits a packed weight/.exec(stdout)?.[1]);
    expect(bits).toBeGreaterThan(2.95);
    expect(bits).toBeLessThanOrEqual(3);
  });

  it('checklist 15: measures once for several targets, and what changed only', () => {
    const scores = join(folder, 'scores.json');
    const path = join(folder, 'kept.safetensors');
    const run = (bits: string, ...more: string[]) => {
      const args = [...how, '--keep', keep, '--out', path, '--dry-run', '--target-bits', bits];
      const { status, stdout, stderr } = vramkit('pack', ...args, ...more);
      expect(status, stderr).toBe(0);
      return stdout;
    };
    const expected = run('4.5');
    expect(run('4.5', '--scores', scores)).toBe(expected);
    const kept = JSON.parse(readFileSync(scores, 'utf8')) as Record<string, number>;
    const count = Object.keys(kept).length;
    expect(run('6', '--scores', scores)).toBe(run('6'));
    expect(run('4.5', '--scores', scores)).toBe(expected);
    expect(readFileSync(scores, 'utf8')).toBe(JSON.stringify(kept));
    // Errors of zero everywhere would make the narrowest widths free: so it is they that are read.
    const free = Object.fromEntries(Object.keys(kept).map((key) => [key, 0]));
    writeFileSync(scores, JSON.stringify(free));
    expect(run('6', '--scores', scores)).not.toBe(run('6'));
    // Another quantizer is another set of errors.
    run('6', '--scores', scores, '--quantizer', 'rtn-symmetric');
    const both = JSON.parse(readFileSync(scores, 'utf8')) as Record<string, number>;
    expect(Object.keys(both)).toHaveLength(2 * count);
    writeFileSync(scores, '{"x": 1}');
    const bad = vramkit('pack', ...how, '--out', path, '--target-bits', '4', '--scores', scores);
    expect(bad.status).toBe(1);
    expect(bad.stderr).toMatch(/holds 'x', which is no kept score/);
  });

  it('checklist 17: weighs columns by an importance matrix of llama.cpp', () => {
    const imatrix = join(folder, 'imatrix.dat');
    const name = 'model.layers.0.self_attn.q_proj.weight';
    const values = Float32Array.from({ length: 128 }, (_, i) => (i < 16 ? 1000 : 1));
    const words = (...numbers: number[]) => Buffer.from(Uint32Array.from(numbers).buffer);
    const entry = [
      words(name.length),
      Buffer.from(name),
      words(1, 128),
      Buffer.from(values.buffer),
    ];
    writeFileSync(imatrix, Buffer.concat([words(1), ...entry]));
    const args = ['--model', model, '--keep', keep, '--group', '32', '--bits', '2'];
    const pack = (file: string, ...more: string[]) => {
      const out = join(folder, file);
      const { status, stderr } = vramkit('pack', ...args, '--out', out, ...more);
      expect(status, stderr).toBe(0);
      return { bytes: readFileSync(out), stderr };
    };
    const plain = pack('plain.safetensors');
    const weighted = pack('weighted.safetensors', '--imatrix', imatrix);
    expect(weighted.bytes.length).toBe(plain.bytes.length);
    expect(weighted.bytes.equals(plain.bytes)).toBe(false);
    expect(weighted.stderr).toMatch(
      /^vramkit: 3 of 4 matrices have no importance: '.*' and others\n/,
    );
    const useless = vramkit('pack', ...how, '--out', out, '--imatrix', imatrix);
    expect(useless.stderr).toMatch(/--imatrix changes nothing for rtn/);
    writeFileSync(imatrix, Buffer.concat([words(1), ...entry.slice(0, 3)]));
    const cut = vramkit('pack', ...args, '--out', out, '--imatrix', imatrix);
    expect(cut.status).toBe(1);
    expect(cut.stderr).toMatch(/corrupt-data/);
  });

  it('checklist 22: gives the same file by any number of threads, widths measured too', () => {
    const pack = (workers: string) => {
      const path = join(folder, `threads-${workers}.safetensors`);
      const args = ['--model', model, '--keep', keep, '--group', '32', '--target-bits', '4.5'];
      const { status, stderr } = vramkit('pack', ...args, '--out', path, `--workers=${workers}`);
      expect(status, stderr).toBe(0);
      return readFileSync(path);
    };
    const expected = pack('1');
    expect(pack('2').equals(expected)).toBe(true);
    expect(pack('3').equals(expected)).toBe(true);
  });

  it('checklist 24: says how long is left in a few characters', () => {
    expect([0, 400, 89_000, 90_000, 3_600_000, 9_000_000].map(formatTime)).toEqual([
      '0 s',
      '1 s',
      '89 s',
      '2 min',
      '60 min',
      '2.5 h',
    ]);
  });

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s ends it with %i and the way to go on', async (signal, code) => {
    const path = join(folder, 'signal.safetensors');
    const stopped = spawn(process.execPath, [binary, 'pack', ...how, '--out', path], {
      cwd: folder,
    });
    let err = '';
    stopped.stderr.on('data', (chunk) => (err += String(chunk)));
    const closed = new Promise((done) => stopped.on('close', done));
    await vi.waitFor(() => expect(statSync(`${path}.part.journal`).size).toBeGreaterThan(65), {
      timeout: 60_000,
      interval: 2,
    });
    stopped.kill(signal);
    expect(await closed).toBe(code);
    expect(err).toContain('vramkit: stopped; the same command with --resume goes on\n');
    // Other options are another plan.
    const other = vramkit('pack', ...how, '--out', path, '--bits', '8', '--resume');
    expect(other.status, other.stderr).toBe(0);
    expect(other.stderr).toContain('had another model or other options: this one starts over');
    const again = vramkit('pack', ...how, '--out', path, '--bits', '8', '--resume');
    expect(again.stderr).toContain(`no run of ${path} was stopped`);
  });

  it('checklist 24: goes on where a run was stopped, and ends with the same bytes', async () => {
    const path = join(folder, 'again.safetensors');
    expect(vramkit('pack', ...how, '--out', path).status).toBe(0);
    const whole = readFileSync(path);
    rmSync(path);
    const journal = `${path}.part.journal`;
    const stopped = spawn(process.execPath, [binary, 'pack', ...how, '--out', path], {
      cwd: folder,
    });
    const exit = new Promise((done) => stopped.on('exit', done));
    await vi.waitFor(
      () => expect(readFileSync(journal, 'utf8').split('\n').length).toBeGreaterThan(8),
      { timeout: 60_000, interval: 5 },
    );
    stopped.kill('SIGKILL');
    await exit;
    expect(() => statSync(path)).toThrow();
    const written = readFileSync(journal, 'utf8').split('\n').length;
    const resumed = vramkit('pack', ...how, '--out', path, '--resume');
    expect(resumed.status, resumed.stderr).toBe(0);
    expect(written).toBeGreaterThan(8);
    expect(readFileSync(path).equals(whole)).toBe(true);
    expect(() => statSync(`${path}.part`)).toThrow();
    expect(() => statSync(journal)).toThrow();
  });

  it.each([
    [['--bits', '5'], /5 bits: widths are 2, 3, 4 and 8/],
    [['--quantizer', 'magic'], /no quantizer 'magic'/],
    [['--group', '7'], /groups of 7/],
    [['--rules', 'x'], /is not PATTERN=BITS/],
    [['--target-bits', 'many'], /is no number of bits/],
    [['--workers=-1'], /--workers -1 is no number of threads/],
  ])('refuses %j', (wrong, message) => {
    const { status, stderr } = vramkit('pack', ...how, '--out', out, ...wrong);
    expect(status).toBe(2);
    expect(stderr).toMatch(message);
  });

  it('says which file is not there', () => {
    const { status, stderr } = vramkit('inspect', '--model', join(folder, 'nothing'));
    expect(status).toBe(1);
    expect(stderr).toContain('not-found');
  });
});
