/**
 * MoPEQ: sensitivity of an expert without data, as the authors release it, in closed form.
 *
 * They estimate the trace of the Hessian of L = ||W||_F by random probes of unit length, and add
 * gate, up and down. That Hessian is (I - w w^T / ||w||^2) / ||w||, so a probe's expectation is (1
 * - 1/N) / ||W||_F, N the number of weights. {@link mopeq} is the limit 1 / ||W||_F, in f64, exact
 * and without dice: experts of small norm get more bits. {@link mopeqProbe} takes the probes, for
 * parity.
 *
 * What it gets wrong: it knows nothing of activations, routing or the quantizer's error.
 *
 * Source: Chitty-Venkata, Ye and Emani, MoPEQ (2025), and its released code. A zero matrix, whose
 * norm has no Hessian, scores 0: it loses nothing at any width.
 */
import { checkInteger } from '@vramkit/core';
import type { Scorer } from './scorer.js';
import { seededRandom } from './seeded-random.js';

/** Frobenius norm, accumulated in f64. */
export function frobeniusNorm(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += (values[i] ?? 0) ** 2;
  return Math.sqrt(sum);
}

/** The closed form. One pass over the weights. */
export function mopeq(): Scorer {
  return {
    name: 'mopeq',
    score: ({ tensors }) =>
      tensors.reduce((sum, { values }) => {
        const norm = frobeniusNorm(values);
        return sum + (norm === 0 ? 0 : 1 / norm);
      }, 0),
  };
}

/** Options of {@link mopeqProbe}. */
export interface MopeqProbeOptions {
  /** Probes of each matrix. Default: 100. */
  readonly probes?: number;
  /** Default: 0. */
  readonly seed?: number;
}

/** Standard normal numbers by Box and Muller's transform. */
function normals(seed: number): () => number {
  const next = seededRandom(seed);
  let spare: number | undefined;
  return () => {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - next()));
    const angle = 2 * Math.PI * next();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

/** The authors' estimate: the mean of v^T H v over Gaussian probes scaled to unit length. */
export function mopeqProbe(options: MopeqProbeOptions = {}): Scorer {
  const probes = checkInteger('probes', options.probes ?? 100, 1, 1_000_000);
  return {
    name: 'mopeqProbe',
    score: ({ tensors }) =>
      tensors.reduce((sum, { values }, index) => {
        const norm = frobeniusNorm(values);
        if (norm === 0) return sum;
        const next = normals((options.seed ?? 0) * 1000 + index);
        let total = 0;
        for (let probe = 0; probe < probes; probe++) {
          let length = 0;
          let along = 0;
          for (let i = 0; i < values.length; i++) {
            const v = next();
            length += v * v;
            along += v * (values[i] ?? 0);
          }
          total += (1 - along ** 2 / (length * norm ** 2)) / norm;
        }
        return sum + total / probes;
      }, 0),
  };
}
