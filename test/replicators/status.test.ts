import { expect, it } from 'vitest';
import { StatusTracker } from '../../replicators/core/status.js';
import { BinlogReading } from '../../replicators/mysql/binlog-place.js';

it('counts rows by table: those of the first 200 by name, the others together', () => {
  const tracker = new StatusTracker('mysql/main:dc-a>dc-b');
  const rows = Array.from({ length: 205 }, (_, i) => ({ table: { name: `shop.t${i}` } }));
  tracker.countRows(rows.flatMap((row) => [row, row, row]));
  tracker.countRows([]);
  tracker.countRows([rows[0]!, rows[204]!, rows[0]!]);
  const counted = tracker.tableRows();
  expect(Object.keys(counted)).toHaveLength(201);
  expect(counted['shop.t0']).toBe(5);
  expect(counted['shop.t199']).toBe(3);
  expect(counted['other']).toBe(5 * 3 + 1);
});

/** An event of a binlog: 19 bytes of header, and a body. */
function event(type: number, next: number, { flags = 0, body = Buffer.alloc(0) } = {}): Buffer {
  const header = Buffer.alloc(19);
  header[4] = type;
  header.writeUInt32LE(next, 13);
  header.writeUInt16LE(flags, 17);
  return Buffer.concat([header, body]);
}
function rotate(file: string, at: bigint): Buffer {
  const position = Buffer.alloc(8);
  position.writeBigUInt64LE(at);
  return event(4, 0, { body: Buffer.concat([position, Buffer.from(file)]), flags: 0x20 });
}

it('knows where in the files the stream is: at the last whole transaction, also beyond 4 GiB', () => {
  const reading = new BinlogReading();
  const see = (buffer: Buffer): void => reading.see(buffer, 0, buffer.length);
  expect(reading.readTo).toBeNull();
  see(event(33, 100));
  expect(reading.readTo).toBeNull();
  see(rotate('binlog.000001', 4n));
  expect(reading.readTo).toEqual({ file: 'binlog.000001', at: 4 });
  see(event(33, 200));
  see(event(30, 4_000_000_000));
  expect(reading.readTo).toEqual({ file: 'binlog.000001', at: 4 });
  // One that the server made up, and one without a position.
  see(event(15, 7, { flags: 0x20 }));
  see(event(15, 0));
  see(event(16, 10));
  reading.boundary();
  expect(reading.readTo).toEqual({ file: 'binlog.000001', at: 2 ** 32 + 10 });
  // In the place of transactions that are left out.
  see(event(27, 500));
  expect(reading.readTo).toEqual({ file: 'binlog.000001', at: 2 ** 32 + 500 });
  see(rotate('binlog.000002', 4n));
  expect(reading.readTo).toEqual({ file: 'binlog.000002', at: 4 });
});
