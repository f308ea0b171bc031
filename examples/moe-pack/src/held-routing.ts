/**
 * A model whose routers keep the choice that they made once, so that its loss is smooth.
 *
 * A loss jumps where a changed weight sends a token to another expert. Derivatives by back
 * propagation never see such a jump; a difference of losses does, and divides it by the square of
 * its step. Here the experts of each token are recorded in one pass and held in the later ones; how
 * the chosen ones share the token still follows the router, as it does for back propagation.
 */
import { writeRange } from '@vramkit/core';
import type { InferenceSession, LanguageModel } from '@vramkit/example-runtime';
import type { ExpertCache } from '@vramkit/packer';

type Experts = Extract<LanguageModel['layers'][number]['feedForward'], { type: 'experts' }>;

/** Records and holds the experts of each layer, by the text that is computed. */
export class HeldRouting {
  /** The model to make a session of; the original owns its weights. */
  readonly model: LanguageModel;
  /** The session of `model`; each text is one step of it. */
  session: InferenceSession | undefined;
  /** Which text is computed; its first pass records. */
  text = 0;
  readonly #held = new Map<string, Uint32Array>();

  constructor(model: LanguageModel) {
    const layers = model.layers.map((layer, index) => {
      const { feedForward } = layer;
      if (feedForward.type !== 'experts') return layer;
      return { ...layer, feedForward: this.#hold(feedForward, index) };
    });
    this.model = { ...model, layers };
  }

  #hold(experts: Experts, layer: number): Experts {
    const rounds = this.#rounds.bind(this, layer);
    // A cache is asked between the routing and the experts of a layer, which is the place to change
    // the one before the others read it; the class has private parts that this needs none of.
    return { ...experts, cache: { rounds } as unknown as ExpertCache };
  }

  async *#rounds(layer: number, requests: readonly { readonly expert: number }[]) {
    const key = `${this.text} ${layer}`;
    const held = this.#held.get(key);
    if (held === undefined) {
      this.#held.set(
        key,
        Uint32Array.from(requests, ({ expert }) => expert),
      );
    } else await this.#write(held);
    yield;
  }

  async #write(ids: Uint32Array): Promise<void> {
    const { expertsPerToken, experts: count } = this.model.config;
    const experts = this.session?.forward.workspace.experts;
    if (experts === undefined) throw new Error('the session has no experts');
    const tokens = ids.length / expertsPerToken;
    const logits = await experts.routerLogits.slice(0, tokens).readFloats();
    const weights = new Float32Array(ids.length);
    for (let token = 0; token < tokens; token++) {
      const chosen = ids.subarray(token * expertsPerToken, (token + 1) * expertsPerToken);
      const own = Array.from(chosen, (id) => logits[token * count + id] ?? 0);
      const most = Math.max(...own);
      const shares = own.map((logit) => Math.exp(logit - most));
      const sum = shares.reduce((total, share) => total + share, 0);
      shares.forEach((share, rank) => (weights[token * expertsPerToken + rank] = share / sum));
    }
    experts.ids.slice(0, ids.length).write(ids);
    writeRange(experts.ids.device, experts.weights, weights);
  }
}
