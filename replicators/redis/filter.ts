import type { RedisFilters } from './link-config.js';

/** What of the source's commands is carried, by database, name and key. */
export class CommandFilter {
  private readonly databases: (db: number) => boolean;
  private readonly commands: (name: string) => boolean;
  private readonly keys: ((key: string) => boolean) | null;

  constructor(filters: RedisFilters) {
    this.databases = chosen(filters.includeDatabases, filters.excludeDatabases);
    const names = (list: string[] | undefined): string[] | undefined =>
      list?.map((name) => name.toLowerCase());
    this.commands = chosen(names(filters.includeCommands), names(filters.excludeCommands));
    const include = (filters.includeKeys ?? []).map(globOf);
    const exclude = (filters.excludeKeys ?? []).map(globOf);
    this.keys =
      include.length + exclude.length === 0
        ? null
        : (key) =>
            (include.length === 0 || include.some((glob) => glob.test(key))) &&
            !exclude.some((glob) => glob.test(key));
  }

  get hasKeys(): boolean {
    return this.keys !== null;
  }

  carriesDatabase(db: number): boolean {
    return this.databases(db);
  }

  carriesCommand(name: string): boolean {
    return this.commands(name);
  }

  /** @param key its bytes as latin1 */
  carriesKey(key: string): boolean {
    return this.keys === null || this.keys(key);
  }
}

function chosen<T>(include: readonly T[] = [], exclude: readonly T[] = []): (value: T) => boolean {
  if (include.length + exclude.length === 0) return () => true;
  const [wanted, unwanted] = [new Set(include), new Set(exclude)];
  return (value) => (wanted.size === 0 || wanted.has(value)) && !unwanted.has(value);
}

/** A pattern of KEYS: `*`, `?`, `[a-c]`, `[^x]`, `\` before a character that stands for itself. */
function globOf(pattern: string): RegExp {
  const bytes = Buffer.from(pattern).toString('latin1');
  const source = bytes.replace(
    /\\([^])|\*|\?|\[(\^?)((?:\\[^]|[^\]\\])*)\]|[^]/g,
    (part: string, escaped?: string, not?: string, set?: string) => {
      if (part === '*') return '[^]*';
      if (part === '?') return '[^]';
      if (escaped !== undefined) return literal(escaped);
      if (set !== undefined)
        return set === '' ? (not === '^' ? '[^]' : '(?!)') : `[${not}${set.replace(/[[\]^]/g, '\\$&')}]`;
      return literal(part);
    },
  );
  return new RegExp(`^${source}$`);
}

function literal(character: string): string {
  return /[\\^$.*+?()[\]{}|/-]/.test(character) ? `\\${character}` : character;
}
