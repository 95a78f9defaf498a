import { execFile, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { labDown, labInfo, labKill, labStart, labUp } from '../../infra/lab/lab.js';
import type { LabInfo } from '../../infra/lab/lab.js';
import { identify } from '../../infra/processes.js';
import { compiled } from '../../infra/project.js';

const run = promisify(execFile);

/** Every process whose working directory is in the lab: pid → part. */
function processesOf(directory: string): Map<number, string> {
  const found = new Map<number, string>();
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const cwd = readlinkSync(`/proc/${entry}/cwd`);
      const [part] = path.relative(path.join(directory, 'parts'), cwd).split(path.sep);
      if (cwd.startsWith(`${directory}/parts/`) && part !== undefined) found.set(Number(entry), part);
    } catch {
      // It ended.
    }
  }
  return found;
}

/** Parts that have more than one process group: a second server that nobody knows. */
function doubledParts(directory: string): string[] {
  const groups = new Map<string, Set<string>>();
  for (const [pid, part] of processesOf(directory)) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const group = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[2]!;
      groups.set(part, (groups.get(part) ?? new Set()).add(group));
    } catch {
      // It ended.
    }
  }
  return [...groups].filter(([, ids]) => ids.size > 1).map(([part]) => part);
}

function statuses(info: LabInfo | null): Record<string, string> {
  return Object.fromEntries(info!.parts.map((part) => [part.name, part.status]));
}

function pids(info: LabInfo | null): Record<string, number | null> {
  return Object.fromEntries(info!.parts.map((part) => [part.name, part.pid]));
}

async function cli(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  try {
    const { stdout, stderr } = await run(process.execPath, [
      compiled('src', 'cli', 'main.js'),
      'lab',
      ...args,
    ]);
    return { code: 0, stdout, stderr };
  } catch (error) {
    const failed = error as { code: number; stdout: string; stderr: string };
    return { code: failed.code, stdout: failed.stdout, stderr: failed.stderr };
  }
}

describe('a lab', () => {
  const directory = path.join(mkdtempSync(path.join(tmpdir(), 'interlock-lab-')), 'lab');
  let lab: LabInfo;

  beforeAll(async () => {
    lab = await labUp({ directory });
  });
  afterAll(async () => {
    await labDown({ directory, wipe: true });
    rmSync(path.dirname(directory), { recursive: true, force: true });
  });

  test('runs every part, and says so', async () => {
    expect(new Set(Object.values(statuses(lab)))).toEqual(new Set(['running']));
    expect(Object.keys(statuses(lab)).sort()).toEqual(
      [
        'temporal',
        ...['dc-a', 'dc-b'].flatMap((dc) =>
          ['gateway-1', 'mysql-main', 'redis-cache', 'rule-center', 'worker'].map((part) => `${dc}-${part}`),
        ),
      ].sort(),
    );
    const { code, stdout } = await cli('status', '--state', directory, '--json');
    expect(code).toBe(0);
    expect(pids(JSON.parse(stdout) as LabInfo)).toEqual(pids(lab));
  });

  test('gives every gateway its rules before it says that it is up', async () => {
    for (const dc of ['dc-a', 'dc-b']) {
      const response = await fetch(`http://127.0.0.1:${lab.ports[`${dc}.rule-center`]}/v1/gateways`);
      const text = await response.text();
      expect(response.status, text).toBe(200);
      expect(text).toContain('"epoch":1');
    }
  });

  test('keeps its secrets to its user', () => {
    expect(readdirSync(path.join(directory, 'secrets')).length).toBeGreaterThan(3);
    expect(readFileSync(lab.topology, 'utf8')).not.toContain(lab.env['INTERLOCK_LAB_MYSQL_PASSWORD']);
  });

  test('`up` on a running lab starts nothing', async () => {
    expect(pids(await labUp({ directory }))).toEqual(pids(lab));
  });

  test('will not become another lab while it has data', async () => {
    await expect(labUp({ directory, shape: { mysql: 'mariadb' } })).rejects.toMatchObject({
      code: 'BadInput',
      message: expect.stringContaining('lab down --wipe') as string,
    });
    await expect(labUp({ directory, shape: { rttMs: 10 } })).rejects.toMatchObject({
      code: 'Refused',
      message: expect.stringContaining('lab down') as string,
    });
    expect(pids(labInfo(directory))).toEqual(pids(lab));
  });

  test('a rule center starts, and serves its rules, while its store is down', async () => {
    await labKill('dc-b-mysql-main', { directory });
    await labKill('dc-b-rule-center', { directory });
    await labStart('dc-b-rule-center', { directory });
    const answer = await fetch(`http://127.0.0.1:${lab.ports['dc-b.rule-center']}/v1/rules`);
    const { rules } = (await answer.json()) as { rules: { epoch: number } };
    expect(rules.epoch).toBe(1);
    await labStart('dc-b-mysql-main', { directory });
  });

  test('a killed part is seen, and started again with its data', async () => {
    const before = await rulesOf(lab);
    await labKill('dc-a-mysql-main', { directory });
    const status = await cli('status', '--state', directory);
    expect(status.code).toBe(1);
    expect(status.stdout).toMatch(/dc-a-mysql-main .* stopped/);
    await labStart('dc-a-mysql-main', { directory });
    expect(statuses(labInfo(directory))['dc-a-mysql-main']).toBe('running');
    expect(await rulesOf(lab)).toEqual(before);
  });

  test('a gateway whose master was killed leaves workers: they are seen, and ended by the next start', async () => {
    process.kill(pids(labInfo(directory))['dc-b-gateway-1']!, 'SIGKILL');
    await expect.poll(() => statuses(labInfo(directory))['dc-b-gateway-1']).toBe('orphans');
    await labStart('dc-b-gateway-1', { directory });
    expect(doubledParts(directory)).toEqual([]);
  });

  test('a paused part is shown as paused', async () => {
    await labKill('dc-b-worker', { directory, signal: 'SIGSTOP' });
    expect(statuses(labInfo(directory))['dc-b-worker']).toBe('paused');
    await labKill('dc-b-worker', { directory, signal: 'SIGCONT' });
    expect(statuses(labInfo(directory))['dc-b-worker']).toBe('running');
  });

  test('bad input is exit code 2 and names what was expected', async () => {
    for (const [args, words] of [
      [['kill', 'mysql'], 'dc-a-mysql-main'],
      [['kill', 'temporal', '--signal', 'KILL'], 'SIGKILL'],
      [['up', '--mysql', 'oracle'], 'mysql or mariadb'],
      [['up', '--rtt', '10'], '10s'],
      [['up', '--stores', '0'], '--stores'],
      [['up', '--port-base', '80'], '--port-base'],
      [['up', '--sores', '1'], '--sores'],
    ] as const) {
      const { code, stderr } = await cli(...args, '--state', directory);
      expect({ args, code, stderr }).toMatchObject({
        code: 2,
        stderr: expect.stringContaining(words) as string,
      });
    }
    expect(new Set(Object.values(statuses(labInfo(directory))))).toEqual(new Set(['running']));
  });

  test('`down` leaves no process; `up` names who has taken a port meanwhile; addresses and data stay', async () => {
    const before = await rulesOf(lab);
    await labDown({ directory });
    expect([...processesOf(directory).values()]).toEqual([]);
    const thief = createServer();
    const port = lab.ports['dc-a.mysql.main']!;
    await new Promise<void>((resolve) => thief.listen(port, '127.0.0.1', resolve));
    try {
      await expect(labUp({ directory })).rejects.toMatchObject({
        code: 'Refused',
        message: expect.stringMatching(
          new RegExp(`dc-a-mysql-main: port ${port} .* in use by pid ${process.pid} .*--port-base`),
        ) as string,
      });
    } finally {
      await new Promise((resolve) => thief.close(resolve));
    }
    const again = await labUp({ directory });
    expect(again.ports).toEqual(lab.ports);
    expect(await rulesOf(again)).toEqual(before);
    expect(doubledParts(directory)).toEqual([]);
  });

  test('`down --wipe` forgets all of it', async () => {
    await labDown({ directory, wipe: true });
    expect([...processesOf(directory).values()]).toEqual([]);
    expect(existsSync(directory)).toBe(false);
    expect(labInfo(directory)).toBeNull();
    expect((await cli('status', '--state', directory)).stderr).toContain('interlock lab up');
  });
});

