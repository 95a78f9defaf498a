import { InterlockError, messageOf } from '../../../src/errors.js';
import { Connection, unavailable } from './connection.js';
import type { Api, KafkaAddress } from './connection.js';
import { findCoordinator, metadata } from './metadata-api.js';
import type { Metadata } from './metadata-api.js';

/**
 * The brokers of a cluster. What it opened is closed by `close`; nothing is mended here: a lost connection fails what was asked on it, and
 * who uses it begins anew.
 */
export class Cluster {
  private readonly connections = new Map<string, Promise<Connection>>();
  private addresses = new Map<number, string>();
  private controller = -1;
  private closed = false;

  constructor(private readonly address: KafkaAddress) {}

  /** @param topics null: all of them */
  async metadata(topics: readonly string[] | null): Promise<Metadata> {
    const connection = await this.any();
    const found = await connection.call(metadata(topics));
    if (found.brokers.size > 0) this.addresses = found.brokers;
    this.controller = found.controller;
    return found;
  }

  /** @param purpose what waits long on one connection must not keep another waiting */
  async broker(node: number, purpose = ''): Promise<Connection> {
    if (!this.addresses.has(node)) await this.metadata([]);
    const at = this.addresses.get(node);
    if (at === undefined) throw unavailable(`broker ${node} is not in the cluster's metadata`);
    return this.open(at, purpose);
  }

  async call<T>(node: number, api: Api<T>, timeoutMs?: number): Promise<T> {
    return (await this.broker(node)).call(api, timeoutMs);
  }

  async onController<T>(api: Api<T>): Promise<T> {
    await this.metadata([]);
    return this.call(this.controller, api);
  }

  async coordinator(of: 'group' | 'transaction', key: string): Promise<number> {
    return (await this.any()).call(findCoordinator(of, key));
  }

  /** Node ids. */
  async nodes(): Promise<number[]> {
    return [...(await this.metadata([])).brokers.keys()];
  }

  private async any(): Promise<Connection> {
    const failures: string[] = [];
    for (const at of new Set([...this.addresses.values(), ...this.address.brokers])) {
      try {
        return await this.open(at, '');
      } catch (error) {
        if (this.closed || (error instanceof InterlockError && !error.retryable)) throw error;
        failures.push(messageOf(error));
      }
    }
    throw unavailable(`no broker answers: ${failures.join('; ')}`);
  }

  private async open(at: string, purpose: string): Promise<Connection> {
    if (this.closed) throw unavailable('the connections to the cluster were closed');
    const key = `${at} ${purpose}`;
    const existing = this.connections.get(key);
    if (existing !== undefined) {
      const connection = await existing;
      if (connection.isOpen) return connection;
      this.forget(key, existing);
      return this.open(at, purpose);
    }
    // Hazard: between a look and this there must be no turn, or two who ask at once open one each, and one stays.
    const opening = Connection.open(at, this.address);
    this.connections.set(key, opening);
    try {
      const connection = await opening;
      // Hazard: one that comes when the cluster was closed would stay.
      if (this.closed) connection.close();
      return connection;
    } catch (error) {
      this.forget(key, opening);
      throw error;
    }
  }

  private forget(key: string, opening: Promise<Connection>): void {
    if (this.connections.get(key) === opening) this.connections.delete(key);
  }

  close(): void {
    this.closed = true;
    for (const opening of this.connections.values()) {
      opening.then(
        (connection) => connection.close(),
        () => undefined,
      );
    }
  }
}
