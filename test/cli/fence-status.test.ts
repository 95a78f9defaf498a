import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { interlock, silentTopology } from './command-line.js';

let topology: Awaited<ReturnType<typeof silentTopology>>;
beforeAll(async () => {
  topology = await silentTopology();
  vi.stubEnv('MYSQL_PASSWORD', 'secret');
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await topology.remove();
});

test('no store answers: says what is unreachable and what to do', async () => {
  const { exitCode, stdout } = await interlock('fence', 'status', '--topology', topology.file);
  expect(exitCode).toBe(3);
  expect(stdout).toContain("dc-a: mysql/main can't be reached, so nothing is known about its units.");
  expect(stdout).toContain("dc-b: mysql/main can't be reached");
  expect(stdout).toContain('Check that these servers run');
  expect(stdout).not.toContain('Nothing is write-disabled');
});

test('the same as a document', async () => {
  const { exitCode, stdout } = await interlock('fence', 'status', '--topology', topology.file, '--json');
  expect(exitCode).toBe(3);
  expect(JSON.parse(stdout)).toMatchObject({
    unreachable: ['dc-a', 'dc-b'],
    problems: [
      expect.stringContaining('dc-a'),
      expect.stringContaining('dc-b'),
      expect.stringContaining('Check'),
    ],
  });
});
