import { z } from 'zod';
import { InterlockError } from '../errors.js';
import type { BucketRange, Rules } from './rules.js';
import { BUCKETS, parseUnit } from './units.js';

const name = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'expected a name of lower-case letters, digits and dashes');
const state = z.enum(['open', 'write_disabled']);
const assignment = { owner: name, state };
const version = z.number().int().min(1).max(Number.MAX_SAFE_INTEGER);
const bucket = z
  .number()
  .int()
  .min(0)
  .max(BUCKETS - 1);

const rulesSchema = z.strictObject({
  format: z.literal(1),
  topology: name,
  epoch: version,
  mappingVersion: version,
  unitMappingVersions: z.record(z.string(), version),
  defaultRegion: name,
  regions: z.record(name, z.array(z.strictObject({ from: bucket, to: bucket, ...assignment }))),
  segments: z.record(name, z.strictObject({ ...assignment, members: z.array(z.string().min(1).max(256)) })),
  central: z.record(name, z.strictObject(assignment)),
  holder: z
    .strictObject({ workflowId: z.string().min(1).max(255), runId: z.string().min(1).max(64) })
    .nullable(),
  reason: z.string().max(1024),
});

/**
 * Rules of a document that came from outside (HTTP, a file on disk).
 * @throws InterlockError BadInput: names the field of every problem, in `details.problems` one by one.
 */
export function validateRules(document: unknown): Rules {
  const parsed = rulesSchema.safeParse(document);
  if (!parsed.success) {
    throw invalid(
      parsed.error.issues.flatMap((issue) => {
        const at = issue.path.map(String);
        // The field that is too much is the one to name.
        const paths = issue.code === 'unrecognized_keys' ? issue.keys.map((key) => [...at, key]) : [at];
        return paths.map((path) => ({
          field: path.join('.') || 'rules',
          problem: issue.message.replace(/^Invalid input: /, ''),
        }));
      }),
    );
  }
  const rules: Rules = parsed.data;
  const problems = [...problemsOf(rules)];
  if (problems.length > 0) throw invalid(problems);
  return rules;
}

interface FieldProblem {
  field: string;
  problem: string;
}

function invalid(problems: FieldProblem[]): InterlockError {
  // A hostile document may have a problem per byte.
  const shown = problems.slice(0, 20);
  const more = problems.length > shown.length ? `; and ${problems.length - shown.length} more` : '';
  return new InterlockError(
    'BadInput',
    `the rules are not valid: ${shown.map((p) => `${p.field}: ${p.problem}`).join('; ')}${more}`,
    { details: { field: shown[0]!.field, problems: shown } },
  );
}

function* problemsOf(rules: Rules): Generator<FieldProblem> {
  if (!Object.hasOwn(rules.regions, rules.defaultRegion)) {
    yield { field: 'defaultRegion', problem: `expected a region of the rules, got ${rules.defaultRegion}` };
  }
  for (const [region, ranges] of Object.entries(rules.regions)) {
    yield* rangeProblems(`regions.${region}`, ranges);
  }
  const segmentOf = new Map<string, string>();
  for (const [segment, { members }] of Object.entries(rules.segments)) {
    for (const [i, member] of members.entries()) {
      const field = `segments.${segment}.members.${i}`;
      const before = members[i - 1];
      if (before !== undefined && before >= member) {
        yield { field, problem: 'expected members sorted, without duplicates' };
      }
      const other = segmentOf.get(member);
      if (other !== undefined && other !== segment) {
        yield { field, problem: `expected a user of one segment; it is in ${other} too` };
      }
      segmentOf.set(member, segment);
    }
  }
  for (const [unit, unitVersion] of Object.entries(rules.unitMappingVersions)) {
    const field = `unitMappingVersions.${unit}`;
    if (parseUnit(unit) === undefined)
      yield { field, problem: 'expected a unit such as cn-east/42 or segment:vip' };
    if (unitVersion > rules.mappingVersion) {
      yield { field, problem: `expected at most mappingVersion, ${rules.mappingVersion}` };
    }
  }
  const fenced = [
    ...Object.values(rules.regions).flat(),
    ...Object.values(rules.segments),
    ...Object.values(rules.central),
  ].some((a) => a.state === 'write_disabled');
  if (fenced && rules.holder === null) {
    yield { field: 'holder', problem: 'expected the run that holds the write-disabled units, got null' };
  }
  if (!fenced && rules.holder !== null) {
    yield { field: 'holder', problem: 'expected null, since nothing is write-disabled' };
  }
}

/** Ranges must cover 0–999 once, in order, and be joined where neighbours are alike: equal rules have one text, so one hash. */
function* rangeProblems(field: string, ranges: readonly BucketRange[]): Generator<FieldProblem> {
  let next = 0;
  for (const [i, range] of ranges.entries()) {
    const at = `${field}.${i}`;
    if (range.from !== next) {
      const what = range.from > next ? 'a gap' : 'an overlap';
      yield {
        field: `${at}.from`,
        problem: `expected ${next} (sorted, no gap, no overlap), got ${what} at ${range.from}`,
      };
    }
    if (range.to < range.from)
      yield { field: `${at}.to`, problem: `expected at least ${range.from}, got ${range.to}` };
    const before = ranges[i - 1];
    if (before && before.owner === range.owner && before.state === range.state) {
      yield { field: at, problem: 'expected neighbours with the same owner and state to be one range' };
    }
    next = Math.max(next, range.to + 1);
  }
  if (next !== BUCKETS)
    yield { field, problem: `expected buckets 0 to ${BUCKETS - 1} to be covered, got 0 to ${next - 1}` };
}
