import { become } from './become.js';
import { kafkaComponent } from './components/kafka.js';
import { mysqlComponent } from './components/mysql.js';

/** `npm run soak -- NAME [flags]`. */
await become({
  kind: 'soak',
  usage: 'usage: npm run soak -- NAME [--json]\nsoaks: mysql, kafka\n',
  programs: {
    mysql: () => [mysqlComponent('mysql'), mysqlComponent('mariadb')],
    kafka: () => [kafkaComponent],
  },
});
