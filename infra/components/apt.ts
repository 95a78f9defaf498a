import { InterlockError } from '../../src/errors.js';
import { runStep } from './step.js';
import type { Progress } from './step.js';
import { onPath } from './search-path.js';

const INSTALL = 'apt-get install -y --no-install-recommends';

/** Hazard: Debian starts a server as a service when it is installed, on its default port. Guard: `policy-rc.d` says no meanwhile. */
function script(packages: readonly string[]): string {
  return [
    'set -e',
    'export DEBIAN_FRONTEND=noninteractive',
    'policy=/usr/sbin/policy-rc.d',
    'if [ ! -e "$policy" ]; then',
    '  trap \'rm -f "$policy"\' EXIT',
    '  printf "#!/bin/sh\\nexit 101\\n" >"$policy"',
    '  chmod +x "$policy"',
    'fi',
    // Only the lists that installing needs; a repository of somebody else that does not answer must not stop it.
    'apt-get -o DPkg::Lock::Timeout=300 update || echo "apt-get update failed; trying with the lists that are there"',
    `${INSTALL} -o DPkg::Lock::Timeout=300 ${packages.join(' ')}`,
  ].join('\n');
}

/**
 * Installs packages of the distribution; as root, or by a sudo that asks nothing.
 * @throws NeedsOperator with the command to run, when this process may not
 */
export async function installPackages(packages: readonly string[], progress: Progress): Promise<void> {
  if (packages.length === 0) return;
  const byHand = `apt-get update && ${INSTALL} ${packages.join(' ')}`;
  if (onPath('apt-get') === null) {
    throw new InterlockError(
      'NeedsOperator',
      `this machine has no apt-get: install what Debian 12 calls ${packages.join(', ')} and run this again`,
    );
  }
  const title = `installing ${packages.join(', ')}`;
  const options = { title, timeoutMs: 20 * 60_000 };
  if (process.getuid?.() === 0) {
    await runStep('/bin/sh', ['-c', script(packages)], options, progress);
    return;
  }
  const sudo = onPath('sudo');
  const maySudo =
    sudo !== null &&
    (await runStep(sudo, ['-n', 'true'], { title: 'asking sudo', timeoutMs: 10_000 }, () => undefined).then(
      () => true,
      () => false,
    ));
  if (!maySudo) {
    throw new InterlockError(
      'NeedsOperator',
      `packages are missing and this user may not install them. Run as root:\n  ${byHand}`,
      { details: { packages } },
    );
  }
  await runStep(sudo, ['-n', '/bin/sh', '-c', script(packages)], options, progress);
}
