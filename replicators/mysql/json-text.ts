import { arrayNode, bytesNode, decimalNode, doubleNode, objectNode, timeNode } from './json-node.js';
import type { Node, TimeType } from './json-node.js';

/** A document as MySQL prints it. Leaves are as they stand in the text. */
export type JsonTree =
  | { kind: 'object'; names: string[]; values: JsonTree[] }
  | { kind: 'array'; values: JsonTree[] }
  | { kind: 'leaf'; text: string };

/**
 * Whether the text may be of values that it does not tell: a double or a decimal, a date or a string, bytes or a string. A whole number of up to
 * four digits may be a decimal, too, which is known by what the document takes of storage (see copied-documents.ts): it takes more than an integer.
 * One of more digits may be unsigned, which may take less.
 */
export const MAY_BE_ANOTHER = /\d[.e]|\d{5}|\d-\d\d"|"base64:type\d/i;

/** @param text valid JSON */
export function jsonTree(text: string): JsonTree {
  let at = 0;
  const blank = (): void => {
    while (text[at] === ' ') at++;
  };
  const string = (): string => {
    const from = at++;
    while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
    return text.slice(from, ++at);
  };
  const value = (): JsonTree => {
    blank();
    const first = text[at]!;
    if (first === '"') return { kind: 'leaf', text: string() };
    if (first !== '{' && first !== '[') {
      const from = at;
      while (at < text.length && !', ]}'.includes(text[at]!)) at++;
      return { kind: 'leaf', text: text.slice(from, at) };
    }
    const names: string[] = [];
    const values: JsonTree[] = [];
    for (at++, blank(); text[at] !== '}' && text[at] !== ']'; blank()) {
      if (text[at] === ',') at++;
      blank();
      if (first === '{') {
        names.push(string());
        at++;
      }
      values.push(value());
    }
    at++;
    return first === '{' ? { kind: 'object', names, values } : { kind: 'array', values };
  };
  return value();
}

const NUMBER = /^-?\d/;
const OPAQUE = /^"(?:\d{4}-\d\d-\d\d(?: \d\d:\d\d:\d\d\.\d{6})?|-?\d+:\d\d:\d\d\.\d{6}|base64:type\d+:.*)"$/;

function isAsked(text: string): boolean {
  return NUMBER.test(text) || OPAQUE.test(text);
}

/** Something of a document whose type has to be asked for: of one leaf, or of every element of an array. */
export interface JsonQuestion {
  /** As the server writes paths. */
  path: string;
  elements: boolean;
}

/** In the order of the document. */
export function questionsOf(tree: JsonTree, path = '$'): JsonQuestion[] {
  if (tree.kind === 'leaf') return isAsked(tree.text) ? [{ path, elements: false }] : [];
  const inside = tree.values.flatMap((one, i) =>
    one.kind === 'leaf' && tree.kind === 'array'
      ? []
      : questionsOf(one, tree.kind === 'object' ? `${path}.${tree.names[i]!}` : `${path}[${i}]`),
  );
  const own = tree.kind === 'array' && tree.values.some((one) => one.kind === 'leaf' && isAsked(one.text));
  return own ? [{ path, elements: true }, ...inside] : inside;
}

/** @param answers by path: the type of the leaf, or those of all elements */
export function typedNode(
  tree: JsonTree,
  answers: ReadonlyMap<string, string | readonly string[]>,
  path = '$',
  type = answers.get(path),
): Node {
  if (tree.kind === 'leaf') return leafNode(tree.text, typeof type === 'string' ? type : undefined);
  if (tree.kind === 'object') {
    const names = tree.names.map((name) => JSON.parse(name) as string);
    return objectNode(
      names,
      tree.values.map((one, i) => typedNode(one, answers, `${path}.${tree.names[i]!}`)),
    );
  }
  return arrayNode(
    tree.values.map((one, i) =>
      one.kind === 'leaf'
        ? leafNode(one.text, Array.isArray(type) ? (type[i] as string) : undefined)
        : typedNode(one, answers, `${path}[${i}]`),
    ),
  );
}

function leafNode(text: string, type: string | undefined): Node {
  switch (type) {
    case 'DOUBLE':
      return doubleNode(Number(text));
    case 'DECIMAL': {
      const [, whole, fraction = ''] = /^-?(\d+)(?:\.(\d+))?$/.exec(text)!;
      return decimalNode(text, whole!.length + fraction.length, fraction.length);
    }
    case 'DATE':
    case 'TIME':
    case 'DATETIME':
    case 'TIMESTAMP':
      return timeNode(type satisfies TimeType, text.slice(1, -1));
    case 'BLOB':
    case 'BIT':
    case 'OPAQUE': {
      const [, code, bytes] = /^"base64:type(\d+):(.*)"$/.exec(text)!;
      return bytesNode(Number(code), Buffer.from(bytes!, 'base64'));
    }
    case undefined:
    default:
      return { text };
  }
}
