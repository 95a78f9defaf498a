import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { initialiseLink } from '../../replicators/mysql/initialise.js';
import { startProgram } from '../support/programs.js';
import type { Program } from '../support/programs.js';
import { createOnBoth, dump, linkConfig, startPair, until, writeMarker } from '../support/replication.js';
import type { Pair } from '../support/replication.js';

const LINKS = 50;
const MOST_MB = 700;

let pair: Pair;
let directory: string;
let program: Program | undefined;
beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'interlock-many-'));
  pair = await startPair('mysql');
});
afterAll(async () => {
  await program?.kill('SIGKILL');
  await pair?.stop();
  await rm(directory, { recursive: true, force: true });
});

async function residentMb(pid: number, what: 'VmRSS' | 'VmHWM'): Promise<number> {
  const found = new RegExp(`^${what}:\\s+(\\d+) kB$`, 'm').exec(
    await readFile(`/proc/${pid}/status`, 'utf8'),
  );
  return Math.round(Number(found![1]) / 1024);
}

it(`one worker holds ${LINKS} links in ${MOST_MB} MB`, async () => {
  const schemas = Array.from({ length: LINKS }, (_, i) => `t_many_${i}`);
  await createOnBoth(
    pair,
    schemas.flatMap((schema) => [
      `CREATE DATABASE ${schema}`,
      `CREATE TABLE ${schema}.item (id INT PRIMARY KEY AUTO_INCREMENT, body VARCHAR(2000))`,
    ]),
  );
  const files: string[] = [];
  for (const schema of schemas) {
    const config = linkConfig(pair, 'a', schema, { [`${schema}.item`]: { unrouted: true } });
    await initialiseLink(config, { from: 'now' });
    const file = path.join(directory, `${schema}.json`);
    await writeFile(file, JSON.stringify(config));
    files.push(file);
  }
  program = startProgram('test/support/link-process.js', files);
  const all = (line: RegExp): Promise<void> =>
    until(
      () => (program!.output().match(line) ?? []).length >= LINKS,
      `${line} of each link`,
      120_000,
      () => program!.output().slice(-2000),
    );
  await all(/^state streaming/gm);
  const pid = program.child.pid!;
  const idleMb = await residentMb(pid, 'VmRSS');
  for (const schema of schemas) {
    await pair.a.pool.query(`INSERT INTO ${schema}.item (body) VALUES (REPEAT('x', 2000)), ('y')`);
  }
  const marker = await writeMarker(pair.a);
  await all(new RegExp(`^marker ${marker}$`, 'gm'));
  for (const schema of schemas)
    expect(await dump(pair.b, `${schema}.item`)).toEqual(await dump(pair.a, `${schema}.item`));
  const peakMb = await residentMb(pid, 'VmHWM');
  console.log(`${LINKS} links: ${idleMb} MB idle, ${peakMb} MB at most`);
  expect(peakMb).toBeLessThan(MOST_MB);
});
