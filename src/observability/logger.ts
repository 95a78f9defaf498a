import { pino } from 'pino';
import type { Logger } from 'pino';

export type { Logger } from 'pino';

const LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'];

/**
 * A JSON logger on stderr: stdout is for results. `$INTERLOCK_LOG_LEVEL` sets the level (default info). Every line carries the program
 * and, when given, the data center.
 */
export function createLogger(program: string, dc?: string): Logger {
  const wanted = process.env['INTERLOCK_LOG_LEVEL'] ?? 'info';
  return pino(
    {
      level: LEVELS.includes(wanted) ? wanted : 'info',
      base: { program, ...(dc === undefined ? {} : { dc }), pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      // A token must not reach a log by way of a request that is logged.
      redact: ['headers.authorization', 'req.headers.authorization', 'token', 'password'],
    },
    // Written at once: what a killed process had logged is there.
    pino.destination({ dest: 2, sync: true }),
  );
}

/** Swallows everything: for tests and commands that report in other ways. */
export function silentLogger(): Logger {
  return pino({ level: 'silent' });
}
