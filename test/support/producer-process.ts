import { Kafka, logLevel } from 'kafkajs';
import { createInterlock, FixedRules, isInterlockError } from '../../src/sdk/index.js';
import { testRules } from '../sdk/support.js';

/**
 * An application instance that sends one message after the other, by rules of epoch 1 whatever happens: `producer-process BROKER INSTANCE TOPIC
 * USER`. Prints `sent N`, and `refused CODE MESSAGE` for what it was told instead; it goes on at once.
 */
const [broker, instance, topic, userId] = process.argv.slice(2) as [string, string, string, string];
const rules = new FixedRules(testRules(1));
// After its start its rule center is beyond reach: what it knows of the rules is from before.
const first = rules.current();
let opened = false;
rules.confirm = async () => {
  if (opened) throw new Error('the rule center does not answer');
  opened = true;
  return first;
};
const interlock = createInterlock({ dc: 'dc-a', application: 'shop', instance, rules });
const kafka = new Kafka({ brokers: [broker], logLevel: logLevel.NOTHING });
const producer = interlock.kafka(kafka).producer({ routingKey: () => ({ userId, region: 'cn-east' }) });
for (let n = 0; ; n++) {
  try {
    await producer.send({ topic, messages: [{ key: userId, value: `${instance} ${n}` }] });
    console.log(`sent ${n};`);
  } catch (error) {
    console.log(`refused ${isInterlockError(error) ? error.code : 'none'} ${String(error)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
