/**
 * What is said between this workspace and the processes that multiply matrices with another
 * runtime: `onnxruntime.ts`, `tensorflow.ts` and `ggml.ts`.
 *
 * One JSON line per request and per answer, in order, as in `protocol.ts`; durations are measured
 * inside the process. Bytes travel in base64, little-endian.
 */

/** How the weights of a product are stored: f32, or 4-bit codes in groups of 32. */
export type ProductFormat = 'f32' | '4-bit';

/** A chain of equal products: the result of one is the input of the next. */
export interface ProductOpen {
  /** Where to compute. */
  readonly backend: 'cpu' | 'gpu';
  readonly format: ProductFormat;
  /** Rows of the activations. */
  readonly rows: number;
  /** Rows and columns of the weights. */
  readonly size: number;
  /** Products in a chain; all read the same weights. */
  readonly layers: number;
}

/** Operands of ONNX Runtime's MatMulNBits; see `toMatMulNBits` of `@vramkit/packer`. */
export interface MatMulNBitsRequest {
  readonly backend: 'cpu' | 'gpu';
  readonly rows: number;
  readonly columns: number;
  readonly bits: number;
  readonly groupSize: number;
  /** B, u8. */
  readonly codes: string;
  /** Scales, f32. */
  readonly scales: string;
  /** Zero points, u8; absent where they are the default. */
  readonly zeroPoints?: string | undefined;
  /** Activations, f32 [xRows, columns]. */
  readonly x: string;
  readonly xRows: number;
}

/** Weights to store in one of ggml's types, by files of raw f32, so that large ones travel well. */
export interface QuantizeRequest {
  /** ggml's name, such as `q4_K`. */
  readonly type: string;
  readonly rows: number;
  readonly columns: number;
  /** Path of the weights, f32 [rows, columns]. */
  readonly input: string;
  /** Path to write what is stored to, as f32. */
  readonly output: string;
  /** Path to write the stored blocks themselves to. Default: nowhere. */
  readonly blocks?: string;
}

/** Every request by name, with what it carries and what it gives back. */
export interface ProductCalls {
  /** Prepares a chain and runs it once. */
  readonly open: {
    readonly request: ProductOpen;
    readonly answer: { readonly version: string };
  };
  /** Times `count` chains, one after the other, from the first input to the last result. */
  readonly run: {
    readonly request: { readonly count: number };
    readonly answer: { readonly seconds: number };
  };
  /** Multiplies with MatMulNBits; ONNX Runtime alone. The answer is f32 [xRows, rows]. */
  readonly matMulNBits: {
    readonly request: MatMulNBitsRequest;
    readonly answer: { readonly y: string };
  };
  /** Quantizes and dequantizes; ggml alone. */
  readonly quantize: {
    readonly request: QuantizeRequest;
    readonly answer: { readonly sizeBytes: number };
  };
}

/** Name of a request. */
export type ProductCall = keyof ProductCalls;

/** One line to a process. */
export type ProductRequest = {
  [Name in ProductCall]: { readonly call: Name; readonly request: ProductCalls[Name]['request'] };
}[ProductCall];

/** One line from a process. */
export type ProductReply = { readonly answer: unknown } | { readonly error: string };

/** Activations of a chain: small numbers of both signs. */
export function chainActivations(rows: number, size: number): Float32Array {
  return Float32Array.from({ length: rows * size }, (_, i) => (((i * 7919) % 101) - 50) / 50);
}

/** Weights of a chain, scaled so that activations neither grow nor vanish along it. */
export function chainWeights(size: number): Float32Array {
  const scale = 1.7 / Math.sqrt(size) / 50;
  return Float32Array.from({ length: size * size }, (_, i) => {
    return (((Math.imul(i, 2654435761) >>> 8) % 101) - 50) * scale;
  });
}

/** Base64 as bytes at an aligned address. */
export function decodeBytes(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text, 'base64'));
}

/** The bytes of an array as base64. */
export function encodeBytes({ buffer, byteOffset, byteLength }: Uint8Array | Float32Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString('base64');
}
