import { become } from './become.js';
import { kafkaComponent } from './components/kafka.js';
import { mysqlComponent } from './components/mysql.js';
import { redisComponent } from './components/redis.js';

/** `npm run soak -- NAME [flags]`. */
await become({
  kind: 'soak',
  usage: 'usage: npm run soak -- NAME [--json]\nsoaks: mysql, redis, kafka\n',
  programs: {
    mysql: () => [mysqlComponent('mysql'), mysqlComponent('mariadb')],
    redis: () => [redisComponent],
    kafka: () => [kafkaComponent],
  },
});
