/** Command line of the server. */
import { parseFlags, parseWhole } from '@vramkit/adapter';
import { fail } from '@vramkit/core';
import {
  EXPERT_FLAGS,
  EXPERT_HELP,
  parseBytes,
  parseExpertCaching,
  type ExpertCaching,
} from '@vramkit/example-runtime';

/** What the server was asked to do. */
export interface ServeOptions {
  /** Path or name. */
  readonly model: string;
  readonly host: string;
  readonly port: number;
  readonly apiKey: string | undefined;
  /** Default: four contexts of the model, at most 32,768 and what the budget leaves. */
  readonly kvTokens: number | undefined;
  readonly maxSequences: number;
  readonly chunkTokens: number;
  readonly blockSize: number;
  readonly gpuBudgetBytes: number | undefined;
  /** Default: all experts are resident. */
  readonly experts: ExpertCaching | undefined;
  readonly prefixCaching: boolean;
  /** Address of a blob store. */
  readonly kvStore: string | undefined;
  readonly kvStoreBytes: number;
}

/** Text of `--help`. */
export const HELP = `An OpenAI-compatible server: many requests at once, prefixes computed once.

usage: npm run serve -- [options]

  --model PATH|NAME         a GGUF file, a folder with safetensors, 'smollm2' or 'tiny-moe'
                            (default: smollm2)
  --host ADDRESS            where to listen (default: 127.0.0.1; other machines only with a key)
  --port N                  0 takes a free one (default: 8080)
  --api-key KEY             what clients send as bearer token (default: VRAMKIT_API_KEY, else none)
  --kv-tokens N             tokens that the KV cache holds (default: 4 contexts, at most 32768
                            and what --gpu-budget leaves)
  --max-sequences N         requests in one step (default: 32)
  --chunk-tokens N          tokens in one step, prompts included (default: 128)
  --block-size N            tokens per block (default: 16)
  --gpu-budget BYTES        hard limit on device memory; 512M and 2G are understood. All layers
                            have to fit: unlike the demo, the server streams none from the host
${EXPERT_HELP}\
  --no-prefix-caching       computes every prompt in full
  --kv-store URL            keeps prefixes beyond eviction and restart: a folder, or an address such
                            as s3://bucket/prefix?endpoint=..., rados://pool or
                            webhdfs://user@host:9870/kv
  --kv-store-bytes N        most bytes there (default: 8589934592)

examples:
  npm run serve -- --model tiny-moe --port 8080
  curl http://127.0.0.1:8080/v1/completions -H 'content-type: application/json' \\
    -d '{"model": "tiny-moe", "prompt": "And the LORD said", "max_tokens": 32, "temperature": 0}'
`;

const FLAGS = {
  model: { type: 'string', default: 'smollm2' },
  host: { type: 'string', default: '127.0.0.1' },
  port: { type: 'string', default: '8080' },
  'api-key': { type: 'string' },
  'kv-tokens': { type: 'string' },
  'max-sequences': { type: 'string', default: '32' },
  'chunk-tokens': { type: 'string', default: '128' },
  'block-size': { type: 'string', default: '16' },
  'gpu-budget': { type: 'string' },
  ...EXPERT_FLAGS,
  'kv-store': { type: 'string' },
  'kv-store-bytes': { type: 'string', default: String(2 ** 33) },
  'no-prefix-caching': { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;

const LOOPBACK = /^(127(\.\d+){3}|::1|localhost)$/;

/**
 * The options, or 'help'.
 * @throws VramError `invalid-argument` naming the option.
 */
export function parseOptions(
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): ServeOptions | 'help' {
  const { values } = parseFlags({ args: [...args], options: FLAGS });
  if (values.help) return 'help';
  const apiKey = (values['api-key'] ?? environment.VRAMKIT_API_KEY) || undefined;
  if (apiKey === undefined && !LOOPBACK.test(values.host)) {
    fail('invalid-argument', `--host ${values.host} is open to others: give it an --api-key`);
  }
  const whole = (name: string, value: string, most: number): number =>
    parseWhole(`--${name}`, value, { least: 1, most });
  const blockSize = whole('block-size', values['block-size'], 1024);
  if (blockSize % 4 !== 0) {
    fail('invalid-argument', `--block-size takes a multiple of 4, not ${blockSize}`);
  }
  const { 'kv-tokens': kvTokens, 'gpu-budget': gpuBudget } = values;
  return {
    model: values.model,
    host: values.host,
    port: parseWhole('--port', values.port, { most: 65_535 }),
    apiKey,
    kvTokens: kvTokens === undefined ? undefined : whole('kv-tokens', kvTokens, 2 ** 24),
    maxSequences: whole('max-sequences', values['max-sequences'], 1024),
    chunkTokens: whole('chunk-tokens', values['chunk-tokens'], 2 ** 16),
    blockSize,
    gpuBudgetBytes: gpuBudget === undefined ? undefined : parseBytes(gpuBudget),
    experts: parseExpertCaching(values),
    prefixCaching: !values['no-prefix-caching'],
    kvStore: values['kv-store'],
    kvStoreBytes: whole('kv-store-bytes', values['kv-store-bytes'], 2 ** 50),
  };
}
