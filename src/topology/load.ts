import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { parseDocument } from 'yaml';
import type { z } from 'zod';
import { InterlockError, messageOf } from '../errors.js';
import { canonicalJson, sha256 } from '../routing/hash.js';
import { crossReferenceProblems } from './cross-references.js';
import type { Problem } from './problems.js';
import { topologySchema } from './schema.js';
import type { SecretReference, Tls, Topology } from './schema.js';

export interface LoadedTopology {
  topology: Topology;
  /** `topologyHash(topology)`, hex. */
  hash: string;
  file: string;
}

/**
 * Reads, validates and hashes a topology file. Relative `{ file }` secrets are taken from the topology file's directory.
 * @throws InterlockError BadInput: every problem as `path: value: what was expected`; `details.problems` has them one by one.
 */
export async function loadTopology(file: string): Promise<LoadedTopology> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    throw new InterlockError('BadInput', `topology file ${file} cannot be read: ${messageOf(error)}`, {
      cause: error,
      details: { file },
    });
  }
  const topology = parseTopology(text, file);
  const hash = topologyHash(topology);
  resolveSecretFiles(topology, path.dirname(path.resolve(file)));
  return { topology, hash, file };
}

/** Parses and validates the text of a topology (YAML or JSON); `file` is only named in errors. */
export function parseTopology(text: string, file = 'topology.yaml'): Topology {
  const document = parseDocument(text, { prettyErrors: true });
  if (document.errors.length > 0) {
    throw invalid(
      file,
      document.errors.map((error) => ({
        path: `line ${error.linePos?.[0].line ?? '?'}`,
        value: error.code,
        expected: error.message.split('\n')[0]!.replace(/ at line \d+, column \d+:?$/, ''),
      })),
    );
  }
  let raw: unknown;
  try {
    raw = document.toJS();
  } catch (error) {
    // Too many aliases (a "billion laughs" document) or an unresolved one.
    throw invalid(file, [{ path: '(document)', value: 'yaml', expected: messageOf(error) }]);
  }
  return validateTopology(raw, file);
}

/** Validates a topology that was already parsed, cross-references included. */
export function validateTopology(raw: unknown, file = 'topology'): Topology {
  const parsed = topologySchema.safeParse(raw);
  if (!parsed.success) throw invalid(file, problemsOf(parsed.error, raw));
  const problems = crossReferenceProblems(parsed.data);
  if (problems.length > 0) throw invalid(file, problems);
  return parsed.data;
}

/**
 * What the topology means, not where its reader reaches it: addresses, accounts and secret references are left out. Hazard: the programs of two
 * data centers may reach the same server by different addresses, and a plan made by one is checked by the other.
 */
export function topologyHash(topology: Topology): string {
  const { temporal, datacenters, ...rest } = topology;
  const meant = {
    ...rest,
    temporal: { namespace: temporal.namespace, controlTaskQueue: temporal.controlTaskQueue },
    datacenters: Object.fromEntries(
      Object.entries(datacenters).map(([name, dc]) => [
        name,
        {
          domain: dc.domain,
          taskQueue: dc.taskQueue,
          gateways: Object.keys(dc.gateways).sort(),
          stores: Object.fromEntries(
            Object.entries(dc.stores.mysql).map(([store, { flavour, control }]) => [
              store,
              { flavour, control },
            ]),
          ),
          redis: Object.keys(dc.stores.redis).sort(),
          kafka: Object.keys(dc.stores.kafka).sort(),
          applications: Object.fromEntries(
            Object.entries(dc.applications).map(([application, { id }]) => [application, id]),
          ),
        },
      ]),
    ),
  };
  return sha256(canonicalJson(meant));
}

/**
 * The value of a secret reference. Files lose trailing line ends.
 * @throws InterlockError BadInput that names the reference, never a value.
 */
