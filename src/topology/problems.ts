/** One problem of a topology: where, what is there, what was expected. */
export interface Problem {
  path: string;
  value: string;
  expected: string;
}

export type Report = (path: string, value: unknown, expected: string) => void;

export function oneOf(record: Readonly<Record<string, unknown>>): string {
  const names = Object.keys(record);
  return names.length === 0 ? 'a declared name; none is declared' : `one of ${names.join(', ')}`;
}
