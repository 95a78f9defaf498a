import { COUPON_UNIT } from '../../../infra/demo/schema.sql.js';
import type { ShopKey } from '../../../infra/demo/service/database.js';
import { bucketOf, bucketUnit, parseUnit } from '../../../src/routing/units.js';

export const HOMES: Record<string, string> = { 'cn-east': 'dc-a', 'cn-west': 'dc-b' };
/** What the script moves: buckets 0 to 99 of one region. */
export const MOVED = { region: 'cn-east', buckets: 100 };

export interface Routes {
  /** Where the moved buckets are now. */
  moved: string;
}

export function unitOf(key: ShopKey): string {
  return 'central' in key ? COUPON_UNIT : bucketUnit(key.region, bucketOf(key.userId));
}

export function ownerBy(routes: Routes, unit: string): string {
  const parsed = parseUnit(unit);
  if (parsed?.kind !== 'bucket') return 'dc-a';
  if (parsed.region === MOVED.region && parsed.bucket < MOVED.buckets) return routes.moved;
  return HOMES[parsed.region]!;
}

/** nginx of one DC as operators write it: a map from region and bucket to the shops of a DC. */
export function nginxConfig(options: {
  directory: string;
  port: number;
  routes: Routes;
  shops: Record<string, number[]>;
}): string {
  const { directory, port, routes, shops } = options;
  const homes = Object.entries(HOMES).map(([region, dc]) => `"~^${region}/" ${dc};`);
  const upstreams = Object.entries(shops).map(
    ([dc, ports]) =>
      `upstream ${dc} { keepalive 64; ${ports.map((one) => `server 127.0.0.1:${one};`).join(' ')} }`,
  );
  return `daemon on;
worker_processes 1;
pid ${directory}/nginx.pid;
error_log ${directory}/error.log;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path ${directory}/body; proxy_temp_path ${directory}/proxy; fastcgi_temp_path ${directory}/f;
  uwsgi_temp_path ${directory}/u; scgi_temp_path ${directory}/s;
  map "$http_x_region/$http_x_bucket" $owner {
    "~^${MOVED.region}/[0-9]{1,2}$" ${routes.moved};
    ${homes.join('\n    ')}
    default dc-a;
  }
  ${upstreams.join('\n  ')}
  server {
    listen 127.0.0.1:${port};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    add_header x-interlock-dc $owner always;
    location /coupons/ { proxy_pass http://dc-a; }
    location / { proxy_pass http://$owner; }
  }
}
`;
}
