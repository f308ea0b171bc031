/** Which pinned peers count as installed. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { missingPeers, peersFolder } from './peers.js';

describe('missingPeers', () => {
  it('names what is absent or has another version than the pinned one', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vramkit-peers-'));
    const write = async (path: string, content: object): Promise<void> => {
      await mkdir(join(folder, path), { recursive: true });
      await writeFile(join(folder, path, 'package.json'), JSON.stringify(content));
    };
    try {
      await write('.', { dependencies: { one: '1.0.0', '@scope/two': '2.0.0' } });
      expect(missingPeers(folder)).toEqual(['one@1.0.0', '@scope/two@2.0.0']);
      await write('node_modules/one', { version: '1.0.0' });
      await write('node_modules/@scope/two', { version: '1.9.0' });
      expect(missingPeers(folder)).toEqual(['@scope/two@2.0.0']);
      await write('node_modules/@scope/two', { version: '2.0.0' });
      expect(missingPeers(folder)).toEqual([]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('reads the pins of tools/peers', async () => {
    const empty = await mkdtemp(join(tmpdir(), 'vramkit-peers-'));
    try {
      await writeFile(join(empty, 'package.json'), await readFile(`${peersFolder}/package.json`));
      expect(missingPeers(empty).map((peer) => peer.replace(/@\d+\.\d+\.\d+$/, ''))).toEqual([
        '@tensorflow/tfjs-backend-webgpu',
        '@tensorflow/tfjs-core',
        'koffi',
        'node-llama-cpp',
        'onnxruntime-node',
      ]);
    } finally {
      await rm(empty, { recursive: true });
    }
  });
});
