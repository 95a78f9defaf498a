import { InterlockError } from '../../src/errors.js';
import { userMapping, wantedMysqlLinks } from '../../src/topology/derive.js';
import { mysqlAddress } from '../../src/topology/mysql-address.js';
import type { SecretReference, Topology } from '../../src/topology/schema.js';
import { formatLinkId } from '../core/contract.js';
import type { LinkConfig } from './link-config.js';

/** The MySQL links that the topology wants, by id. */
export function linkIds(topology: Topology): string[] {
  return wantedMysqlLinks(topology).map((link) => formatLinkId(link));
}

/** The configuration of one of them. @throws InterlockError BadInput that names the links there are. */
export function linkConfigOf(
  topology: Topology,
  link: string,
  secret: (reference: SecretReference) => string,
): LinkConfig {
  const wanted = wantedMysqlLinks(topology).find((one) => formatLinkId(one) === link);
  if (wanted === undefined) {
    throw new InterlockError(
      'BadInput',
      `${JSON.stringify(link)} is not a MySQL link of topology ${topology.name}; expected one of ${linkIds(topology).join(', ')}`,
      { details: { field: 'link', value: link } },
    );
  }
  const server = (dc: string): LinkConfig['source'] => {
    const store = topology.datacenters[dc]!.stores.mysql[wanted.store]!;
    return { ...mysqlAddress(store, secret), flavour: store.flavour };
  };
  return {
    link,
    from: wanted.from,
    to: wanted.to,
    source: server(wanted.from),
    target: server(wanted.to),
    include: wanted.include,
    exclude: wanted.exclude,
    ...(wanted.rename !== undefined && { rename: wanted.rename }),
    ...(wanted.columns !== undefined && { columns: wanted.columns }),
    ...(wanted.rows !== undefined && { rows: wanted.rows }),
    ...(wanted.throttle !== undefined && { throttle: wanted.throttle }),
    tables: topology.tables,
    conflicts: wanted.conflicts,
    onQuarantine: wanted.onQuarantine,
    winsTies: Object.keys(topology.datacenters)[0] === wanted.from,
    mapping: userMapping(topology),
  };
}
