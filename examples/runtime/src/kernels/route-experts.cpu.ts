/** Definition of the expert routing kernel. */

/** Ids and weights [tokens, chosen] of the largest router logits, largest first. */
export function routeExperts(
  logits: Float32Array,
  shape: { readonly tokens: number; readonly experts: number; readonly chosen: number },
): { readonly ids: Uint32Array; readonly weights: Float32Array } {
  const { tokens, experts, chosen } = shape;
  const ids = new Uint32Array(tokens * chosen);
  const weights = new Float32Array(tokens * chosen);
  for (let token = 0; token < tokens; token++) {
    const row = Array.from(logits.subarray(token * experts, (token + 1) * experts));
    const order = row.map((_, i) => i).sort((a, b) => (row[b] ?? 0) - (row[a] ?? 0) || a - b);
    const exps = order.slice(0, chosen).map((i) => Math.exp((row[i] ?? 0) - Math.max(...row)));
    const sum = exps.reduce((a, b) => a + b, 0);
    for (let rank = 0; rank < chosen; rank++) {
      ids[token * chosen + rank] = order[rank] ?? 0;
      weights[token * chosen + rank] = (exps[rank] ?? 0) / sum;
    }
  }
  return { ids, weights };
}
