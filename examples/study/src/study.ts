/** Opens each model and runs the stages over the documents, the stages that decide most first. */
import { join } from 'node:path';
import type { VramDevice } from '@vramkit/core';
import { loadModel, loadTokenizer, openModelFile } from '@vramkit/example-runtime';
import { resolveModel } from '@vramkit/models';
import type { StudyDocument } from './documents.js';
import { planStages } from './grid.js';
import type { StudyOptions } from './options.js';
import { ResultStore } from './results.js';
import { runStage, type StudySetup } from './run.js';

/** How many of the documents a part reads: speed is the device's and the policy's. */
const DOCUMENTS = {
  continuation: (count: number) => count,
  scores: (count: number) => count,
  retrieval: (count: number) => Math.ceil(count / 2),
  decode: () => 1,
} as const;

/** The store of a model's results at the sizes of a study. */
export function storeOf(options: StudyOptions, model: string): ResultStore {
  const { contextTokens, continuationTokens, folder } = options;
  const name = `${model.replaceAll(/[^\w-]/g, '_')}-${contextTokens}-${continuationTokens}`;
  return new ResultStore(join(folder, 'cells', name));
}

/** Runs what is missing for one model. */
export async function studyModel(
  device: VramDevice,
  modelName: string,
  documents: readonly StudyDocument[],
  options: StudyOptions & Pick<StudySetup, 'driver' | 'log' | 'signal'>,
): Promise<void> {
  const file = await openModelFile((await resolveModel(modelName)).path);
  try {
    const tokenizer = await loadTokenizer(file);
    using model = await loadModel(device, file);
    const store = storeOf(options, modelName);
    const setup = { ...options, device, modelName, model, tokenizer, store };
    for (const stage of planStages(options)) {
      if (!options.parts.includes(stage.part)) continue;
      const read = documents.slice(0, DOCUMENTS[stage.part](documents.length));
      for (const document of read) await runStage(setup, stage, document);
    }
  } finally {
    await file.close();
  }
}
