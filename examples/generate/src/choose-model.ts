/**
 * Which model this machine can run in the time a newcomer waits.
 *
 * The adapter is measured for about two seconds on the product that dominates: 4-bit weights at the
 * sizes of SmolLM2, many rows (prefill) and one row (decode). The demo's arithmetic follows from
 * the number of tokens, so its time is a division.
 */
import { Batch, createTensor, Uploader, type VramDevice } from '@vramkit/core';
import { createMatrix, matmul } from '@vramkit/packer';

/** Measured products, GFLOP/s. */
export interface AdapterSpeed {
  /** 128 rows at once. */
  readonly prefillGflops: number;
  /** One row. */
  readonly decodeGflops: number;
}

/** Tokens that the demo will run through the model. */
export interface DemoWork {
  readonly prefillTokens: number;
  readonly decodeTokens: number;
  /** Tokens scored for perplexity, in steps of a block. */
  readonly scoredTokens: number;
}

const ROWS = 1536;
const COLUMNS = 576;
const GROUP = 32;
const LAYERS = 16;
const MEASURE_MS = 700;

/** Parameters of SmolLM2-135M that every token multiplies, and those of its output head. */
const BODY_PARAMETERS = 106.2e6;
const HEAD_PARAMETERS = 28.3e6;
/** Share of a step that is not products of weights: attention, norms, dispatches. */
const OVERHEAD = 1.35;

/** Seconds that SmolLM2 may take. */
export const PATIENCE_SECONDS = 300;

/** Times the products; about two seconds, compilation included. */
export async function measureAdapter(device: VramDevice): Promise<AdapterSpeed> {
  using weights = createMatrix(device, {
    rows: ROWS,
    columns: COLUMNS,
    format: 'affine4',
    groupSize: GROUP,
    label: 'speed probe',
  });
  using uploader = new Uploader(device, { method: 'write-buffer' });
  await weights.upload(uploader, 0, {
    codes: new Uint32Array((ROWS * COLUMNS) / 8).fill(0x76543210),
    scales: new Uint32Array((ROWS * COLUMNS) / GROUP).fill(0x3c00),
  });
  const activations = { dtype: 'f32', kind: 'activations' } as const;
  using x = createTensor(device, { ...activations, shape: [128, COLUMNS], label: 'probe x' });
  using y = createTensor(device, { ...activations, shape: [128, ROWS], label: 'probe y' });
  const gflops = async (xRows: number): Promise<number> => {
    const run = async (): Promise<void> => {
      const batch = new Batch(device, 'speed probe');
      for (let layer = 0; layer < (xRows === 1 ? LAYERS : 1); layer++) {
        matmul(batch, { x, xRows, weights, y });
      }
      batch.submit();
      await device.settle();
    };
    await run();
    const start = performance.now();
    let runs = 0;
    while (runs === 0 || performance.now() - start < MEASURE_MS) {
      await run();
      runs += 1;
    }
    const products = runs * (xRows === 1 ? LAYERS : 1) * xRows;
    return (2 * products * ROWS * COLUMNS) / (performance.now() - start) / 1e6;
  };
  return { prefillGflops: await gflops(128), decodeGflops: await gflops(1) };
}

/** Seconds that SmolLM2 would take for `work`. */
export function predictSeconds(speed: AdapterSpeed, work: DemoWork): number {
  const all = BODY_PARAMETERS + HEAD_PARAMETERS;
  const prefill = (2 * BODY_PARAMETERS * work.prefillTokens) / (speed.prefillGflops * 1e9);
  const decode = (2 * all * work.decodeTokens) / (speed.decodeGflops * 1e9);
  const scored = (2 * all * work.scoredTokens) / (speed.prefillGflops * 1e9);
  return OVERHEAD * (prefill + decode + scored);
}

/** The choice, in a sentence a person can check. */
export function explainChoice(
  speed: AdapterSpeed,
  seconds: number,
): { readonly model: 'smollm2' | 'tiny-moe'; readonly why: string } {
  const measured =
    `${speed.prefillGflops.toFixed(1)} GFLOP/s at 128 rows and ` +
    `${speed.decodeGflops.toFixed(1)} at one, so about ${Math.ceil(seconds)} s`;
  return seconds <= PATIENCE_SECONDS
    ? { model: 'smollm2', why: `measured ${measured}; --model tiny-moe is quicker` }
    : {
        model: 'tiny-moe',
        why: `SmolLM2 would take long: measured ${measured}; --model smollm2 forces it`,
      };
}
