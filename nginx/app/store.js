/*
 * store.js - the conversations, in memory and in the browser's storage.
 *
 * In memory is everything that this page shows; in storage a copy with limits. Several tabs may be open on the same storage,
 * so a save first merges what another tab has written: messages are united by id, and of one message the copy with the greater
 * `rev` counts, as only the tab that asked changes it. Knows no page: the storage and the clock are given.
 *
 * A conversation: { id, session, conversation, title, named, titled, created, updated, cleared, messages }
 *   session       the service's session_id: random, as who knows it can go on with it
 *   conversation  Coze's id of it, '' until it is known
 *   title, named, titled   its name, whether a person gave it, and when
 *   cleared       when its messages were last thrown away; older ones do not come back
 * A message: { id, role: 'user' | 'assistant', at, rev, text, state, ... }
 *   at      when, and its place: no two messages of a conversation have the same
 *   state   of an answer: waiting, streaming, done, stopped, failed; of either: gone, when it was taken back
 *   alive   while it is waiting or streaming: when its tab was last seen
 *   cut     whether storage has only the beginning of the text
 */

const PREFIX = 'coze-chat:conversation:';
export const LIMITS = { conversations: 100, messages: 500, text: 100_000, characters: 600_000 };
const RECENT_MS = 3_600_000; // such a conversation may be open in another tab
const DEAD_MS = 20_000; // a tab that has an answer coming says so more often than this

const isRunning = (message) => message.state === 'waiting' || message.state === 'streaming';

