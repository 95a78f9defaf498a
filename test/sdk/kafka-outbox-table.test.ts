import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Partitioners } from 'kafkajs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { partitionOf } from '../../src/kafka/partitioner.js';
import { parseProducerId, producerTransactionalId } from '../../src/kafka/transactional-id.js';
import { outboxTable } from '../../src/sdk/index.js';
import { ROOT } from '../support/programs.js';

describe('Kafka in the SDK', () => {
  it('prints the table that the documentation shows', () => {
    const page = readFileSync(path.join(ROOT, 'docs/kafka-sdk.md'), 'utf8');
    expect(page).toContain(`\`\`\`sql\n${outboxTable('shop.outbox')}\n\`\`\``);
  });

  it('chooses the partition that Kafka chooses', () => {
    const theirs = Partitioners.DefaultPartitioner();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), fc.integer({ min: 1, max: 50 }), (bytes, count) => {
        const key = Buffer.from(bytes);
        const partitionMetadata = Array.from({ length: count }, (_, partitionId) => ({
          ...{ partitionId, leader: 1, partitionErrorCode: 0, replicas: [1], isr: [1] },
        }));
        const wanted = theirs({ topic: 't', partitionMetadata, message: { key, value: '' } });
        expect(partitionOf(key, count)).toBe(wanted);
      }),
    );
  });

  it('knows its producers by their transactional ids', () => {
    const id = producerTransactionalId('shop', 'host-1/2');
    expect(parseProducerId(id)).toEqual({ application: 'shop', instance: 'host-1/2' });
    expect(parseProducerId('interlock-kafka/main:dc-a>dc-b')).toBeUndefined();
  });
});
