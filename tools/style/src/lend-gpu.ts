/**
 * Preloaded before an example: lends it the adapter of this workspace as a browser would, as
 * `navigator.gpu`, so that its `openDevice()` needs no Vulkan driver on the machine.
 */
import { createGpu } from '@vramkit/adapter';

const { gpu } = await createGpu();
Object.defineProperty(globalThis, 'navigator', { value: { gpu }, configurable: true });
