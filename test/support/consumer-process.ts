import { Kafka, logLevel } from 'kafkajs';
import { createInterlock, FixedRules } from '../../src/sdk/index.js';
import { testRules } from '../sdk/support.js';

/**
 * A member of a group at dc-a that knows the rules of epoch 1 and no later ones: `consumer-process BROKER GROUP TOPIC MS`, milliseconds of a record. Prints
 * `handled VALUE REDELIVERED;` at the end of each, and `warned MESSAGE`. SIGUSR2 puts its rule center out of reach.
 */
const [broker, groupId, topic, ms] = process.argv.slice(2) as [string, string, string, string];
const rules = new FixedRules(testRules(1));
let reachable = true;
rules.confirm = async () => {
  if (!reachable) throw new Error('the rule center does not answer');
  return rules.current();
};
process.on('SIGUSR2', () => {
  reachable = false;
  console.log('cut off;');
});
const kafka = new Kafka({ brokers: [broker], logLevel: logLevel.NOTHING });
const consumer = createInterlock({ dc: 'dc-a', application: 'shop', instance: 'process', rules })
  .kafka(kafka)
  .consumer({
    groupId,
    topics: [topic],
    peer: 'dc-b',
    routingKey: ({ key }) => ({ userId: key!.toString(), region: 'cn-east' }),
    handler: async ({ value, redelivered }) => {
      await new Promise((resolve) => setTimeout(resolve, Number(ms)));
      console.log(`handled ${value!.toString()} ${redelivered};`);
    },
    onWarning: (message) => console.log(`warned ${message}`),
  });
await consumer.start();
