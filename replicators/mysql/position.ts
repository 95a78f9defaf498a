import { comparePositions } from '../core/position.js';
import type { Comparison } from '../core/position.js';
import { InterlockError } from '../../src/errors.js';
import { GtidSet } from './gtid-set.js';
import { MariadbPosition } from './mariadb-position.js';
import type { SourceTransaction } from './transaction.js';

export type Flavour = 'mysql' | 'mariadb';
export type MysqlPosition = GtidSet | MariadbPosition;

/** @throws InterlockError BadInput when `text` is no position of the flavour. */
export function parsePosition(flavour: Flavour, text: string): MysqlPosition {
  return flavour === 'mysql' ? GtidSet.parse(text) : MariadbPosition.parse(text);
}

/** `position` becomes that behind the transaction. */
export function pass(
  position: MysqlPosition,
  { gtid, preparedGtid, preparedBehind }: SourceTransaction,
): void {
  if (preparedBehind !== null && position instanceof MariadbPosition) {
    position.leaveOut(gtid, preparedBehind);
    return;
  }
  position.add(gtid);
  if (preparedGtid !== null) position.add(preparedGtid);
}

/** Whether `a` has everything of `b`. @throws InterlockError Internal when the two are of different kinds. */
export function contains(a: MysqlPosition, b: MysqlPosition): boolean {
  if (a instanceof GtidSet && b instanceof GtidSet) return a.contains(b);
  if (a instanceof MariadbPosition && b instanceof MariadbPosition) return a.contains(b);
  throw new InterlockError('Internal', `positions of different kinds: ${a.toString()} and ${b.toString()}`);
}

export function compare(a: MysqlPosition, b: MysqlPosition): Comparison {
  if (a instanceof GtidSet && b instanceof GtidSet) return comparePositions(a, b);
  if (a instanceof MariadbPosition && b instanceof MariadbPosition) return comparePositions(a, b);
  return 'incomparable';
}
