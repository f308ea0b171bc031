/**
 * The HTTP server: `/v1/completions`, `/v1/chat/completions`, `/v1/models`, `/metrics`, `/health`.
 *
 * A request is checked against its schema, becomes one generation per choice in the batch engine,
 * and is answered whole or as events. Whatever ends the request (an error, a client that leaves, a
 * stop string) cancels its generations, so that their blocks are free for the others at the next
 * step. A client that reads slowly holds nothing but its own text.
 */
import { randomUUID, timingSafeEqual, createHash } from 'node:crypto';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import type { BatchEngine, Generation, Tokenizer } from '@vramkit/example-runtime';
import fastify, { type FastifyInstance, type FastifyReply } from 'fastify';
import { CHAT_SHAPE, eventStream, TEXT_SHAPE, wholeAnswer, type AnswerShape } from './answer.js';
import { ChoiceStream } from './choice-stream.js';
import { errorAnswer, HttpError, schemaError } from './http-error.js';
import {
  CHAT_SCHEMA,
  chatPrompt,
  COMPLETION_SCHEMA,
  completionPrompts,
  stopStrings,
  type ChatBody,
  type CommonBody,
  type CompletionBody,
} from './request-body.js';
import { ServerMetrics } from './server-metrics.js';
import { refuseUnsupported } from './unsupported-fields.js';

/** Options of {@link createServer}. */
export interface ServerOptions {
  /** Name of the model in requests and answers. */
  readonly model: string;
  /** What clients must send as bearer token. Default: nothing is asked. */
  readonly apiKey?: string;
  /** Largest request body, bytes. Default: 1 MiB. */
  readonly bodyLimitBytes?: number;
  /** Longest time for a request to arrive. Default: 30 s. */
  readonly requestTimeoutMs?: number;
  /** Seed of the first request without one; later ones count on. Default: 0. */
  readonly seed?: number;
}

/** A client that left before its answer ended. */
const CLIENT_CLOSED = 499;
/** Tokens of a completion that asks for no number. */
const DEFAULT_TOKENS = 16;

/**
 * Routes over an engine and the tokenizer of its model; `listen()` is the caller's. Closing it
 * waits for requests that run; see `drain.ts`.
 */
export function createServer(
  engine: BatchEngine,
  tokenizer: Tokenizer,
  options: ServerOptions,
): FastifyInstance {
  const requestTimeout = options.requestTimeoutMs ?? 30_000;
  const app = fastify({
    bodyLimit: options.bodyLimitBytes ?? 1024 * 1024,
    requestTimeout,
    // Node looks for late requests this often, and waits as long for headers as for all of it.
    http: {
      connectionsCheckingInterval: Math.min(requestTimeout, 5000),
      headersTimeout: requestTimeout,
      requestTimeout,
    },
    forceCloseConnections: 'idle',
    // Clients send numbers as numbers: "1" is not 1 here.
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, allowUnionTypes: true } },
  });
  app.setSchemaErrorFormatter(schemaError);
  app.removeContentTypeParser('text/plain');
  const metrics = new ServerMetrics(engine);
  const context = { engine, tokenizer, metrics, options, seeds: counter(options.seed ?? 0) };
  app.addHook('onRequest', async ({ routeOptions }, { raw }) => {
    const done = metrics.time(routeOptions.url ?? 'unknown');
    raw.once('close', () => done(raw.writableFinished ? raw.statusCode : CLIENT_CLOSED));
  });
  if (options.apiKey !== undefined) requireKey(app, options.apiKey);
  app.setErrorHandler((error, _request, reply) => {
    const { status, body } = errorAnswer(error);
    if (status === 503) void reply.header('retry-after', '1');
    return reply.status(status).send(body);
  });
  app.setNotFoundHandler((request) => {
    throw new HttpError(404, `there is no ${request.method} ${request.url}`, 'not_found');
  });
  app.get('/health', () => ({ status: 'ok' }));
  app.get('/metrics', async (_request, reply) => {
    void reply.type(metrics.registry.contentType);
    return metrics.registry.metrics();
  });
  const created = Math.floor(Date.now() / 1000);
  const card = { id: options.model, object: 'model', created, owned_by: 'vramkit' };
  app.get('/v1/models', () => ({ object: 'list', data: [card] }));
  app.get<{ Params: { id: string } }>('/v1/models/:id', ({ params }) => {
    checkModel(params.id, options);
    return card;
  });
  app.post<{ Body: CompletionBody }>(
    '/v1/completions',
    { schema: { body: COMPLETION_SCHEMA } },
    ({ body }, reply) => {
      const limit = body.max_tokens ?? DEFAULT_TOKENS;
      return complete(context, { reply, body, shape: TEXT_SHAPE, limit }, () =>
        completionPrompts(body, tokenizer, engine.model.config.vocabularySize),
      );
    },
  );
  app.post<{ Body: ChatBody }>(
    '/v1/chat/completions',
    { schema: { body: CHAT_SCHEMA } },
    ({ body }, reply) => {
      const limit = body.max_completion_tokens ?? body.max_tokens ?? undefined;
      return complete(context, { reply, body, shape: CHAT_SHAPE, limit }, () => [
        chatPrompt(body, tokenizer),
      ]);
    },
  );
  return app;
}

