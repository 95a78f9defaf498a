import { Client, Connection } from '@temporalio/client';
import { InterlockError, messageOf } from '../errors.js';
import type { Topology } from '../topology/schema.js';

const CONNECT_TIMEOUT_MS = 5_000;

/**
 * Runs `action` with a client of the topology's Temporal. Errors: Unavailable, naming the address and what works without it;
 * otherwise those of `action`.
 */
export async function withTemporal<T>(
  topology: Topology,
  action: (client: Client) => Promise<T>,
): Promise<T> {
  const { address, namespace } = topology.temporal;
  let connection: Connection;
  try {
    connection = await Connection.connect({ address, connectTimeout: CONNECT_TIMEOUT_MS });
  } catch (error) {
    throw temporalDown(address, error);
  }
  try {
    return await action(new Client({ connection, namespace }));
  } catch (error) {
    // gRPC UNAVAILABLE: it went away in the middle.
    if ((error as { code?: unknown }).code === 14) throw temporalDown(address, error);
    throw error;
  } finally {
    await connection.close();
  }
}

function temporalDown(address: string, cause: unknown): InterlockError {
  return new InterlockError(
    'Unavailable',
    `Temporal at ${address} does not answer (${messageOf(cause)}). Start it (lab: \`interlock lab up\`) and try again; ` +
      'running switchovers go on by themselves when it is back. Without Temporal, `interlock fence status` and `interlock fence release` work.',
    { cause, details: { what: `Temporal at ${address}` } },
  );
}
