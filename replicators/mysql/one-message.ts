import type { Statement } from './statements.js';

/** So many statements: above that, what the guards cost is more than a round trip. */
const STATEMENTS = 6;
const BYTES = 16 * 1024;

/**
 * A small transaction as one message, COMMIT with it: a round trip less between the source's commit and the target's. Behind each statement
 * stands a guard, which is an error when the statement did not do what it must have done; the server then runs nothing of the message that
 * follows. Of such an error nothing is to be concluded: the transaction is rolled back and tried in steps.
 * @param head START TRANSACTION and the checkpoint's change of one row, then statements that may change any number
 * @returns undefined: too large, or rows have to be looked at in between
 */
export function oneMessage(head: readonly string[], statements: readonly Statement[]): string[] | undefined {
  // What a check reads is compared here, before the changes may be committed.
  if (statements.length > STATEMENTS || statements.some(({ kind }) => kind === 'check')) return undefined;
  const [start, checkpoint, ...others] = head as [string, string, ...string[]];
  const texts = [start, checkpoint, guard('ROW_COUNT()=1'), ...others];
  for (const statement of statements) {
    texts.push(statement.sql);
    const did = expected(statement);
    if (did !== null) texts.push(guard(did));
  }
  texts.push('COMMIT');
  return texts.reduce((sum, text) => sum + text.length, 0) > BYTES ? undefined : texts;
}

function expected({ kind, affected, mayBeGone }: Statement): string | null {
  // A row that is read here was deleted by others.
  if (kind === 'deleted') return 'FOUND_ROWS()=0';
  // An INSERT writes all of its rows, or is an error.
  if (affected === null || kind === 'insert') return null;
  return mayBeGone === true ? `ROW_COUNT() IN (0,${affected})` : `ROW_COUNT()=${affected}`;
}

/** No such locale, where the condition does not hold. A subquery of two rows would say it, too, at three times the price. Hazard: DO has no errors on MariaDB. */
function guard(condition: string): string {
  return `SET lc_time_names=IF(${condition},'en_US','none')`;
}
