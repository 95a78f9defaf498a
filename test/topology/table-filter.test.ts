import { expect, it } from 'vitest';
import { TableFilter } from '../../src/topology/table-filter.js';

it('carries by patterns, never the control schema or system schemas', () => {
  const filter = new TableFilter(['shop.*', 'crm.user'], ['shop.tmp_*']);
  expect(filter.carries('shop', 'order')).toBe(true);
  expect(filter.carries('shop', 'tmp_1')).toBe(false);
  expect(filter.carries('crm', 'user')).toBe(true);
  expect(filter.carries('crm', 'users')).toBe(false);
  // The dot is a dot.
  expect(filter.carries('shopx', 'order')).toBe(false);
  const all = new TableFilter(['*.*'], []);
  expect(all.carries('shop', 'order')).toBe(true);
  for (const schema of ['interlock', 'mysql', 'sys', 'performance_schema', 'information_schema', 'MySQL']) {
    expect(all.carries(schema, 'unit_state')).toBe(false);
  }
});