describe('a killed `lab up`', () => {
  const directory = path.join(mkdtempSync(path.join(tmpdir(), 'interlock-lab-')), 'lab');
  afterAll(async () => {
    await labDown({ directory, wipe: true });
    rmSync(path.dirname(directory), { recursive: true, force: true });
  });

  test('is repaired by the next one, wherever it was', { timeout: 300_000 }, async () => {
    // Killed when the first part runs, when all servers do, and when the programs start.
    for (const part of ['temporal', 'dc-b-mysql-main', 'dc-a-rule-center']) {
      const up = spawn(process.execPath, [
        compiled('src', 'cli', 'main.js'),
        'lab',
        'up',
        '--state',
        directory,
      ]);
      const ended = new Promise((resolve) => up.once('exit', resolve));
      const begun = path.join(directory, 'parts', part, 'process');
      while (!existsSync(begun) && up.exitCode === null) await sleep(2);
      up.kill('SIGKILL');
      await ended;
    }
    const lab = await labUp({ directory });
    expect(new Set(Object.values(statuses(lab)))).toEqual(new Set(['running']));
    expect(doubledParts(directory)).toEqual([]);
  });

  test('leaves nothing that `down` does not end, even without the lab’s state', async () => {
    expect(processesOf(directory).size).toBeGreaterThan(8);
    rmSync(path.join(directory, 'state.json'));
    await labDown({ directory });
    expect([...processesOf(directory).values()]).toEqual([]);
  });

  test('and two at once: the second is refused, and names the first', async () => {
    const own = identify(process.pid)!;
    mkdirSync(directory, { recursive: true });
    writeFileSync(path.join(directory, 'lock'), JSON.stringify(own));
    await expect(labUp({ directory })).rejects.toMatchObject({
      code: 'Refused',
      message: expect.stringContaining(`pid ${process.pid}`) as string,
    });
    rmSync(path.join(directory, 'lock'));
  });

  test('a pid that now is somebody else’s is left alone', async () => {
    const stranger = spawn('sleep', ['60']);
    try {
      const identity = identify(stranger.pid!)!;
      const noted = readFileSync(`/proc/${stranger.pid}/stat`, 'utf8').trim().split(' ');
      // The same pid, started at another time.
      noted[21] = String(Number(identity.startTicks) - 1);
      mkdirSync(path.join(directory, 'parts', 'temporal'), { recursive: true });
      writeFileSync(
        path.join(directory, 'parts', 'temporal', 'process'),
        `${noted.join(' ')}\n${identity.boot}\n`,
      );
      await labDown({ directory });
      expect(stranger.exitCode).toBeNull();
      expect(stranger.signalCode).toBeNull();
      expect(identify(stranger.pid!)).toEqual(identity);
    } finally {
      stranger.kill('SIGKILL');
    }
  });
});

async function rulesOf(lab: LabInfo): Promise<unknown> {
  const response = await fetch(`http://127.0.0.1:${lab.ports['dc-a.rule-center']}/v1/rules`);
  return response.json();
}
