/**
 * A Mixtral model in a folder as units to pack: one unit for each expert, its gate, up and down.
 */
import {
  fileSource,
  readSafetensors,
  sourceTensors,
  sourceValues,
  type LoadedUnit,
  type SourceTensor,
} from '@vramkit/packer';
import { join } from 'node:path';

/** One expert of the file. */
export interface ExpertUnit {
  /** `layer.expert`. */
  readonly id: string;
  readonly layer: number;
  readonly expert: number;
  /** Gate, up and down. */
  readonly tensors: readonly SourceTensor[];
}

/** The tensors of a model, and which of them are experts. */
export interface MoeModel {
  readonly folder: string;
  readonly tensors: readonly SourceTensor[];
  readonly experts: readonly ExpertUnit[];
  /** Unit of each expert's tensor, by name. */
  readonly unitOf: ReadonlyMap<string, string>;
  close(): Promise<void>;
}

const EXPERT = /layers\.(\d+)\.block_sparse_moe\.experts\.(\d+)\.(w[123])\.weight$/;

/** Opens `model.safetensors` in `folder`; the caller closes it. */
export async function openMoeModel(folder: string): Promise<MoeModel> {
  const source = await fileSource(join(folder, 'model.safetensors'));
  const header = await readSafetensors(source);
  const tensors = sourceTensors(source, header.tensors.values());
  const units = new Map<string, { layer: number; expert: number; tensors: SourceTensor[] }>();
  const unitOf = new Map<string, string>();
  for (const tensor of tensors) {
    const [, layer, expert] = EXPERT.exec(tensor.name) ?? [];
    if (layer === undefined || expert === undefined) continue;
    const id = `${layer}.${expert}`;
    const unit = units.get(id) ?? { layer: Number(layer), expert: Number(expert), tensors: [] };
    unit.tensors.push(tensor);
    units.set(id, unit);
    unitOf.set(tensor.name, id);
  }
  const experts = [...units].map(([id, unit]) => ({ id, ...unit }));
  experts.sort((a, b) => a.layer - b.layer || a.expert - b.expert);
  return { folder, tensors, experts, unitOf, close: () => source.close() };
}

/** Reads the weights of one expert. */
export async function loadUnit(
  unit: ExpertUnit,
  momentsOf: (tensor: string) => Float64Array | undefined = () => undefined,
): Promise<LoadedUnit> {
  const tensors = [];
  for (const tensor of unit.tensors) {
    const [rows = 0, columns = 0] = tensor.shape;
    const values = await sourceValues(tensor);
    tensors.push({ name: tensor.name, rows, columns, values, moments: momentsOf(tensor.name) });
  }
  return { id: unit.id, layer: unit.layer, tensors };
}
