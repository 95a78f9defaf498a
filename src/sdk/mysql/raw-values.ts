import { InterlockError } from '../../errors.js';

/** Hazard: a value with `toSqlString()` is put into the text as it is, behind the look that was taken at the statement. */
export function refuseRawValues(values: unknown): void {
  if (!hasRawValue(values, 0)) return;
  throw new InterlockError(
    'StatementRefused',
    'a value with toSqlString() (mysql.raw) may hide a statement; write it into the SQL text',
  );
}

function hasRawValue(values: unknown, depth: number): boolean {
  if (values === null || typeof values !== 'object' || ArrayBuffer.isView(values)) return false;
  if (Array.isArray(values)) {
    for (const value of values) {
      if (value !== null && typeof value === 'object' && hasRawValue(value, depth + 1)) return true;
    }
    return false;
  }
  if (typeof (values as { toSqlString?: unknown }).toSqlString === 'function') return true;
  return depth <= 2 && Object.values(values).some((value) => hasRawValue(value, depth + 1));
}