export function resolveSecret(
  reference: SecretReference,
  env: Readonly<Record<string, string | undefined>> = process.env,
): string {
  if ('env' in reference) {
    const value = env[reference.env];
    if (value === undefined || value === '') {
      throw new InterlockError(
        'BadInput',
        `environment variable ${reference.env} is ${value === '' ? 'empty' : 'not set'}; the topology takes a secret from it`,
        { details: { reference } },
      );
    }
    return value;
  }
  let value: string;
  try {
    value = readFileSync(reference.file, 'utf8').replace(/[\r\n]+$/, '');
  } catch (error) {
    throw new InterlockError(
      'BadInput',
      `secret file ${reference.file} cannot be read: ${messageOf(error)}; the topology takes a secret from it`,
      { cause: error, details: { reference } },
    );
  }
  if (value === '') {
    throw new InterlockError(
      'BadInput',
      `secret file ${reference.file} is empty; the topology takes a secret from it`,
      { details: { reference } },
    );
  }
  return value;
}

function resolveSecretFiles(topology: Topology, directory: string): void {
  const absolute = (reference: SecretReference): void => {
    if ('file' in reference) reference.file = path.resolve(directory, reference.file);
  };
  for (const dc of Object.values(topology.datacenters)) {
    absolute(dc.ruleCenter.token);
    for (const gateway of Object.values(dc.gateways)) absolute(gateway.token);
    const { mysql, redis, kafka } = dc.stores;
    const secrets = [
      ...[...Object.values(mysql), ...Object.values(redis)].map(({ password }) => password),
      ...Object.values(kafka).map(({ sasl }) => sasl?.password),
    ];
    for (const secret of secrets) if (secret !== undefined) absolute(secret);
    for (const { tls } of [mysql, redis, kafka].flatMap((stores) => Object.values<{ tls?: Tls }>(stores))) {
      for (const field of ['ca', 'cert', 'key'] as const) {
        const file = tls?.[field];
        if (file !== undefined) tls![field] = path.resolve(directory, file);
      }
    }
  }
}

function invalid(file: string, problems: Problem[]): InterlockError {
  const lines = problems.map((p) => `  ${p.path}: ${p.value}: ${p.expected}`);
  const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`;
  return new InterlockError('BadInput', `${file} is not valid (${count}):\n${lines.join('\n')}`, {
    details: { file, problems },
  });
}

type Issue = z.core.$ZodIssue;

/** Each problem that zod found, as path, value and expectation. */
export function problemsOf(error: z.ZodError, raw: unknown): Problem[] {
  return error.issues.flatMap((issue) => problemsOfIssue(issue, [], raw));
}

function problemsOfIssue(issue: Issue, prefix: PropertyKey[], raw: unknown): Problem[] {
  const at = [...prefix, ...issue.path];
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({
      path: pathText([...at, key]),
      value: valueText([...at, key], raw),
      expected: 'expected no such key',
    }));
  }
  if (issue.code === 'invalid_key') {
    const inner = issue.issues.map((i) => i.message).join(', ');
    return [{ path: pathText(at), value: JSON.stringify(String(at.at(-1))), expected: `key: ${inner}` }];
  }
  if (issue.code === 'invalid_union') {
    // The alternative whose keys were given, when there is one, says more than "none of these".
    const meant = issue.errors.find(
      (errors) => errors.length > 0 && errors.every((e) => e.path.length > 0 && !missing(e, at, raw)),
    );
    if (meant) return meant.flatMap((inner) => problemsOfIssue(inner, at, raw));
  }
  return [{ path: pathText(at), value: valueText(at, raw), expected: expectation(issue) }];
}

function missing(issue: Issue, at: PropertyKey[], raw: unknown): boolean {
  return valueAt([...at, ...issue.path], raw) === undefined;
}

function expectation(issue: Issue): string {
  return issue.message.replace(/^Invalid input: /, '').replace(/, received .*$/, '');
}

function valueAt(at: PropertyKey[], raw: unknown): unknown {
  let value = raw;
  for (const key of at) {
    if (value === null || typeof value !== 'object' || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<PropertyKey, unknown>)[key];
  }
  return value;
}

function pathText(at: PropertyKey[]): string {
  return at.length === 0 ? '(document)' : at.map(String).join('.');
}

/** A value as shown in an error. A password that somebody typed into the topology must not end up in a log. */
function valueText(at: PropertyKey[], raw: unknown): string {
  const value = valueAt(at, raw);
  if (value === undefined) return '(missing)';
  if (at.some((key) => key === 'password' || key === 'token')) return '(not shown)';
  const text = JSON.stringify(value) ?? typeof value;
  return text.length > 80 ? `${text.slice(0, 77)}…` : text;
}
