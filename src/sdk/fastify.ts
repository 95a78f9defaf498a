import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { InterlockError } from '../errors.js';
import { contexts, Effects } from './context.js';
import type { RequestContext } from './context.js';
import { answerTo } from './http.js';
import type { HttpOptions, Interlock } from './interlock.js';

export type FastifyPlugin = (app: FastifyInstance) => Promise<void>;

/**
 * The plugin applies to the whole instance that registers it. It sets an error handler that answers refusals and passes other errors on; an
 * application with an error handler of its own sets it first, or lets unknown errors pass by throwing them again.
 */
export function fastifyPlugin(interlock: Interlock, options: HttpOptions): FastifyPlugin {
  const contextOf = new WeakMap<FastifyRequest, RequestContext>();

  const plugin: FastifyPlugin = async (app) => {
    app.addHook('onRequest', (request, _reply, done) => {
      const context: RequestContext = { effects: new Effects() };
      contextOf.set(request, context);
      const parts = { target: request.raw.url ?? '/', headers: request.raw.headers };
      try {
        if (options.key !== undefined) {
          context.target = options.key(parts);
        } else {
          const key = interlock.keyOf(parts);
          if ('invalid' in key) {
            done(new InterlockError('BadInput', `routing key: ${key.invalid}`));
            return;
          }
          context.target = key.target;
        }
      } catch (error) {
        done(error as Error);
        return;
      }
      contexts.run(context, done);
    });
    // Reading the body leaves the asynchronous context of onRequest: enter it again.
    app.addHook('preValidation', (request, _reply, done) => {
      const context = contextOf.get(request);
      if (context === undefined) done();
      else contexts.run(context, done);
    });

    const before = app.errorHandler;
    app.setErrorHandler((error, request, reply) => {
      const answer = answerTo(error, contextOf.get(request)?.effects ?? new Effects());
      if (answer === undefined) return before.call(app, error as never, request, reply) as never;
      return send(reply, answer);
    });
  };
  // Without it Fastify would confine the hooks to the plugin (what the fastify-plugin package does).
  return Object.assign(plugin, {
    [Symbol.for('skip-override')]: true,
    [Symbol.for('fastify.display-name')]: 'interlock',
  });
}

function send(reply: FastifyReply, answer: NonNullable<ReturnType<typeof answerTo>>): FastifyReply {
  return reply.code(answer.status).headers(answer.headers).send(answer.body);
}
