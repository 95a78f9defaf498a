import { expect, it, vi } from 'vitest';
import type { StreamOptions } from '../../replicators/mysql/stream.js';
import { InterlockError, isInterlockError } from '../../src/errors.js';

/** The target's checkpoint, and what the next take-overs do. */
const target = vi.hoisted(() => ({
  generation: 0,
  takeOvers: [] as ('answered' | 'lost' | 'never' | 'locked')[],
}));
/** Sessions that were opened; how many of them do not answer the preflight, and how many were closed. */
const sessions = vi.hoisted(() => ({ opened: 0, silent: 0, closed: 0 }));

vi.mock('../../replicators/mysql/session.js', async (importOriginal) => {
  const connect = (): Promise<unknown> => {
    sessions.opened += 1;
    return Promise.resolve({
      query: () => Promise.resolve([[{ purged: '' }]]),
      on: () => undefined,
      destroy: () => (sessions.closed += 1),
    });
  };
  return {
    ...(await importOriginal<object>()),
    connect,
    connectTarget: connect,
    takeLock: () => Promise.resolve(),
    serverIdentity: () => Promise.resolve('server'),
    executedPosition: () => Promise.resolve(''),
    collationCharsets: () => Promise.resolve(new Map()),
  };
});
vi.mock('../../replicators/mysql/initialise.js', () => ({
  keepTombstones: () => Promise.resolve(),
  preflightLink: () => (sessions.silent-- > 0 ? new Promise(() => undefined) : Promise.resolve()),
}));
vi.mock('../../replicators/mysql/records.js', () => ({
  openCounts: () => Promise.resolve({ conflicts: 0, quarantined: 0 }),
  readSetAside: () => Promise.resolve(new Map()),
}));
vi.mock('../../replicators/mysql/overtaken.js', () => ({
  Overtaken: class {
    readonly read = (): Promise<void> => Promise.resolve();
    readonly clear = (): void => undefined;
    readonly concern = (): boolean => false;
  },
}));
vi.mock('../../replicators/mysql/ddl-steps.js', async (importOriginal) => ({
  ...(await importOriginal<object>()),
  readDefinitions: () =>
    Promise.resolve({
      ...{ source: new Map(), target: new Map(), problems: [], apart: [] },
      steps: { dropped: new Map(), changing: new Map(), version: '' },
    }),
}));
vi.mock('../../replicators/mysql/catalog.js', () => ({ readCatalog: () => Promise.resolve(new Map()) }));
vi.mock('../../replicators/mysql/checkpoint.js', () => {
  const read = (): object => ({
    generation: target.generation,
    position: '',
    sourceServer: 'server',
    marker: null,
    seq: 0,
  });
  return {
    checkpointAgeMs: () => Promise.resolve(0),
    readCheckpoint: () => Promise.resolve(read()),
    readLinkUnits: () => Promise.resolve([]),
    takeGeneration: () => {
      const what = target.takeOvers.shift();
      if (what === 'locked')
        return Promise.reject(Object.assign(new Error('Lock wait timeout exceeded'), { errno: 1205 }));
      if (what !== 'never') target.generation += 1;
      return what === 'answered'
        ? Promise.resolve(read())
        : Promise.reject(Object.assign(new Error('connection lost'), { fatal: true }));
    },
  };
});
vi.mock('../../replicators/mysql/copy-plan.js', () => ({
  copyProgress: () => Promise.resolve(null),
  unfinished: () => Promise.resolve([]),
}));
vi.mock('../../replicators/mysql/stream.js', () => ({
  /** A stream that is lost at once. */
  BinlogStream: class {
    readonly reading = { readTo: null };
    constructor(private readonly options: StreamOptions) {}
    start(): Promise<void> {
      this.options.onError(new InterlockError('Unavailable', 'source: gone', { retryable: true }));
      return Promise.resolve();
    }
    stop(): void {}
  },
}));

const { Link } = await import('../../replicators/mysql/link.js');

async function run(
  takeOvers: typeof target.takeOvers,
  onError: (message: string) => void = () => undefined,
): Promise<unknown> {
  target.generation = 7;
  target.takeOvers = takeOvers;
  const server = { host: '127.0.0.1', port: 1, user: 'u', password: '', flavour: 'mysql' } as const;
  const link = new Link(
    {
      link: 'mysql/main:dc-a>dc-b',
      from: 'dc-a',
      to: 'dc-b',
      source: server,
      target: server,
      include: [],
      exclude: [],
      tables: {},
      mapping: { defaultRegion: 'cn-east', regions: ['cn-east'], segments: {} },
      ...{ conflicts: {}, onQuarantine: 'stop', winsTies: true },
    },
    {
      onStatus: ({ lastError }) => lastError !== null && onError(lastError.message),
      onMarker: () => undefined,
    },
    () => undefined,
  );
  return link.run(AbortSignal.timeout(10_000)).catch((error: unknown) => error);
}

it('a take-over whose answer was lost ends the run, for a new one to take the link over', async () => {
  const error = await run(['answered', 'lost', 'answered']);
  expect(isInterlockError(error, 'Unavailable')).toBe(true);
  expect((error as InterlockError).retryable).toBe(true);
  expect(target).toEqual({ generation: 9, takeOvers: ['answered'] });
});

it('a take-over that did not reach the target is made again', async () => {
  const error = await run(['answered', 'never', 'answered', 'lost']);
  expect((error as InterlockError).message).toContain('answer to its take-over was lost');
  expect(target).toEqual({ generation: 10, takeOvers: [] });
});

it('a take-over that waits in vain for what the last attempt had open is made again', async () => {
  const error = await run(['locked', 'answered', 'never', 'lost']);
  expect((error as InterlockError).message).toContain('answer to its take-over was lost');
  expect(target).toEqual({ generation: 9, takeOvers: [] });
});

it('a server that stops answering while the link starts is given up, its sessions closed, and asked again', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval'] });
  try {
    Object.assign(sessions, { opened: 0, silent: 1, closed: 0 });
    const errors = new Set<string>();
    const ended = run(['answered', 'lost'], (message) => errors.add(message));
    await vi.advanceTimersByTimeAsync(59_000);
    expect(sessions).toMatchObject({ opened: 2, closed: 0 });
    await vi.advanceTimersByTimeAsync(10_000);
    expect([...errors]).toContain('a server has not answered in 60000 ms while the link starts');
    // The second attempt streams; of the third the target's answer is lost, which ends the run.
    expect((await ended) as InterlockError).toMatchObject({ code: 'Unavailable', retryable: true });
    expect(sessions.closed).toBe(sessions.opened);
  } finally {
    vi.useRealTimers();
  }
});
