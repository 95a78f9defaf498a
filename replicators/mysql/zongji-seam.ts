import type ZongJi from '@vlasky/zongji';

/**
 * What the stream uses of zongji and of mysql2 beyond their public types: the packet entry of the binlog connection
 * (which zongji itself replaces for compressed connections) and pause/resume. Pinned versions; the integration tests
 * of the stream fail when one of these changes.
 */
export interface BinlogPacket {
  buffer: Buffer;
  /** First byte of the payload. */
  offset: number;
  end: number;
  numPackets: number;
}

export interface BinlogConnection {
  handlePacket: (packet?: BinlogPacket) => void;
  _bumpSequenceId: (packets: number) => void;
  _paused: boolean;
  pause: () => void;
  resume: () => void;
  query: (sql: string) => void;
  stream: NodeJS.EventEmitter;
}

export function seam(zongji: ZongJi): { connection: BinlogConnection; useChecksum: boolean } {
  return zongji as unknown as { connection: BinlogConnection; useChecksum: boolean };
}

/** The events that the stream reads from zongji, as far as it uses them. */
export interface AnyBinlogEvent {
  getTypeName: () => string;
  timestamp: number;
  gtid?: string;
  query?: string;
  schema?: string;
  standalone?: boolean;
  preparedXa?: boolean;
  onePhase?: boolean;
  xidFormatId?: number;
  xidGtrid?: Buffer;
  xidBqual?: Buffer;
}

/** Common header of a binlog event: timestamp 4, type 1, server id 4, length 4, next position 4, flags 2. */
export const HEADER_BYTES = 19;

/** Event types: MySQL 8.0 libbinlogevents/include/binlog_event.h; MariaDB 10.11 sql/log_event.h. */
export const EVENT = {
  query: 2,
  xid: 16,
  tableMap: 19,
  gtid: 33,
  rows: new Set([23, 24, 25, 30, 31, 32]),
  rowsV2: new Set([30, 31, 32]),
  updateRows: new Set([24, 31]),
  deleteRows: new Set([25, 32]),
  compressedRows: new Set([166, 167, 168, 169, 170, 171]),
} as const;
