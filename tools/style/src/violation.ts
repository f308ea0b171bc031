/** What a rule reports: one place, one rule, one sentence that says what to do. */

/** One breach of one rule. */
export interface Violation {
  /** Path from the workspace root. */
  readonly path: string;
  /** 1-based line, or 0 where the whole file is meant. */
  readonly line: number;
  /** Short name of the rule. */
  readonly rule: string;
  /** What is wrong, with numbers, and what to do. */
  readonly message: string;
}

/** The violation as one line that editors turn into a link. */
export function formatViolation(violation: Violation): string {
  const place = violation.line > 0 ? `${violation.path}:${violation.line}` : violation.path;
  return `${place}  ${violation.rule}: ${violation.message}`;
}
