/**
 * A decoder-only transformer over bytes, as a loss that can be differentiated: RMS norms, rotary
 * positions, grouped queries, SwiGLU, tied embeddings; or, with more than one expert, Mixtral's
 * routed SwiGLU. The second of {@link MODEL_SHAPES} has the shape of the tiny-moe model.
 *
 * Every expert is computed for every byte and weighted by its gate, which is zero for those that
 * the router did not choose: slower than dispatching bytes to experts, with the same gradients.
 */
import type { Tf, TfTensor } from './tfjs.js';

/** Sizes of a model. */
export interface ModelShape {
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly intermediate: number;
  /** 1: no router. */
  readonly experts: number;
  readonly expertsPerToken: number;
}

/** Shapes by name. */
export const MODEL_SHAPES = {
  small: {
    ...{ layers: 2, hidden: 64, heads: 4, kvHeads: 2, headDim: 16, intermediate: 192 },
    ...{ experts: 1, expertsPerToken: 1 },
  },
  'tiny-moe': {
    ...{ layers: 4, hidden: 128, heads: 4, kvHeads: 2, headDim: 32, intermediate: 256 },
    ...{ experts: 8, expertsPerToken: 2 },
  },
} as const satisfies Readonly<Record<string, ModelShape>>;

/** Values of a byte. */
const VOCABULARY = 256;
const EPSILON = 1e-5;
const THETA = 10_000;

/** A named array of parameters. */
export interface ParameterSpec {
  readonly name: string;
  readonly shape: readonly number[];
}

/** All parameters of a model, in the order in which they lie in the optimizer's state. */
export function parameterSpecs(model: ModelShape): ParameterSpec[] {
  const { layers, hidden, heads, kvHeads, headDim, intermediate, experts } = model;
  const specs: ParameterSpec[] = [{ name: 'embedding', shape: [VOCABULARY, hidden] }];
  for (let layer = 0; layer < layers; layer++) {
    const add = (name: string, ...shape: number[]): void =>
      void specs.push({ name: `${layer}.${name}`, shape });
    add('attentionNorm', hidden);
    add('q', hidden, heads * headDim);
    add('k', hidden, kvHeads * headDim);
    add('v', hidden, kvHeads * headDim);
    add('o', heads * headDim, hidden);
    add('mlpNorm', hidden);
    if (experts > 1) add('router', hidden, experts);
    for (let expert = 0; expert < experts; expert++) {
      add(`${expert}.gate`, hidden, intermediate);
      add(`${expert}.up`, hidden, intermediate);
      add(`${expert}.down`, intermediate, hidden);
    }
  }
  specs.push({ name: 'finalNorm', shape: [hidden] });
  return specs;
}

/** Bytes to learn from: `[rows, length + 1]`, of which each predicts the next. */
export interface ByteBatch {
  readonly rows: number;
  readonly length: number;
  readonly bytes: Int32Array;
}

type Parameters = (name: string) => TfTensor;

/** Tensors that depend on the shape alone, for rows of `length` bytes. */
class Constants {
  readonly cos: TfTensor;
  readonly sin: TfTensor;
  readonly rotate: TfTensor;
  readonly mask: TfTensor;

  constructor(tf: Tf, { headDim, heads, kvHeads }: ModelShape, length: number) {
    const half = headDim / 2;
    const angle = (at: number): number => {
      const [position, dim] = [Math.floor(at / headDim), (at % headDim) % half];
      return position / THETA ** ((2 * dim) / headDim);
    };
    const angles = Array.from({ length: length * headDim }, (_, at) => angle(at));
    this.cos = tf.tensor(angles.map(Math.cos), [length, headDim]);
    this.sin = tf.tensor(angles.map(Math.sin), [length, headDim]);
    const rotate = new Float32Array(headDim * headDim);
    for (let dim = 0; dim < half; dim++) {
      rotate[(dim + half) * headDim + dim] = -1;
      rotate[dim * headDim + dim + half] = 1;
    }
    this.rotate = tf.tensor(rotate, [headDim, headDim]);
    const queries = (heads / kvHeads) * length;
    const mask = Float32Array.from({ length: queries * length }, (_, at) =>
      at % length > Math.floor(at / length) % length ? -1e9 : 0,
    );
    this.mask = tf.tensor(mask, [queries, length]);
  }
}

/** The loss of a model on batches of one length; the caller disposes it. */
export class ByteModel {
  readonly #tf: Tf;
  readonly #shape: ModelShape;
  readonly #constants: Constants;

  constructor(tf: Tf, shape: ModelShape, length: number) {
    this.#tf = tf;
    this.#shape = shape;
    this.#constants = new Constants(tf, shape, length);
  }

