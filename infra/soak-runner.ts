import { become } from './become.js';
import { mysqlComponent } from './components/mysql.js';

/** `npm run soak -- NAME [flags]`. */
await become({
  kind: 'soak',
  usage: 'usage: npm run soak -- NAME [--json]\nsoaks: mysql\n',
  programs: { mysql: () => [mysqlComponent('mysql'), mysqlComponent('mariadb')] },
});
