import { onPath } from './search-path.js';
import { runStep } from './step.js';
import type { Progress } from './step.js';

const PLUGIN = 'org.apache.maven.plugins:maven-dependency-plugin:3.6.1';

/** Packages that `mvn` needs on this machine. */
export function mavenPackages(): string[] {
  return onPath('mvn') === null ? ['maven'] : [];
}

/** Java 17, for what runs on it. */
export function javaPackages(): string[] {
  return onPath('java') === null ? ['openjdk-17-jre-headless'] : [];
}

/** Copies one artifact (`group:name:version`) from Maven's repositories into a directory. */
export async function copyArtifact(
  artifact: string,
  directory: string,
  title: string,
  progress: Progress,
): Promise<void> {
  const args = [`${PLUGIN}:copy`, `-Dartifact=${artifact}`, `-DoutputDirectory=${directory}`];
  await maven(args, directory, title, progress);
}

/** Copies what a pom.xml in the directory depends on into `libs` beside it. */
export async function copyDependencies(directory: string, title: string, progress: Progress): Promise<void> {
  await maven([`${PLUGIN}:copy-dependencies`, '-DoutputDirectory=libs'], directory, title, progress);
}

async function maven(args: string[], cwd: string, title: string, progress: Progress): Promise<void> {
  const mvn = onPath('mvn') ?? 'mvn';
  await runStep(mvn, ['-B', '-q', ...args], { title, timeoutMs: 10 * 60_000, cwd }, progress);
}
