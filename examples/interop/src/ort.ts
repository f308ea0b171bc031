/** The part of ONNX Runtime Web that this example uses; its types come with the package only. */
import type { Tensor } from '@vramkit/core';

/** A tensor of ONNX Runtime. */
export interface OrtTensor {
  readonly location: string;
  readonly data: Float32Array;
  readonly gpuBuffer: GPUBuffer;
  readonly dims: readonly number[];
  dispose(): void;
}

/** Inputs or outputs by name. */
export type OrtValues = Record<string, OrtTensor>;

/** A loaded model. */
export interface OrtSession {
  run(feeds: OrtValues, fetches?: OrtValues): Promise<OrtValues>;
  release(): Promise<void>;
}

/** The module `onnxruntime-web/webgpu`. */
export interface Ort {
  readonly env: {
    readonly wasm: {
      numThreads: number;
      wasmPaths?: string | { readonly mjs?: string; readonly wasm?: string };
      wasmBinary?: Uint8Array;
    };
  };
  readonly InferenceSession: {
    create(
      model: Uint8Array,
      options: {
        readonly executionProviders: readonly {
          readonly name: string;
          readonly device: GPUDevice;
        }[];
        readonly preferredOutputLocation?: Readonly<Record<string, 'cpu' | 'gpu-buffer'>>;
      },
    ): Promise<OrtSession>;
  };
  readonly Tensor: {
    new (type: 'float32', data: Float32Array, dims: readonly number[]): OrtTensor;
    new (type: 'int32', data: Int32Array, dims: readonly number[]): OrtTensor;
    fromGpuBuffer(
      buffer: GPUBuffer,
      options: { readonly dataType: 'float32' | 'int32'; readonly dims: readonly number[] },
    ): OrtTensor;
  };
}

/**
 * A tensor of ONNX Runtime over the memory of `tensor`; nothing is copied, and `tensor` must
 * outlive it. Its buffer must begin with it.
 */
export function lendToOrt(ort: Ort, tensor: Tensor): OrtTensor {
  const dataType = tensor.dtype === 'i32' ? 'int32' : 'float32';
  return ort.Tensor.fromGpuBuffer(tensor.buffer, { dataType, dims: tensor.shape });
}