function counter(first: number): () => number {
  let next = first;
  return () => next++ >>> 0;
}

function requireKey(app: FastifyInstance, apiKey: string): void {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  const expected = digest(apiKey);
  app.addHook('onRequest', async ({ headers, routeOptions }, reply) => {
    if (routeOptions.url === '/health') return;
    const [, key = ''] = /^bearer +(.*)$/i.exec(headers.authorization ?? '') ?? [];
    // Digests have one length, so that the comparison takes one time.
    if (timingSafeEqual(digest(key), expected)) return;
    void reply.header('www-authenticate', 'Bearer');
    throw new HttpError(401, 'a valid API key is needed', 'invalid_api_key');
  });
}

function checkModel(name: string, { model }: ServerOptions): void {
  if (name === model) return;
  throw new HttpError(404, `there is no model '${name}'; this is '${model}'`, 'model_not_found');
}

interface Context {
  readonly engine: BatchEngine;
  readonly tokenizer: Tokenizer;
  readonly metrics: ServerMetrics;
  readonly options: ServerOptions;
  readonly seeds: () => number;
}

interface Call {
  readonly reply: FastifyReply;
  readonly body: CommonBody;
  readonly shape: AnswerShape;
  /** Tokens of an answer; as many as the context holds where absent. */
  readonly limit: number | undefined;
}

async function complete(
  context: Context,
  call: Call,
  prompts: () => readonly Uint32Array[],
): Promise<FastifyReply> {
  const { reply, body, shape } = call;
  const { metrics, options, tokenizer } = context;
  const firstText = metrics.timeFirstText();
  checkModel(body.model, options);
  refuseUnsupported(body);
  const encoded = prompts();
  const generations = submitAll(context, call, encoded);
  const cancel = (): void => {
    for (const generation of generations) generation.cancel();
  };
  reply.raw.once('close', cancel);
  const stops = stopStrings(body);
  const choices = generations.map((each) => new ChoiceStream(each, tokenizer, stops));
  const promptTokens = encoded.reduce((sum, ids) => sum + ids.length, 0);
  const asked = { promptTokens, choicesPerPrompt: body.n ?? 1 };
  const head = {
    id: `${shape.idPrefix}-${randomUUID()}`,
    created: Math.floor(Date.now() / 1000),
    model: options.model,
  };
  if (body.stream !== true) {
    try {
      const answer = await wholeAnswer(head, shape, choices, asked);
      firstText();
      return await reply.send(answer);
    } finally {
      cancel();
    }
  }
  const includeUsage = body.stream_options?.include_usage === true;
  const events = eventStream(head, shape, choices, { ...asked, includeUsage });
  const timed = async function* (): AsyncGenerator<string, void, void> {
    for await (const event of events) {
      firstText();
      yield event;
    }
  };
  const stream = Readable.from(timed(), { objectMode: false });
  void once(stream, 'close').then(cancel, cancel);
  return reply
    .type('text/event-stream; charset=utf-8')
    .header('cache-control', 'no-cache')
    .send(stream);
}

/** One generation per prompt and choice; all or none. */
function submitAll(
  { engine, seeds }: Context,
  { body, limit }: Call,
  prompts: readonly Uint32Array[],
): Generation[] {
  const choices = body.n ?? 1;
  if (prompts.length * choices > engine.maxWaiting) {
    const asked = `${prompts.length} prompts of ${choices} choices`;
    const message = `${asked} are more than the ${engine.maxWaiting} requests that may wait`;
    throw new HttpError(400, message, 'invalid_value', 'n');
  }
  const generations: Generation[] = [];
  try {
    for (const prompt of prompts) {
      const room = engine.model.config.contextLength - prompt.length;
      const maxTokens = limit ?? Math.max(1, Math.min(room, engine.capacityTokens - prompt.length));
      const seed = body.seed ?? seeds();
      for (let choice = 0; choice < choices; choice++) {
        const sampling = {
          temperature: body.temperature ?? 1,
          topP: body.top_p ?? 1,
          topK: body.top_k ?? 0,
          seed: (seed + choice) >>> 0,
          namespace: body.cache_salt ?? '',
        };
        generations.push(engine.submit(prompt, { maxTokens, ...sampling }));
      }
    }
    return generations;
  } catch (error) {
    for (const generation of generations) generation.cancel();
    throw error;
  }
}
