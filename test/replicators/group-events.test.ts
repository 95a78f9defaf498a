import { describe, expect, it } from 'vitest';
import { GtidReader, isBegin, isPlainGtid } from '../../replicators/mysql/group-events.js';
import { Cursor } from '../../replicators/mysql/row-image.js';

/** Bytes of other events before and behind. */
function cursorOf(...parts: Buffer[]): Cursor {
  const body = Buffer.concat(parts);
  return new Cursor(Buffer.concat([Buffer.alloc(7, 0xee), body, Buffer.alloc(9, 0xee)]), 7, 7 + body.length);
}

function gtid(sid: string, number: bigint): Cursor {
  const gno = Buffer.alloc(8);
  gno.writeBigUInt64LE(number);
  return cursorOf(Buffer.from([1]), Buffer.from(sid, 'hex'), gno, Buffer.alloc(17));
}

function query(schema: string, statusBytes: number, statement: string): Cursor {
  const head = Buffer.alloc(13);
  head[8] = schema.length;
  head.writeUInt16LE(statusBytes, 11);
  return cursorOf(head, Buffer.alloc(statusBytes, 7), Buffer.from(`${schema}\0${statement}`));
}

describe('events that a transaction begins with', () => {
  it('reads GTIDs of several servers', () => {
    const [a, b] = ['3e11fa4771ca11e19e33c80aa9429562', '00000000000000000000000000000001'];
    const reader = new GtidReader();
    const read = [gtid(a, 1n), gtid(a, 2n), gtid(b, 3n), gtid(a, 281474976710655n)].map((at) =>
      reader.read(at),
    );
    expect(read).toEqual([
      '3e11fa47-71ca-11e1-9e33-c80aa9429562:1',
      '3e11fa47-71ca-11e1-9e33-c80aa9429562:2',
      '00000000-0000-0000-0000-000000000001:3',
      '3e11fa47-71ca-11e1-9e33-c80aa9429562:281474976710655',
    ]);
  });

  it('leaves numbers beyond 48 bits to others', () => {
    const sid = '3e11fa4771ca11e19e33c80aa9429562';
    expect(isPlainGtid(gtid(sid, 281474976710655n))).toBe(true);
    expect(isPlainGtid(gtid(sid, 281474976710656n))).toBe(false);
  });

  it('knows BEGIN from other statements, whatever is before it', () => {
    expect(isBegin(query('shop', 30, 'BEGIN'))).toBe(true);
    expect(isBegin(query('', 0, 'BEGIN'))).toBe(true);
    expect(isBegin(query('', 0, 'COMMIT'))).toBe(false);
    expect(isBegin(query('shop', 30, 'XA BEGIN'))).toBe(false);
    expect(isBegin(query('BEGIN', 3, 'END'))).toBe(false);
    expect(isBegin(query('', 0, 'DROP TABLE t /* BEGIN'))).toBe(false);
  });
});