export function randomId(bytes = 16) {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function text(value) {
  return typeof value === 'string' ? value : '';
}

function number(value) {
  return Number.isFinite(value) ? value : 0;
}

// Storage may hold anything: other versions of this page wrote it, or a person did.
function readMessage(value) {
  if (typeof value !== 'object' || value === null || !text(value.id)) return null;
  if (value.role !== 'user' && value.role !== 'assistant') return null;
  const message = { id: value.id, role: value.role, at: number(value.at), rev: number(value.rev), text: text(value.text) };
  message.state = ['waiting', 'streaming', 'stopped', 'failed', 'gone'].includes(value.state) ? value.state : 'done';
  if (value.cut === true) message.cut = true;
  if (isRunning(message)) message.alive = number(value.alive);
  if (message.state === 'failed') {
    const failure = value.failure ?? {};
    message.failure = {
      kind: text(failure.kind) || 'cut', status: number(failure.status), detail: text(failure.detail),
      until: number(failure.until), request: text(failure.request),
    };
  }
  return message;
}

export function readConversation(raw, id) {
  let value;
  try {
    value = JSON.parse(raw);
  } catch {
    return null;
  }
  if (typeof value !== 'object' || value === null || value.v !== 1 || !text(value.session)) return null;
  return {
    id,
    session: value.session,
    conversation: text(value.conversation),
    title: text(value.title),
    named: value.named === true,
    titled: number(value.titled),
    created: number(value.created),
    updated: number(value.updated),
    cleared: number(value.cleared),
    messages: (Array.isArray(value.messages) ? value.messages : []).map(readMessage).filter(Boolean),
  };
}

// Brings what `theirs` has that is newer into `mine`.
export function merge(mine, theirs) {
  if (theirs.titled > mine.titled) {
    mine.title = theirs.title;
    mine.named = theirs.named;
    mine.titled = theirs.titled;
  }
  if (theirs.cleared > mine.cleared) {
    mine.cleared = theirs.cleared;
    mine.conversation = theirs.conversation;
  } else if (theirs.cleared === mine.cleared && theirs.updated > mine.updated && theirs.conversation) {
    mine.conversation = theirs.conversation;
  }
  mine.updated = Math.max(mine.updated, theirs.updated);

  const byId = new Map(mine.messages.map((message) => [message.id, message]));
  for (const message of theirs.messages) {
    const known = byId.get(message.id);
    if (!known) byId.set(message.id, message);
    else if (message.rev > known.rev) {
      // The same object, as whoever shows it holds on to it.
      for (const name of Object.keys(known)) delete known[name];
      Object.assign(known, message);
    }
  }
  mine.messages = [...byId.values()].filter((message) => message.at > mine.cleared).sort((a, b) => a.at - b.at);
}

// What storage gets of a conversation: the newest messages, and the beginning of each.
export function trimmed(conversation, limits = LIMITS) {
  const messages = [];
  let room = limits.characters;
  for (const message of conversation.messages.slice(-limits.messages).reverse()) {
    const copy = message.text.length > limits.text ? { ...message, text: message.text.slice(0, limits.text), cut: true } : message;
    room -= copy.text.length;
    if (room < 0 && messages.length > 1) break;
    messages.push(copy);
  }
  return { v: 1, ...conversation, id: undefined, messages: messages.reverse() };
}

export class Store {
  #storage; // null: the browser does not let us
  #now;
  #limits;
  #trouble;
  #conversations = new Map();
  #written = new Set(); // ids of those that storage should have

  // trouble('blocked' | 'full'): what is said here will not be there after the page is closed.
  constructor(storage, { now = Date.now, limits = LIMITS, trouble = () => {} } = {}) {
    this.#storage = storage;
    this.#now = now;
    this.#limits = limits;
    this.#trouble = trouble;
    if (!storage) {
      trouble('blocked');
      return;
    }
    for (const id of this.#stored()) this.#load(id);
  }

  #stored() {
    const ids = [];
    for (let i = 0; i < this.#storage.length; i++) {
      const key = this.#storage.key(i);
      if (key?.startsWith(PREFIX)) ids.push(key.slice(PREFIX.length));
    }
    return ids;
  }

  #read(id) {
    const raw = this.#storage.getItem(PREFIX + id);
    return raw === null ? null : readConversation(raw, id);
  }

  #load(id) {
    const found = this.#read(id);
    if (!found) return;
    this.#conversations.set(id, found);
    this.#written.add(id);
  }

  // Newest first.
  list() {
    return [...this.#conversations.values()].sort((a, b) => b.updated - a.updated);
  }

  get(id) {
    return this.#conversations.get(id) ?? null;
  }

  // Nothing is stored until its first save.
  create() {
    const now = this.#now();
    const conversation = {
      id: randomId(8), session: `web_${randomId()}`, conversation: '', title: '', named: false, titled: 0,
      created: now, updated: now, cleared: 0, messages: [],
    };
    this.#conversations.set(conversation.id, conversation);
    return conversation;
  }

  add(conversation, fields) {
    const last = conversation.messages.at(-1);
    const message = { id: randomId(8), at: Math.max(this.#now(), (last?.at ?? 0) + 1, conversation.cleared + 1), rev: 1, text: '', state: 'done', ...fields };
    conversation.messages.push(message);
    conversation.updated = this.#now();
    return message;
  }

  // Whether an answer is on its way in this or another tab that still lives.
  isRunning(message) {
    return isRunning(message) && this.#now() - message.alive < DEAD_MS;
  }

  clear(conversation) {
    conversation.cleared = Math.max(this.#now(), conversation.messages.at(-1)?.at ?? 0);
    conversation.messages = [];
    conversation.conversation = '';
    if (!conversation.named) conversation.title = '';
    conversation.titled = this.#now();
  }

  // False when another tab has deleted it meanwhile: then it is gone here, too.
  save(conversation) {
    if (!this.#conversations.has(conversation.id)) return false;
    if (!this.#storage) return true;
    const stored = this.#read(conversation.id);
    if (!stored && this.#written.has(conversation.id)) {
      this.#forget(conversation.id);
      return false;
    }
    if (stored) merge(conversation, stored);
    this.#write(conversation);
    this.#drop(this.list().slice(this.#limits.conversations));
    return true;
  }

  #write(conversation) {
    const raw = JSON.stringify(trimmed(conversation, this.#limits));
    for (;;) {
      try {
        this.#storage.setItem(PREFIX + conversation.id, raw);
        this.#written.add(conversation.id);
        return;
      } catch {
        // Full: the oldest conversations make room, but none that may be open somewhere.
        const oldest = this.list().reverse().find((other) => other !== conversation && this.#written.has(other.id) &&
          this.#now() - other.updated > RECENT_MS);
        this.#trouble('full');
        if (!oldest) return;
        this.#drop([oldest]);
      }
    }
  }

  #forget(id) {
    this.#conversations.delete(id);
    this.#written.delete(id);
  }

  #drop(conversations) {
    for (const { id } of conversations) {
      this.#forget(id);
      try {
        this.#storage?.removeItem(PREFIX + id);
      } catch {
        // It stays in storage, and is there again when the page is next opened.
      }
    }
  }

  remove(id) {
    const found = this.get(id);
    if (found) this.#drop([found]);
  }

  // Another tab has written `key` (null: everything was thrown away). The ids of what has changed here.
  heard(key) {
    if (!this.#storage || (key !== null && !key.startsWith(PREFIX))) return [];
    const ids = key === null ? [...this.#written] : [key.slice(PREFIX.length)];
    for (const id of ids) {
      const stored = this.#read(id);
      const mine = this.get(id);
      if (!stored && this.#written.has(id)) this.#forget(id);
      else if (stored && mine) merge(mine, stored);
      else if (stored) this.#load(id);
    }
    return ids;
  }
}

// The browser's storage of this kind ('localStorage', 'sessionStorage'), or null where it is closed to us.
export function browserStorage(kind) {
  try {
    const storage = window[kind];
    storage.getItem(PREFIX);
    return storage;
  } catch {
    return null;
  }
}