  /**
   * Mean negative log-likelihood of the next byte, nats, times `scale`; a scalar.
   * @param parameters Tensors by the names of {@link parameterSpecs}.
   */
  loss(parameters: Parameters, batch: ByteBatch, scale = 1): TfTensor {
    const tf = this.#tf;
    const { hidden, layers } = this.#shape;
    const { rows, length, bytes } = batch;
    const count = rows * length;
    const embedding = parameters('embedding');
    const at = (index: number, shift: number): number =>
      bytes[Math.floor(index / length) * (length + 1) + (index % length) + shift] ?? 0;
    const oneHot = (shift: number): TfTensor => {
      const indices = Int32Array.from({ length: count }, (_, index) => at(index, shift));
      return tf.cast(tf.oneHot(tf.tensor(indices, [count], 'int32'), VOCABULARY), 'float32');
    };
    let x = tf.matMul(oneHot(0), embedding);
    for (let layer = 0; layer < layers; layer++) {
      const own: Parameters = (name) => parameters(`${layer}.${name}`);
      const attended = this.#attention(own, this.#norm(x, own('attentionNorm')), rows, length);
      x = tf.add(x, attended);
      x = tf.add(x, this.#mlp(own, this.#norm(x, own('mlpNorm'))));
    }
    x = this.#norm(tf.reshape(x, [count, hidden]), parameters('finalNorm'));
    const logProbabilities = tf.logSoftmax(tf.matMul(x, embedding, false, true));
    const hit = tf.sum(tf.mul(oneHot(1), logProbabilities));
    return tf.mul(hit, tf.scalar(-scale / count));
  }

  /** Gives its constants back. */
  dispose(): void {
    for (const tensor of Object.values(this.#constants) as TfTensor[]) tensor.dispose();
  }

  #norm(x: TfTensor, weight: TfTensor): TfTensor {
    const tf = this.#tf;
    const meanSquare = tf.mean(tf.square(x), -1, true);
    return tf.mul(tf.mul(x, tf.rsqrt(tf.add(meanSquare, tf.scalar(EPSILON)))), weight);
  }

  /** [rows x length, heads x headDim] to [rows, heads, length, headDim]. */
  #split(x: TfTensor, rows: number, length: number, heads: number): TfTensor {
    const tf = this.#tf;
    return tf.transpose(tf.reshape(x, [rows, length, heads, this.#shape.headDim]), [0, 2, 1, 3]);
  }

  #rotated(x: TfTensor): TfTensor {
    const tf = this.#tf;
    const { cos, sin, rotate } = this.#constants;
    const { headDim } = this.#shape;
    const turned = tf.reshape(tf.matMul(tf.reshape(x, [-1, headDim]), rotate), x.shape);
    return tf.add(tf.mul(x, cos), tf.mul(turned, sin));
  }

  #attention(parameters: Parameters, x: TfTensor, rows: number, length: number): TfTensor {
    const tf = this.#tf;
    const { heads, kvHeads, headDim } = this.#shape;
    const project = (name: string, count: number): TfTensor =>
      this.#split(tf.matMul(x, parameters(name)), rows, length, count);
    // The queries that share a head of K and V lie one behind the other.
    const queries = [rows, kvHeads, (heads / kvHeads) * length, headDim];
    const q = tf.reshape(this.#rotated(project('q', heads)), queries);
    const k = this.#rotated(project('k', kvHeads));
    const scores = tf.mul(tf.matMul(q, k, false, true), tf.scalar(headDim ** -0.5));
    const weights = tf.softmax(tf.add(scores, this.#constants.mask));
    const mixed = tf.reshape(tf.matMul(weights, project('v', kvHeads)), [
      ...[rows, heads, length, headDim],
    ]);
    const joined = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [rows * length, heads * headDim]);
    return tf.matMul(joined, parameters('o'));
  }

  #mlp(parameters: Parameters, x: TfTensor): TfTensor {
    const tf = this.#tf;
    const { experts, expertsPerToken } = this.#shape;
    const expert = (index: number): TfTensor => {
      const gate = tf.matMul(x, parameters(`${index}.gate`));
      const inner = tf.mul(tf.mul(gate, tf.sigmoid(gate)), tf.matMul(x, parameters(`${index}.up`)));
      return tf.matMul(inner, parameters(`${index}.down`));
    };
    if (experts === 1) return expert(0);
    const logits = tf.matMul(x, parameters('router'));
    // Zero where chosen; the choice itself has no gradient.
    const closed = tf.customGrad((scores) => {
      const least = tf.slice(
        tf.topk(scores, expertsPerToken).values,
        [0, expertsPerToken - 1],
        [-1, 1],
      );
      const chosen = tf.cast(tf.greaterEqual(scores, least), 'float32');
      const value = tf.mul(tf.sub(tf.scalar(1), chosen), tf.scalar(-1e9));
      return { value, gradFunc: (dy) => tf.zerosLike(dy) };
    });
    const gates = tf.softmax(tf.add(logits, closed(logits)));
    let sum: TfTensor | undefined;
    for (let index = 0; index < experts; index++) {
      const part = tf.mul(expert(index), tf.slice(gates, [0, index], [-1, 1]));
      sum = sum === undefined ? part : tf.add(sum, part);
    }
    return sum ?? x;
  }
}
