/**
 * Headless Chromium from the npm package `@sparticuz/chromium`, with WebGPU on its SwiftShader, and
 * a server of this workspace's files for it: WebGPU needs a secure context, which localhost is.
 */
import { createReadStream, createWriteStream, existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { homedir } from 'node:os';
import { createRequire } from 'node:module';
import { dirname, extname, join, normalize } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { pathToFileURL } from 'node:url';
import { createBrotliDecompress } from 'node:zlib';
import { workspaceFolder } from '@vramkit/bench';
import { extract } from 'tar-fs';
import { transform } from 'esbuild';
import { resolveRuntime, runtimesFolder } from './runtimes.js';

/** A page, as far as it is used; puppeteer owns the type. */
export interface Page {
  goto(url: string): Promise<unknown>;
  waitForFunction(condition: string, options: { readonly timeout: number }): Promise<unknown>;
  evaluate(expression: string): Promise<unknown>;
  screenshot(options: { readonly path: string }): Promise<unknown>;
  setViewport(size: { readonly width: number; readonly height: number }): Promise<void>;
  on(event: 'console', listener: (message: { text(): string; type(): string }) => void): void;
  on(event: 'pageerror', listener: (error: Error) => void): void;
}

interface Browser {
  newPage(): Promise<Page>;
  close(): Promise<void>;
}

interface Puppeteer {
  readonly default: { launch(options: object): Promise<Browser> };
}

const require = createRequire(import.meta.url);

/** Unpacks Chromium to this user's cache, once; the folder appears complete or not at all. */
async function unpackChromium(): Promise<string> {
  const packed = join(dirname(require.resolve('@sparticuz/chromium')), '../../bin');
  const { version } = JSON.parse(await readFile(join(packed, '../package.json'), 'utf8')) as {
    readonly version: string; // npm owns this format
  };
  const cache = join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'vramkit');
  const folder = join(cache, `chromium-${version}`);
  if (existsSync(folder)) return folder;
  await mkdir(cache, { recursive: true, mode: 0o700 });
  const temporary = await mkdtemp(join(cache, 'unpacking-'));
  const unpack = (name: string, to: NodeJS.WritableStream): Promise<void> =>
    pipeline(createReadStream(join(packed, name)), createBrotliDecompress(), to);
  try {
    for (const name of ['al2023.tar.br', 'fonts.tar.br', 'swiftshader.tar.br']) {
      await unpack(name, extract(temporary));
    }
    await unpack('chromium.br', createWriteStream(join(temporary, 'chromium')));
    await chmod(join(temporary, 'chromium'), 0o755);
    await rename(temporary, folder).catch((error: unknown) => {
      if (!existsSync(folder)) throw error; // else another process was first
    });
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return folder;
}

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.wasm': 'application/wasm',
};

/** Where the folders of an address are. */
function fileOf(path: string): string {
  const clean = normalize(path);
  if (clean.startsWith('/runtimes/')) {
    return join(runtimesFolder, 'node_modules', clean.slice('/runtimes/'.length));
  }
  if (/^\/(packages\/[^/]+\/dist|node_modules)\//.test(clean)) return join(workspaceFolder, clean);
  if (clean.startsWith('/src/')) {
    return join(import.meta.dirname, clean.slice('/src/'.length).replace(/\.js$/, '.ts'));
  }
  return join(import.meta.dirname, '../page', clean === '/' ? 'index.html' : clean);
}

/** The bytes of a file; TypeScript comes as JavaScript. */
async function contentOf(file: string): Promise<Uint8Array> {
  const bytes = await readFile(file);
  if (extname(file) !== '.ts') return bytes;
  const { code } = await transform(bytes.toString(), { loader: 'ts', target: 'es2022' });
  return Buffer.from(code);
}

/** Serves the page, the built packages and the runtimes on a free port of localhost. */
async function serve(
  extra: Readonly<Record<string, Uint8Array>>,
): Promise<{ readonly url: string; close(): void }> {
  const server = createServer((request, response) => {
    const path = new URL(request.url ?? '/', 'http://localhost').pathname;
    const file = fileOf(path);
    const given = extra[path];
    const content = given === undefined ? contentOf(file) : Promise.resolve(given);
    content.then(
      (bytes) => {
        response.writeHead(200, {
          'content-type': TYPES[extname(path === '/' ? file : path)] ?? 'application/octet-stream',
          // Isolation gives a page shared memory, which ONNX Runtime's heap is.
          'cross-origin-opener-policy': 'same-origin',
          'cross-origin-embedder-policy': 'require-corp',
        });
        response.end(bytes);
      },
      () => response.writeHead(404).end(`no ${path}`),
    );
  });
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  const { port } = server.address() as AddressInfo; // a TCP server has no other kind
  return { url: `http://localhost:${port}`, close: () => void server.close() };
}

/**
 * Opens a page of this example in headless Chromium, and closes all when `use` is done.
 * @param extra What the server gives besides files, by path.
 * @throws Error of the page's console or script, and whatever `use` throws.
 */
export async function withPage<T>(
  path: string,
  use: (page: Page) => Promise<T>,
  extra: Readonly<Record<string, Uint8Array>> = {},
): Promise<T> {
  const folder = await unpackChromium();
  const entry = pathToFileURL(resolveRuntime('puppeteer-core')).href;
  const puppeteer = (await import(entry)) as Puppeteer; // Typed above, for what is used.
  const server = await serve(extra);
  const browser = await puppeteer.default.launch({
    executablePath: join(folder, 'chromium'),
    headless: 'shell',
    args: [
      ...['--no-sandbox', '--no-zygote', '--disable-dev-shm-usage', '--ignore-gpu-blocklist'],
      ...['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-features=Vulkan'],
    ],
    env: {
      ...process.env,
      FONTCONFIG_PATH: folder,
      LD_LIBRARY_PATH: [process.env['LD_LIBRARY_PATH'], join(folder, 'lib')]
        .filter((part) => part)
        .join(':'),
    },
    protocolTimeout: 600_000,
  });
  const problems: string[] = [];
  try {
    const page = await browser.newPage();
    page.on('pageerror', (error) => problems.push(String(error)));
    page.on('console', (message) => {
      if (message.type() === 'error') problems.push(message.text());
    });
    await page.goto(`${server.url}${path}`);
    const result = await use(page);
    if (problems.length > 0) throw new Error(`the page reports: ${problems.join('; ')}`);
    return result;
  } finally {
    await browser.close();
    server.close();
  }
}

/** Which built packages are missing, or undefined. */
export function whyNoPackages(): string | undefined {
  const names = ['core', 'block-allocator', 'paged-attention', 'packer'];
  const missing = names.filter(
    (name) => !existsSync(join(workspaceFolder, `packages/${name}/dist/index.js`)),
  );
  return missing.length === 0 ? undefined : `not built: ${missing.join(', ')}; run npm run build`;
}
