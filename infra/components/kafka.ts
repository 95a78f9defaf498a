import { existsSync } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { interlockHome } from '../mysql-server.js';
import type { Component } from './component.js';
import { copyDependencies, javaPackages, mavenPackages } from './maven.js';
import { onPath } from './search-path.js';

const VERSION = '4.1.0';

/** Kafka's broker, its tools and MirrorMaker 2; all of them run on Java. */
export const kafkaComponent: Component<{ libs: string }> = {
  name: `Kafka ${VERSION}`,
  find: async () => (existsSync(kafkaLibs()) && onPath('java') !== null ? { libs: kafkaLibs() } : null),
  packages: () => [...javaPackages(), ...(existsSync(kafkaLibs()) ? [] : mavenPackages())],
  install: async (progress) => {
    if (existsSync(kafkaLibs())) return;
    const partial = `${home()}.${process.pid}.partial`;
    await rm(partial, { recursive: true, force: true });
    await mkdir(partial, { recursive: true });
    try {
      await writeFile(path.join(partial, 'pom.xml'), POM);
      await copyDependencies(partial, `fetching Kafka ${VERSION} (54 MB)`, progress);
      await rename(partial, home());
    } finally {
      await rm(partial, { recursive: true, force: true });
    }
  },
};

function home(): string {
  return path.join(interlockHome(), `kafka-${VERSION}`);
}

/** Where the jars are, once it is installed. */
export function kafkaLibs(): string {
  return path.join(home(), 'libs');
}

const dependency = (artifact: string): string =>
  `    <dependency><groupId>org.apache.kafka</groupId><artifactId>${artifact}</artifactId><version>${VERSION}</version></dependency>`;

const POM = `<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>interlock</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
${['kafka_2.13', 'kafka-tools', 'connect-mirror'].map(dependency).join('\n')}
  </dependencies>
</project>
`;
