/**
 * Quality of a packed model: mean loss over windows of text that no calibration saw.
 */
import type { VramDevice } from '@vramkit/core';
import { full } from '@vramkit/eviction';
import { createSession, loadModel, openModelFile, score } from '@vramkit/example-runtime';

/** Mean negative log likelihood of the windows' tokens, in nats; its exponential is perplexity. */
export async function meanLoss(
  device: VramDevice,
  path: string,
  windows: readonly Uint32Array[],
): Promise<number> {
  const file = await openModelFile(path);
  const model = await loadModel(device, file).finally(() => file.close());
  try {
    const most = windows.reduce((length, window) => Math.max(length, window.length), 1);
    const options = { kvTokens: 2 * most, chunkTokens: most };
    const session = createSession(device, model, options);
    let sum = 0;
    let count = 0;
    try {
      for (const window of windows) {
        const sequence = session.create(full({ blockSize: 16 }));
        for (const loss of await score(session, sequence, window)) sum += loss;
        count += window.length - 1;
        session.free(sequence);
      }
    } finally {
      session.dispose();
    }
    return sum / count;
  } finally {
    model.dispose();
  }
}
