import { ftruncateSync } from 'node:fs';
import { expect, it } from 'vitest';
import { Spool } from '../../replicators/mysql/spool.js';
import type { SourceTable } from '../../replicators/mysql/source-table.js';

it('says so, and gives no part of it as the whole, when the disk does not give a transaction back', async () => {
  const spool = new Spool();
  spool.append({} as SourceTable, 30, Buffer.alloc(100));
  spool.flush();
  ftruncateSync((spool as unknown as { fd: number }).fd, 50);
  await expect(spool.pieces(1, 1).next()).rejects.toMatchObject({
    code: 'Unavailable',
    retryable: true,
    message: expect.stringContaining('a large transaction cannot be spooled') as string,
  });
  spool.discard();
});
