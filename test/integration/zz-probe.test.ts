import { it } from 'vitest';
import { startPair } from '../support/replication.js';
it('maria', async () => {
  for (const f of ['mysql', 'mariadb'] as const) {
  const pair = await startPair(f);
  const q = (s: string) => pair.a.pool.query(s).then(r => r[0], e => e.message);
  await q('CREATE DATABASE p');
  await q('CREATE TABLE p.f (id INT PRIMARY KEY, f FLOAT, d DOUBLE)');
  await q('INSERT INTO p.f VALUES (1, -0e0, -0e0), (2, -0.0, -0.0), (3, 0e0*-1, 0e0*-1), (4, -1e-60, 0), (5, CAST(-1e-60 AS FLOAT), 0)');
  console.log(JSON.stringify(await q('SELECT id, CAST(f AS CHAR) f, CAST(d AS CHAR) d, CAST(f AS DOUBLE) fd, CONCAT(f) c, CONCAT(d) cd FROM p.f')));
  await pair.stop();
  }
}, 60000);
