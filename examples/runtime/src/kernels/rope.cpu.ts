/** Definition of the rotary embedding kernel, and the host's side of it: angles in f64. */
import type { RopeScaling, RopeStyle } from '../model-file.js';

/**
 * Inverse frequencies [headDim / 2] in radians per position.
 *
 * Scaling 'linear' divides all by the factor. 'llama3' leaves wavelengths shorter than
 * originalContext / highFreqFactor, divides those longer than originalContext / lowFreqFactor, and
 * blends between. 'factors' divides each by its own number (GGUF's rope_freqs tensor).
 */
export function inverseFrequencies(
  headDim: number,
  theta: number,
  scaling: RopeScaling,
): Float64Array {
  return Float64Array.from({ length: headDim / 2 }, (_, i) => {
    const frequency = theta ** ((-2 * i) / headDim);
    if (scaling.type === 'linear') return frequency / scaling.factor;
    if (scaling.type === 'factors') return frequency / (scaling.factors[i] ?? 1);
    if (scaling.type !== 'llama3') return frequency;
    const wavelength = (2 * Math.PI) / frequency;
    const { factor, lowFreqFactor, highFreqFactor, originalContext } = scaling;
    if (wavelength < originalContext / highFreqFactor) return frequency;
    if (wavelength > originalContext / lowFreqFactor) return frequency / factor;
    const blend = (originalContext / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
    return ((1 - blend) * frequency) / factor + blend * frequency;
  });
}

/** Writes (cos, sin) of `positions` into `out` [positions, headDim / 2, 2]. */
export function writeRotations(
  positions: ArrayLike<number>,
  frequencies: Float64Array,
  out: Float32Array,
): void {
  for (let token = 0; token < positions.length; token++) {
    for (let i = 0; i < frequencies.length; i++) {
      const angle = (positions[token] ?? 0) * (frequencies[i] ?? 0);
      const at = 2 * (token * frequencies.length + i);
      out[at] = Math.cos(angle);
      out[at + 1] = Math.sin(angle);
    }
  }
}

/** Rotates the first `heads` heads of each row in place. */
export function rope(
  rows: Float32Array,
  rotations: Float32Array,
  shape: {
    readonly tokens: number;
    readonly heads: number;
    readonly headDim: number;
    readonly rowStride: number;
  },
  style: RopeStyle,
): void {
  const half = shape.headDim / 2;
  for (let token = 0; token < shape.tokens; token++) {
    for (let head = 0; head < shape.heads; head++) {
      for (let pair = 0; pair < half; pair++) {
        const base = token * shape.rowStride + head * shape.headDim;
        const first = base + (style === 'half' ? pair : 2 * pair);
        const second = style === 'half' ? first + half : first + 1;
        const cos = rotations[2 * (token * half + pair)] ?? 0;
        const sin = rotations[2 * (token * half + pair) + 1] ?? 0;
        const a = rows[first] ?? 0;
        const b = rows[second] ?? 0;
        rows[first] = a * cos - b * sin;
        rows[second] = a * sin + b * cos;
      }
    }
  }
}
