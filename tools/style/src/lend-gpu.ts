/**
 * Preloaded before an example: points the Vulkan loader at the adapter of this workspace, so that
 * its `openDevice()` needs no driver on the machine and goes the way of a user's all the same.
 */
import { createGpu } from '@vramkit/adapter';

await createGpu();
