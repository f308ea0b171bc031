/**
 * What a user says about units before an allocator decides: fixed widths and floors by name, and
 * units that must agree.
 *
 * A pattern is an exact name, a glob (`*` any characters, `?` one) or a regular expression. An
 * exact name goes before a glob and a glob before a regular expression; among equals the last one
 * wins. A pattern that matches nothing is reported, since it is nearly always a mistake.
 */
import { assertArgument, fail } from '@vramkit/core';
import type { CodeBits } from '../matrix-layout.js';
import type { Allocation, AllocationUnit, WidthChoice } from './allocator.js';

/** What one pattern asks for. */
export interface WidthRule {
  /** Name or glob of ids, or a regular expression. */
  readonly match: string | RegExp;
  /** Exactly this width. */
  readonly bits?: CodeBits;
  /** At least this width. Default: any. */
  readonly minBits?: CodeBits;
  /** At most this width. Default: any. */
  readonly maxBits?: CodeBits;
}

/** Whether `match` is meant as a glob. */
function isGlob(match: string): boolean {
  return /[*?]/.test(match);
}

/** Whether a name matches a pattern as {@link WidthRule} has it. */
export function matchesName(match: string | RegExp, name: string): boolean {
  if (match instanceof RegExp)
    return new RegExp(match.source, match.flags.replace(/[gy]/g, '')).test(name);
  if (!isGlob(match)) return match === name;
  const escaped = match.replace(/[\\^$.|+()[\]{}]/g, '\\$&');
  return new RegExp(`^${escaped.replace(/\*/g, '.*').replace(/\?/g, '.')}$`, 's').test(name);
}

function precedence({ match }: WidthRule): number {
  if (match instanceof RegExp) return 0;
  return isGlob(match) ? 1 : 2;
}

/** The rule that decides about a name. */
export function ruleFor(rules: readonly WidthRule[], name: string): WidthRule | undefined {
  let found: WidthRule | undefined;
  for (const rule of rules) {
    if (!matchesName(rule.match, name)) continue;
    if (found === undefined || precedence(rule) >= precedence(found)) found = rule;
  }
  return found;
}

/** Rules whose pattern matches none of the names. */
export function unmatchedRules(
  rules: readonly WidthRule[],
  names: readonly string[],
): readonly WidthRule[] {
  return rules.filter(({ match }) => !names.some((name) => matchesName(match, name)));
}

/**
 * Units with the choices that the rules leave.
 * @throws VramError `invalid-argument` where a rule leaves a unit without a width.
 */
export function applyRules(
  units: readonly AllocationUnit[],
  rules: readonly WidthRule[],
): AllocationUnit[] {
  return units.map((unit) => {
    const rule = ruleFor(rules, unit.id);
    if (rule === undefined) return unit;
    const { bits, minBits = 0, maxBits = Infinity } = rule;
    const choices = unit.choices.filter((choice) =>
      bits === undefined ? choice.bits >= minBits && choice.bits <= maxBits : choice.bits === bits,
    );
    if (choices.length > 0) return { ...unit, choices };
    return fail('invalid-argument', `the rule '${rule.match}' leaves no width for '${unit.id}'`, {
      id: unit.id,
      rule: String(rule.match),
      widths: unit.choices.map((choice) => choice.bits),
    });
  });
}

/** Units of which some stand for several that must have one width. */
export interface TiedUnits {
  readonly units: readonly AllocationUnit[];
  /** Members of each tied unit by its id; units that stand alone are not listed. */
  readonly members: ReadonlyMap<string, readonly AllocationUnit[]>;
}

/**
 * Makes one unit of each group: widths that all members have, sizes and errors added, scores added.
 * @throws VramError `invalid-argument` for an unknown id, an id in two groups, or members without a
 * common width.
 */
export function tieUnits(
  units: readonly AllocationUnit[],
  groups: readonly (readonly string[])[],
): TiedUnits {
  const byId = new Map(units.map((unit) => [unit.id, unit]));
  const groupOf = new Map<string, readonly string[]>();
  for (const group of groups) {
    for (const id of group) {
      assertArgument(byId.has(id) && !groupOf.has(id), `'${id}' is unknown or tied twice`, { id });
      groupOf.set(id, group);
    }
  }
  const members = new Map<string, readonly AllocationUnit[]>();
  const tied = units.flatMap((unit): AllocationUnit[] => {
    const group = groupOf.get(unit.id);
    if (group === undefined || group.length < 2) return [unit];
    if (group[0] !== unit.id) return [];
    const all = group.flatMap((id) => byId.get(id) ?? []);
    const id = group.join(' = ');
    members.set(id, all);
    return [combine(id, unit.layer, all)];
  });
  return { units: tied, members };
}

function combine(id: string, layer: number, all: readonly AllocationUnit[]): AllocationUnit {
  const choices = (all[0]?.choices ?? []).flatMap(({ bits }): WidthChoice[] => {
    const same = all.flatMap((unit) => unit.choices.find((choice) => choice.bits === bits) ?? []);
    if (same.length < all.length) return [];
    return [
      {
        bits,
        sizeBytes: same.reduce((sum, each) => sum + each.sizeBytes, 0),
        error: same.reduce((sum, each) => sum + each.error, 0),
      },
    ];
  });
  assertArgument(choices.length > 0, `'${id}' have no width in common`, { id });
  return {
    id,
    layer,
    choices,
    weights: all.reduce((sum, unit) => sum + unit.weights, 0),
    score: all.reduce((sum, unit) => sum + unit.score, 0),
  };
}

/** The width of every single unit of an allocation over tied ones. */
export function widthsOf(
  allocation: Allocation,
  members: TiedUnits['members'] = new Map(),
): ReadonlyMap<string, CodeBits> {
  return new Map(
    allocation.units.flatMap(({ id, bits }) =>
      (members.get(id) ?? [{ id }]).map((unit) => [unit.id, bits] as const),
    ),
  );
}
