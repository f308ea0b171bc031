/**
 * A headless Chromium driven over a pipe by its DevTools protocol: opens pages, tells what they
 * complained of, takes pictures.
 *
 * Chromium is `VRAMKIT_CHROMIUM`, one that is installed, or the one of `@sparticuz/chromium`, which
 * `npm ci` brings for its SwiftShader and which is unpacked to the folder for temporary files.
 * Source: chromedevtools.github.io/devtools-protocol; a message ends with a zero byte.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import chromium from '@sparticuz/chromium';

/** What a page gave. */
export interface VisitedPage {
  /** Errors of scripts, of the console and of loading. */
  readonly errors: readonly string[];
  /** What the expression was, as JSON carries it. */
  readonly value: unknown;
  /** PNG bytes. */
  readonly picture?: Buffer;
}

/** How a page is looked at. */
export interface VisitOptions {
  /** CSS pixels. Default: 1280. */
  readonly width?: number;
  /** What to evaluate once the page has loaded. Default: its title. */
  readonly expression?: string;
  /** Whether to take a picture. Default: no. */
  readonly picture?: boolean;
}

type Message = Readonly<Record<string, unknown>>;

const FLAGS = [
  '--headless=new',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-background-networking',
  '--allow-file-access-from-files',
  '--remote-debugging-pipe',
];

async function findChromium(): Promise<string> {
  const named = process.env['VRAMKIT_CHROMIUM'];
  const known = named === undefined ? ['chromium', 'google-chrome'] : [named];
  const installed = known.find((each) => spawnSync(each, ['--version']).status === 0);
  return installed ?? chromium.executablePath();
}

/** One browser; dispose of it. */
export class Browser implements Disposable {
  readonly #child: ChildProcess;
  readonly #profile: string;
  readonly #input: Writable;
  readonly #waiting = new Map<number, (answer: Message) => void>();
  readonly #listeners = new Set<(message: Message) => void>();
  #calls = 0;

  private constructor(path: string) {
    this.#profile = mkdtempSync(join(tmpdir(), 'vramkit-browser-'));
    const args = [...FLAGS, `--user-data-dir=${this.#profile}`, 'about:blank'];
    const stdio = ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] as const;
    this.#child = spawn(path, args, { stdio: [...stdio] });
    this.#input = this.#child.stdio[3] as Writable; // the third pipe takes messages
    const output = this.#child.stdio[4] as Readable; // the fourth gives them
    let text = '';
    output.setEncoding('utf8').on('data', (chunk: string) => {
      const parts = (text + chunk).split('\0');
      text = parts.pop() ?? '';
      for (const part of parts) this.#receive(JSON.parse(part) as Message);
    });
  }

  /** Starts one. */
  static async open(): Promise<Browser> {
    return new Browser(await findChromium());
  }

  #receive(message: Message): void {
    const id = message['id'];
    if (typeof id === 'number') this.#waiting.get(id)?.(message);
    for (const listener of this.#listeners) listener(message);
  }

  /** Calls a method of the protocol. */
  async #call(method: string, params: object, sessionId?: string): Promise<Message> {
    const id = (this.#calls += 1);
    const answer = new Promise<Message>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${method}: no answer in 60 s`)), 60_000);
      this.#waiting.set(id, (message) => {
        clearTimeout(timer);
        this.#waiting.delete(id);
        if (message['error'] === undefined) resolve((message['result'] ?? {}) as Message);
        else reject(new Error(`${method}: ${JSON.stringify(message['error'])}`));
      });
    });
    this.#input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return answer;
  }

  /** Opens a page in a tab of its own and waits until it has loaded. */
  async visit(url: string, options: VisitOptions = {}): Promise<VisitedPage> {
    const { width = 1280, expression = 'document.title', picture = false } = options;
    const { targetId } = await this.#call('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.#call('Target.attachToTarget', { targetId, flatten: true });
    const session = sessionId as string; // the protocol's own types
    const call = (method: string, params: object = {}) => this.#call(method, params, session);
    const errors: string[] = [];
    let loaded = (): void => undefined;
    const load = new Promise<void>((resolve) => (loaded = resolve));
    const listen = (message: Message): void => {
      if (message['sessionId'] !== session) return;
      if (message['method'] === 'Page.loadEventFired') loaded();
      errors.push(...complaints(message));
    };
    this.#listeners.add(listen);
    try {
      for (const domain of ['Page', 'Runtime', 'Log']) await call(`${domain}.enable`);
      const size = { width, height: 900, deviceScaleFactor: 1, mobile: width < 600 };
      await call('Emulation.setDeviceMetricsOverride', size);
      await call('Page.navigate', { url });
      await load;
      const evaluate = { expression, returnByValue: true, awaitPromise: true };
      const { result } = (await call('Runtime.evaluate', evaluate)) as { result?: Message };
      if (!picture) return { errors, value: result?.['value'] };
      const { data } = await call('Page.captureScreenshot', { format: 'png' });
      const png = Buffer.from(data as string, 'base64');
      return { errors, value: result?.['value'], picture: png };
    } finally {
      this.#listeners.delete(listen);
      await this.#call('Target.closeTarget', { targetId });
    }
  }

  /** Ends it and removes its profile. */
  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL');
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** What a message says went wrong. */
function complaints({ method, params }: Message): string[] {
  // The protocol's own types, of the three events that are looked at.
  const { exceptionDetails, type, args, entry } = (params ?? {}) as {
    exceptionDetails?: { text: string; exception?: { description?: string } };
    type?: string;
    args?: { value?: unknown; description?: string }[];
    entry?: { level: string; text: string; url?: string };
  };
  if (method === 'Runtime.exceptionThrown') {
    return [exceptionDetails?.exception?.description ?? exceptionDetails?.text ?? 'an exception'];
  }
  if (method === 'Runtime.consoleAPICalled' && type === 'error') {
    return [(args ?? []).map(({ value, description }) => value ?? description).join(' ')];
  }
  if (method === 'Log.entryAdded' && entry?.level === 'error') {
    return [`${entry.text} ${entry.url ?? ''}`.trim()];
  }
  return [];
}
