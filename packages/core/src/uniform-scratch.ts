/** Host memory in which a batch collects the uniforms of its dispatches. */

/** Host side of a batch's uniforms; reused from batch to batch. */
export class UniformScratch {
  readonly bytes: ArrayBuffer;
  readonly view: DataView;
  usedBytes = 0;

  constructor(sizeBytes: number) {
    this.bytes = new ArrayBuffer(sizeBytes);
    this.view = new DataView(this.bytes);
  }
}
