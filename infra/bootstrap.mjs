// The first thing that `npm run demo | test | bench | soak | lab` runs: plain Node, nothing installed yet. It brings the npm packages and
// the build up to date, then becomes the program that was asked for. Everything it says goes to stderr: stdout is the program's.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const SOURCES = ['src', 'workflows', 'activities', 'workers', 'replicators', 'infra', 'test'];
const SETTINGS = ['package.json', 'package-lock.json', 'tsconfig.json', 'tsconfig.build.json'];
const PACKAGES_STAMP = path.join(root, 'node_modules', '.interlock-packages');
const BUILD_STAMP = path.join(root, 'dist', '.interlock-build');
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'];

const PROGRAMS = {
  demo: (args) => ['dist/infra/demo/main.js', ...args],
  test: (args) => ['dist/infra/test-runner.js', ...args],
  bench: (args) => ['dist/infra/bench-runner.js', ...args],
  soak: (args) => ['dist/infra/soak-runner.js', ...args],
  cli: (args) => ['dist/src/cli/main.js', ...args],
};

function say(line) {
  process.stderr.write(`${line}\n`);
}

function fail(code, line) {
  say(line);
  process.exit(code);
}

/** Runs a command with its output on stderr. Ctrl-C reaches it and ends this process, too. */
async function run(title, command, args) {
  const begin = Date.now();
  const seconds = () => `${Math.round((Date.now() - begin) / 1000)} s`;
  say(`${title} …`);
  const life = setInterval(() => say(`${title}: ${seconds()}`), 10_000);
  const end = await pass(command, args, ['ignore', 2, 2]);
  clearInterval(life);
  if (end !== 0)
    fail(end > 128 ? end : 1, `${title} failed after ${seconds()}: ${command} ${args.join(' ')}`);
  say(`${title}: done in ${seconds()}`);
}

/** Runs a program to its end; signals are passed on, and the exit code is the program's (128 + signal when one ended it). */
function pass(command, args, stdio) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio });
    // This process waits for the program, which may have to clean up. A terminal sends Ctrl-C to both.
    const handlers = SIGNALS.map((signal) => {
      const handler = () => {
        if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
      };
      process.on(signal, handler);
      return [signal, handler];
    });
    const done = (code) => {
      for (const [signal, handler] of handlers) process.removeListener(signal, handler);
      resolve(code);
    };
    child.once('error', (error) => {
      say(`${command}: ${error.message}`);
      done(1);
    });
    child.once('exit', (code, signal) => done(code ?? 128 + (SIGNAL_NUMBERS[signal] ?? 0)));
  });
}
const SIGNAL_NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGABRT: 6, SIGKILL: 9, SIGSEGV: 11, SIGTERM: 15 };

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  fail(2, `Node ${process.versions.node} is too old: Interlock needs 20.19 or later`);
}

/** Content of a file, or nothing. */
function content(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/** Hash over names, sizes and times of the sources and over the content of what configures the build. */
function fingerprint() {
  const hash = createHash('sha256');
  for (const file of SETTINGS) hash.update(content(path.join(root, file)));
  for (const folder of SOURCES) {
    if (!existsSync(path.join(root, folder))) continue;
    const entries = readdirSync(path.join(root, folder), { recursive: true, withFileTypes: true });
    const files = entries
      .filter((entry) => entry.isFile())
      .map((entry) => path.join(entry.parentPath ?? entry.path, entry.name));
    for (const file of files.sort()) {
      const { size, mtimeMs } = statSync(file);
      hash.update(`${path.relative(root, file)} ${size} ${mtimeMs}\n`);
    }
  }
  return hash.digest('hex');
}

/** Written last and under another name first: an interrupted step leaves no stamp. */
function stamp(file, value) {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(`${file}.${process.pid}`, value);
  renameSync(`${file}.${process.pid}`, file);
}

/** npm notes what it has installed: packages that somebody installed from this lock file need no second installation. */
function installedByHand() {
  const installed = content(path.join(root, 'node_modules', '.package-lock.json'));
  if (installed === '') return false;
  const there = JSON.parse(installed).packages;
  const wanted = JSON.parse(content(path.join(root, 'package-lock.json'))).packages;
  return Object.entries(wanted).every(
    ([name, { version, optional }]) => name === '' || there[name]?.version === version || optional,
  );
}

async function packages() {
  const wanted = createHash('sha256')
    .update(content(path.join(root, 'package.json')) + content(path.join(root, 'package-lock.json')))
    .digest('hex');
  if (content(PACKAGES_STAMP) === wanted) return;
  if (!installedByHand()) {
    await run('installing npm packages', 'npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
  }
  stamp(PACKAGES_STAMP, wanted);
}

async function build() {
  const wanted = fingerprint();
  if (content(BUILD_STAMP) === wanted) return;
  // What an unknown or interrupted build left is not to be trusted.
  if (!existsSync(BUILD_STAMP)) rmSync(path.join(root, 'dist'), { recursive: true, force: true });
  await run('building', 'npm', ['run', '--silent', 'build']);
  stamp(BUILD_STAMP, wanted);
}

checkNode();
const [name, ...args] = process.argv.slice(2);
if (!Object.hasOwn(PROGRAMS, name ?? ''))
  fail(2, `usage: node infra/bootstrap.mjs ${Object.keys(PROGRAMS).join(' | ')}`);
await packages();
await build();
process.exitCode = await pass(process.execPath, ['--enable-source-maps', ...PROGRAMS[name](args)], 'inherit');
