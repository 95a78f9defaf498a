import type { MysqlStore } from '../topology/schema.js';

export type Flavour = MysqlStore['flavour'];

/** An SQL expression for the identity of a server: another value means that it may not know what was fenced. */
export function identityExpression(flavour: Flavour): string {
  return flavour === 'mysql' ? '@@global.server_uuid' : '@@global.server_uid';
}

/** An SQL expression for everything that this server has committed to its binlog. */
export function positionExpression(flavour: Flavour): string {
  return flavour === 'mysql' ? '@@global.gtid_executed' : '@@global.gtid_binlog_pos';
}
