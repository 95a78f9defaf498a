import { describe, expect, test } from 'vitest';
import { OwnershipAudit, openedTwice } from '../../infra/demo/checker/ownership-audit.js';
import type { Row, RowChange } from '../../infra/demo/checker/binlog-stream.js';
import { bucketOf } from '../../src/routing/units.js';

const ADDRESS = { host: '127.0.0.1', port: 1, user: 'u', password: 'p' };
const UNIT = `cn-east/${bucketOf('u1')}`;

function audit(dc = 'dc-a'): { audit: OwnershipAudit; commit: (...changes: RowChange[]) => void } {
  const one = new OwnershipAudit(dc, ADDRESS);
  let offset = 0;
  return {
    audit: one,
    commit: (...changes) =>
      one.take({ at: { file: 'binlog.000001', offset: ++offset }, gtid: null, changes }),
  };
}

const unit = (state: string, owner: string, epoch: number): RowChange => ({
  ...{ schema: 'interlock', table: 'unit_state', before: null },
  after: { unit: UNIT, state, owner, epoch },
});
const byLink: RowChange = {
  ...{ schema: 'interlock', table: 'link_checkpoint', before: null },
  after: { link: 'mysql/main:dc-b>dc-a' },
};
const entry = (dc: string, epoch: number, more: Row = {}): RowChange => ({
  ...{ schema: 'shop', table: 'wallet_entry', before: null },
  after: { id: 1, request_id: 'r1', region: 'cn-east', user_id: 'u1', dc, unit: UNIT, epoch, ...more },
});

describe('ownership at the binlog position of a row', () => {
  test('a row between its epoch’s open and fence is sound', () => {
    const { audit: one, commit } = audit();
    commit(unit('open', 'dc-a', 1));
    commit(entry('dc-a', 1));
    commit(unit('write_disabled', 'dc-a', 2));
    commit(unit('open', 'dc-a', 3));
    commit(entry('dc-a', 3));
    expect(one.findings).toEqual([]);
    expect(one.localRows).toBe(2);
  });

  test.each<[string, RowChange[]]>([
    ['before any state', [entry('dc-a', 1)]],
    ['behind the fence', [unit('open', 'dc-a', 1), unit('write_disabled', 'dc-a', 2), entry('dc-a', 1)]],
    [
      'with the fence’s epoch',
      [unit('open', 'dc-a', 1), unit('write_disabled', 'dc-a', 2), entry('dc-a', 2)],
    ],
    ['after the hand-over', [unit('open', 'dc-a', 1), unit('remote', 'dc-b', 3), entry('dc-a', 1)]],
    ['with an old epoch after a re-opening', [unit('open', 'dc-a', 3), entry('dc-a', 1)]],
  ])('a row %s is a second writer', (_name, changes) => {
    const { audit: one, commit } = audit();
    for (const change of changes) commit(change);
    expect(one.findings.map((finding) => finding.kind)).toEqual(['dual-owner']);
    expect(one.findings[0]!.message).toContain('request r1');
  });

  test('a link’s rows are not the application’s', () => {
    const { audit: one, commit } = audit();
    commit(unit('remote', 'dc-b', 1));
    commit(byLink, entry('dc-b', 1));
    expect(one.findings).toEqual([]);
    expect([one.localRows, one.replicatedRows]).toEqual([0, 1]);
  });

  test('a link’s row that arrives after its unit was opened here came late', () => {
    const { audit: one, commit } = audit();
    commit(unit('remote', 'dc-b', 1));
    commit(unit('open', 'dc-a', 3));
    commit(byLink, entry('dc-b', 1));
    expect(one.findings.map((finding) => finding.kind)).toEqual(['late']);
  });

  test('a change that was made here and comes back is a loop', () => {
    const { audit: one, commit } = audit();
    commit(unit('open', 'dc-a', 1));
    commit(byLink, entry('dc-a', 1));
    expect(one.findings.map((finding) => finding.kind)).toEqual(['loop']);
  });

  test('a row whose unit is not its key’s is malformed', () => {
    const { audit: one, commit } = audit();
    commit(unit('open', 'dc-a', 1));
    commit(entry('dc-a', 1, { unit: 'cn-east/1' }));
    expect(one.findings.map((finding) => finding.kind)).toEqual(['malformed']);
  });

  test('a deletion by a link or an application is malformed', () => {
    const { audit: one, commit } = audit();
    const deletion: RowChange = { ...entry('dc-b', 1), before: entry('dc-b', 1).after, after: null };
    commit(deletion);
    commit(byLink, deletion);
    expect(one.findings.map((finding) => finding.kind)).toEqual(['malformed', 'malformed']);
  });

  test('one epoch opened in two data centers is seen', () => {
    const a = audit('dc-a');
    const b = audit('dc-b');
    a.commit(unit('open', 'dc-a', 1));
    b.commit(unit('open', 'dc-b', 3));
    expect(openedTwice(a.audit, b.audit)).toEqual([]);
    b.commit(unit('open', 'dc-b', 1));
    expect(openedTwice(a.audit, b.audit)).toEqual([`${UNIT} 1`]);
  });
});
