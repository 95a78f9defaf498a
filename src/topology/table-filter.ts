const SYSTEM = new Set(['mysql', 'information_schema', 'performance_schema', 'sys', 'interlock']);

/** Which tables a link carries: `schema.table` patterns with `*`. The control schema and system schemas never are. */
export class TableFilter {
  private readonly include: RegExp[];
  private readonly exclude: RegExp[];

  constructor(include: readonly string[], exclude: readonly string[]) {
    this.include = include.map(toRegExp);
    this.exclude = exclude.map(toRegExp);
  }

  /** @param name `schema.table` */
  has(name: string): boolean {
    const dot = name.indexOf('.');
    return this.carries(name.slice(0, dot), name.slice(dot + 1));
  }

  carries(schema: string, table: string): boolean {
    if (SYSTEM.has(schema.toLowerCase())) return false;
    const name = `${schema}.${table}`;
    return this.include.some((r) => r.test(name)) && !this.exclude.some((r) => r.test(name));
  }

  /** Whether tables of the schema can be carried at all. */
  mayCarry(schema: string): boolean {
    return !SYSTEM.has(schema.toLowerCase());
  }
}

function toRegExp(pattern: string): RegExp {
  const escaped = pattern.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replace(/\*/g, '.*');
  return new RegExp(`^${escaped}$`);
}
