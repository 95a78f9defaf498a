import type { IncomingMessage, ServerResponse } from 'node:http';
import { InterlockError } from '../errors.js';
import { contexts, Effects } from './context.js';
import type { RequestContext } from './context.js';
import { answerTo } from './http.js';
import type { HttpOptions, Interlock } from './interlock.js';

type Next = (error?: unknown) => void;
export type ExpressMiddleware = (request: IncomingMessage, response: ServerResponse, next: Next) => void;
export type ExpressErrorHandler = (
  error: unknown,
  request: IncomingMessage,
  response: ServerResponse,
  next: Next,
) => void;

const contextOf = new WeakMap<IncomingMessage, RequestContext>();

export function expressMiddleware(interlock: Interlock, options: HttpOptions): ExpressMiddleware {
  return (request, _response, next) => {
    const context: RequestContext = { effects: new Effects() };
    contextOf.set(request, context);
    // Express shortens `url` below a mounted router; `originalUrl` is what came over the wire.
    const target = (request as { originalUrl?: string }).originalUrl ?? request.url ?? '/';
    const parts = { target, headers: request.headers };
    try {
      if (options.key !== undefined) {
        context.target = options.key(parts);
      } else {
        const key = interlock.keyOf(parts);
        if ('invalid' in key) throw new InterlockError('BadInput', `routing key: ${key.invalid}`);
        context.target = key.target;
      }
    } catch (error) {
      next(error);
      return;
    }
    contexts.run(context, () => next());
  };
}

export function expressErrorHandler(): ExpressErrorHandler {
  return (error, request, response, next) => {
    const answer = response.headersSent
      ? undefined
      : answerTo(error, contextOf.get(request)?.effects ?? new Effects());
    if (answer === undefined) {
      next(error);
      return;
    }
    response.writeHead(answer.status, answer.headers);
    response.end(JSON.stringify(answer.body));
  };
}
