import { existsSync } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { interlockHome } from '../mysql-server.js';
import type { Component } from './component.js';
import { copyDependencies, javaPackages, mavenPackages } from './maven.js';
import { onPath } from './search-path.js';

const VERSION = '1.32.0';

/** Temporal's time-skipping test server; runs on Java. Only the tests use it. */
export const temporalTestServerComponent: Component<{ libs: string }> = {
  name: `Temporal's test server ${VERSION}`,
  find: async () => {
    const libs = path.join(home(), 'libs');
    return existsSync(libs) && onPath('java') !== null ? { libs } : null;
  },
  packages: () => [...javaPackages(), ...(existsSync(path.join(home(), 'libs')) ? [] : mavenPackages())],
  install: async (progress) => {
    if (existsSync(path.join(home(), 'libs'))) return;
    const partial = `${home()}.${process.pid}.partial`;
    await rm(partial, { recursive: true, force: true });
    await mkdir(partial, { recursive: true });
    try {
      await writeFile(path.join(partial, 'pom.xml'), POM);
      await copyDependencies(partial, `fetching Temporal's test server ${VERSION} (33 MB)`, progress);
      await rename(partial, home());
    } finally {
      await rm(partial, { recursive: true, force: true });
    }
  },
};

function home(): string {
  return path.join(interlockHome(), `temporal-test-server-${VERSION}`);
}

const POM = `<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>interlock</groupId>
  <artifactId>temporal-test-server</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>io.temporal</groupId>
      <artifactId>temporal-test-server</artifactId>
      <version>${VERSION}</version>
    </dependency>
  </dependencies>
</project>
`;
