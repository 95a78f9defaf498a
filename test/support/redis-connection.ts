import { connect } from 'node:net';
import { CommandWriter } from '../../replicators/redis/resp/command-writer.js';
import { ReplyReader } from '../../replicators/redis/resp/reply-reader.js';
import type { Reply } from '../../replicators/redis/resp/reply-reader.js';

type Argument = string | Buffer | number;

/** A plain connection of its own to a server; the caller closes it. */
export class RedisTestConnection {
  private readonly reader = new ReplyReader();
  private readonly waiting: ((reply: Reply) => void)[] = [];
  private readonly socket;

  constructor(port: number) {
    this.socket = connect(port, '127.0.0.1');
    this.socket.on('data', (chunk: Buffer) => {
      for (const reply of this.reader.push(chunk)) this.waiting.shift()?.(reply);
    });
  }

  async askAll(commands: readonly (readonly Argument[])[]): Promise<Reply[]> {
    const writer = new CommandWriter();
    const replies = commands.map((command) => {
      writer.command(...command);
      return new Promise<Reply>((resolve) => this.waiting.push(resolve));
    });
    for (const part of writer.take()) this.socket.write(part);
    return Promise.all(replies);
  }

  async ask(...command: Argument[]): Promise<Reply> {
    const [reply] = await this.askAll([command]);
    return reply!;
  }

  close(): void {
    this.socket.destroy();
  }
}
