/**
 * TOVA, token omission via attention: keep what the last query attends to.
 *
 * The score is the softmax weight that the last query gave. One order serves all heads of a layer,
 * as their mean; recency is not built in, but earned.
 *
 * Heads and layers: the mean over the heads of a layer is the paper's own rule. The mean over
 * layers is ours, as all layers share one block table; the paper chooses per layer.
 *
 * Where this differs from the paper: whole blocks of lowest mean go at decode, not a token per
 * step, so a block is judged by the query that filled the newest one; ends are protected by
 * default.
 *
 * What it gets wrong: one query is a small sample. At a comma it says little about the next
 * sentence.
 *
 * Source: Oren, Hassid, Yarden, Adi, Schwartz, "Transformers are Multi-State RNNs" (arXiv
 * 2401.06104, EMNLP 2024).
 */
import type { KvPolicy } from '../policy.js';
import { receivedAttention } from '../received-attention.js';
import { scored, type ScoredOptions } from '../scored.js';

/**
 * Keeps what the last query attends to.
 * @throws VramError `invalid-argument` as {@link scored}.
 */
export function tova(options: ScoredOptions): KvPolicy {
  return scored('tova', receivedAttention(1), options);
}
