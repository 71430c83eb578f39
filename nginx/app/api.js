/*
 * api.js - the calls to the service, and the ways in which they fail. Knows no page.
 */
import { EventParser } from './sse.js';

// A stream gets a blank line every few seconds from the service, so this much silence is a connection that is gone, as
// when a phone has changed its network.
const SILENCE_MS = 180_000;

const KINDS = {
  400: 'refused', 401: 'key', 403: 'forbidden', 409: 'busy', 413: 'too_long', 429: 'too_fast',
  502: 'unavailable', 503: 'unavailable', 504: 'unavailable',
};

/*
 * Why a call failed.
 * kind: one of the above; service: the service's own fault (500 and the like); network: no answer; cut: the answer ended
 * before its end; stopped: by whoever asked.
 * detail: the service's words, or ''. wait: seconds after which it may be asked again, or 0. request: the request's id, or ''.
 */
export class Failure extends Error {
  constructor(kind, { status = 0, detail = '', wait = 0, request = '' } = {}) {
    super(kind);
    Object.assign(this, { kind, status, detail, wait, request });
  }
}

export function retryAfter(value, now = Date.now()) {
  if (!value) return 0;
  const seconds = /^\d+$/.test(value) ? Number(value) : Math.ceil((Date.parse(value) - now) / 1000);
  return seconds > 0 ? Math.min(seconds, 3600) : 0;
}

async function failureOf(answer) {
  let detail = '';
  try {
    const body = await answer.json();
    if (typeof body.detail === 'string') detail = body.detail;
  } catch {
    // An error page of something in between: its status says enough.
  }
  return new Failure(KINDS[answer.status] ?? 'service', {
    status: answer.status,
    detail,
    wait: retryAfter(answer.headers.get('Retry-After')),
    request: answer.headers.get('X-Request-ID') ?? '',
  });
}

export class Api {
  #key;

  // key(): the visitor's API key, or ''.
  constructor(key) {
    this.#key = key;
  }

  async #call(method, path, { body, signal } = {}) {
    const headers = {};
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    if (this.#key()) headers.Authorization = `Bearer ${this.#key()}`;
    let answer;
    try {
      answer = await fetch(path, {
        method, headers, signal, body: body && JSON.stringify(body), cache: 'no-store', credentials: 'same-origin',
      });
    } catch {
      throw new Failure(signal?.aborted ? 'stopped' : 'network');
    }
    if (!answer.ok) throw await failureOf(answer);
    return answer;
  }

  /*
   * Sends a message. started() when the service has accepted it, chunk(text) for each piece of the answer. Returns the data
   * of the complete event, or throws a Failure.
   */
  async stream(message, { signal, started, chunk }) {
    const control = new AbortController();
    const stop = () => control.abort();
    if (signal.aborted) throw new Failure('stopped');
    signal.addEventListener('abort', stop);
    let silence;
    try {
      const answer = await this.#call('POST', '/chat/stream', { body: message, signal: control.signal });
      const request = answer.headers.get('X-Request-ID') ?? '';
      if (!answer.body) throw new Failure('service', { request });
      started();

      const parser = new EventParser();
      const decoder = new TextDecoder();
      const reader = answer.body.getReader();
      for (;;) {
        silence = setTimeout(stop, SILENCE_MS);
        const { done, value } = await reader.read();
        clearTimeout(silence);
        if (done) throw new Failure('cut', { request });
        for (const event of parser.push(decoder.decode(value, { stream: true }))) {
          if (event.type === 'chunk') chunk(event.data.content);
          else if (event.type === 'complete') return event.data;
          else if (event.type === 'error') throw new Failure('cut', { detail: event.data.message, request });
        }
      }
    } catch (error) {
      if (signal.aborted) throw new Failure('stopped');
      if (error instanceof Failure) throw error.kind === 'stopped' ? new Failure('network') : error;
      throw new Failure('cut'); // the connection broke, or what came was no event
    } finally {
      clearTimeout(silence);
      signal.removeEventListener('abort', stop);
      control.abort(); // nothing more is wanted: an unread rest would keep the connection
    }
  }

  async clear(session) {
    await this.#call('POST', `/session/${encodeURIComponent(session)}/clear`);
  }

  // The service forgets a session after a day; this has it go on with the conversation that it had.
  async bind(session, conversation, signal) {
    const body = { conversation_id: conversation };
    await this.#call('POST', `/session/${encodeURIComponent(session)}/bind`, { body, signal });
  }

  async healthy(signal) {
    try {
      await this.#call('GET', '/health', { signal });
      return true;
    } catch {
      return false;
    }
  }
}

// What the operator says to the visitors of this page.
export async function loadConfig() {
  try {
    const answer = await fetch('config.json', { cache: 'no-store' });
    const config = answer.ok ? await answer.json() : {};
    return { notice: typeof config.notice === 'string' ? config.notice.trim() : '' };
  } catch {
    return { notice: '' };
  }
}
