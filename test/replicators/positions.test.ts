import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { GtidSet } from '../../replicators/mysql/gtid-set.js';
import { MariadbPosition } from '../../replicators/mysql/mariadb-position.js';
import { compare, contains, parsePosition } from '../../replicators/mysql/position.js';
import { isInterlockError } from '../../src/errors.js';

const A = '3e11fa47-71ca-11e1-9e33-c80aa9429562';
const B = '4e11fa47-71ca-11e1-9e33-c80aa9429562';

describe('GTID sets', () => {
  it('reads what the server writes and writes it back in one form', () => {
    expect(GtidSet.parse(`${B}:1-3:7,\n${A.toUpperCase()}:5`).toString()).toBe(`${A}:5,${B}:1-3:7`);
    expect(GtidSet.parse('').toString()).toBe('');
    expect(GtidSet.parse(`${A}:4-6:1-3`).toString()).toBe(`${A}:1-6`);
  });

  it.each(['x', A, `${A}:0`, `${A}:5-3`, `${A}:tag:1`, `${A}:1,`, `${A}:9007199254740993`, '0-1-5'])(
    'refuses %s and names it',
    (text) => {
      try {
        GtidSet.parse(text);
        expect.unreachable();
      } catch (error) {
        expect(isInterlockError(error, 'BadInput')).toBe(true);
      }
    },
  );

  it('agrees with sets of numbers', () => {
    const numbers = fc.uniqueArray(fc.integer({ min: 1, max: 40 }), { maxLength: 25 });
    const of = (some: number[]): GtidSet => {
      const set = new GtidSet();
      for (const n of some) set.add(`${A}:${n}`);
      return set;
    };
    fc.assert(
      fc.property(numbers, numbers, (left, right) => {
        const [a, b] = [of(left), of(right)];
        const within = right.every((n) => left.includes(n));
        const around = left.every((n) => right.includes(n));
        expect(a.contains(b)).toBe(within);
        expect(compare(a, b)).toBe(
          within ? (around ? 'equal' : 'after') : around ? 'before' : 'incomparable',
        );
        expect(a.union(b).toString()).toBe(of([...left, ...right]).toString());
        expect(GtidSet.parse(a.toString()).toString()).toBe(a.toString());
      }),
    );
  });

  it('does not order what two servers did apart from each other', () => {
    expect(compare(GtidSet.parse(`${A}:1-9`), GtidSet.parse(`${B}:1-2`))).toBe('incomparable');
    expect(compare(GtidSet.parse(`${A}:1-9,${B}:1`), GtidSet.parse(`${A}:1-2,${B}:1-3`))).toBe(
      'incomparable',
    );
  });

  it('a copy is its own', () => {
    const set = GtidSet.parse(`${A}:1-3`);
    const copy = set.clone();
    copy.add(`${A}:4`);
    expect(set.toString()).toBe(`${A}:1-3`);
    expect(copy.toString()).toBe(`${A}:1-4`);
  });
});

describe('MariaDB positions', () => {
  it('compares per domain', () => {
    const at = (text: string): MariadbPosition => MariadbPosition.parse(text);
    expect(at(' 1-11-5,\n0-10-7').toString()).toBe('0-10-7,1-11-5');
    expect(compare(at('0-1-5'), at('0-2-5'))).toBe('equal');
    expect(compare(at('0-1-5'), at('0-1-6'))).toBe('before');
    expect(compare(at('0-1-5,1-1-1'), at('0-1-5'))).toBe('after');
    expect(compare(at('0-1-5'), at('1-1-5'))).toBe('incomparable');
    expect(at('0-1-5').union(at('0-2-3,1-1-1')).toString()).toBe('0-1-5,1-1-1');
    expect(contains(at('0-1-5'), at(''))).toBe(true);
  });

  it('leaves out what was prepared and not committed, and says from where it has to be read again', () => {
    const position = MariadbPosition.parse('0-1-5,1-1-7');
    position.add('0-1-6');
    position.leaveOut('0-1-8', '0-1-6');
    position.add('0-2-9');
    position.leaveOut('0-1-11', '0-2-9');
    position.add('0-1-12');
    expect(position.toString()).toBe('0-1-12~0-1-8@0-1-6~0-1-11@0-2-9,1-1-7');
    expect(MariadbPosition.parse(position.toString()).toString()).toBe(position.toString());
    expect(position.resumeAt).toBe('0-1-6,1-1-7');
    expect([8, 9, 11, 12, 13].map((n) => position.has(`0-1-${n}`))).toEqual([
      false,
      true,
      false,
      true,
      false,
    ]);
    expect(compare(position, MariadbPosition.parse('0-1-12,1-1-7'))).toBe('before');
    position.add('0-1-13');
    position.add('0-1-8');
    expect(position.resumeAt).toBe('0-2-9,1-1-7');
    position.add('0-1-11');
    expect(position.toString()).toBe('0-1-13,1-1-7');
    expect(position.resumeAt).toBe('0-1-13,1-1-7');
    const first = MariadbPosition.parse('1-1-7');
    first.leaveOut('0-1-1', '');
    expect(first.toString()).toBe('0-1-1~0-1-1@,1-1-7');
    expect(MariadbPosition.parse(first.toString()).resumeAt).toBe('1-1-7');
  });

  it('agrees with sets of numbers', () => {
    const side = fc
      .tuple(fc.integer({ min: 1, max: 9 }), fc.uniqueArray(fc.integer({ min: 1, max: 9 })))
      .map(([most, open]) => ({ most, open: open.filter((n) => n < most) }));
    const of = ({ most, open }: { most: number; open: number[] }): [MariadbPosition, number[]] => {
      const position = new MariadbPosition();
      const numbers = Array.from({ length: most }, (_, i) => i + 1);
      for (const n of numbers) {
        if (open.includes(n)) position.leaveOut(`0-1-${n}`, n === 1 ? '' : `0-1-${n - 1}`);
        else position.add(`0-1-${n}`);
      }
      return [position, numbers.filter((n) => !open.includes(n))];
    };
    fc.assert(
      fc.property(side, side, (left, right) => {
        const [[a, has], [b, hasToo]] = [of(left), of(right)];
        expect(a.contains(b)).toBe(hasToo.every((n) => has.includes(n)));
        const both = a.union(b);
        for (let n = 1; n <= 10; n++) {
          expect(a.has(`0-1-${n}`)).toBe(has.includes(n));
          expect(both.has(`0-1-${n}`)).toBe(has.includes(n) || hasToo.includes(n));
        }
        const first = Math.min(...left.open);
        expect(a.resumeAt).toBe(
          left.open.length === 0 ? `0-1-${left.most}` : first === 1 ? '' : `0-1-${first - 1}`,
        );
      }),
    );
  });

  it.each([
    '1-2',
    'a-b-c',
    '0-1-5,0-2-6',
    `${A}:1`,
    '0-1-5~0-1-3',
    '0-1-5~1-1-3@1-1-2',
    '0-1-5~0-1-3@1-1-2',
    '0-1-5~0-1-3@0-1-2@0-1-1',
  ])('refuses %s', (text) => {
    expect(() => MariadbPosition.parse(text)).toThrowError(/MariaDB GTID position/);
  });
});

it('positions of different kinds have no order', () => {
  const [a, b] = [parsePosition('mysql', `${A}:1`), parsePosition('mariadb', '0-1-1')];
  expect(compare(a, b)).toBe('incomparable');
  expect(() => contains(a, b)).toThrowError(/different kinds/);
});
