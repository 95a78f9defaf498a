/** The commands of Redis that change something, or that replicas are told of. */
const WRITES = new Set(
  `set setex psetex setnx getset getex getdel append setrange setbit bitfield incr decr incrby decrby incrbyfloat
   mset msetnx lpush rpush lpushx rpushx linsert lset ltrim lrem lpop rpop rpoplpush lmove sadd srem spop smove
   sinterstore sunionstore sdiffstore zadd zincrby zrem zremrangebyscore zremrangebyrank zremrangebylex zpopmin zpopmax
   zrangestore zunionstore zinterstore zdiffstore hset hmset hsetnx hincrby hincrbyfloat hdel hexpire hpexpire
   hexpireat hpexpireat hpersist hsetex hgetex hgetdel geoadd geosearchstore georadius georadiusbymember
   pfadd pfmerge bitop sort xadd xtrim xdel xack xclaim xautoclaim xsetid xgroup
   expire pexpire expireat pexpireat persist restore restore-asking move copy rename renamenx del unlink
   publish spublish function script flushall flushdb swapdb`.split(/\s+/),
);

/** A command that a link can be told to carry, or not to. Those of modules have a dot. */
export function isRedisWrite(name: string): boolean {
  return WRITES.has(name.toLowerCase()) || /^[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+$/i.test(name);
}
