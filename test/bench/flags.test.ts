import { afterEach, describe, expect, it, vi } from 'vitest';
import { benchFlags } from './flags.js';

const { argv } = process;

/** What it prints, and the exit code it ends with. */
function called(...args: string[]): { said: string; code: number | undefined } {
  process.argv = ['node', 'bench', ...args];
  let said = '';
  let code: number | undefined;
  const say = (text: string | Uint8Array): boolean => ((said += String(text)), true);
  vi.spyOn(process.stdout, 'write').mockImplementation(say);
  vi.spyOn(process.stderr, 'write').mockImplementation(say);
  vi.spyOn(process, 'exit').mockImplementation((end) => {
    code = Number(end);
    throw new Error('exit');
  });
  const flags = { json: { type: 'boolean' as const }, rows: { type: 'string' as const, default: '7' } };
  expect(() => benchFlags('mysql', { ...flags, only: { type: 'string' } }, ['one work', 'another'])).toThrow(
    'exit',
  );
  return { said, code };
}

describe('the flags of a benchmark', () => {
  afterEach(() => {
    process.argv = argv;
    vi.restoreAllMocks();
  });

  it.each(['--help', '-h'])('%s names the flags and the works', (flag) => {
    expect(called('--json', flag)).toEqual({
      said: [
        'usage: npm run bench -- mysql [flags]',
        ...['flags:', '  --json', '  --rows VALUE (7)', '  --only WORK'],
        ...['works:', '  one work', '  another', ''],
      ].join('\n'),
      code: 0,
    });
  });

  it('another flag ends it with one line', () => {
    const { said, code } = called('--wrong');
    expect(said).toMatch(/^bench: Unknown option '--wrong'.*\n$/);
    expect(code).toBe(2);
  });
});
