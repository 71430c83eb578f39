import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import test from 'node:test';

import { Store, merge, readConversation, trimmed } from '../../nginx/app/store.js';

globalThis.crypto ??= webcrypto;

const PREFIX = 'coze-chat:conversation:';
const HOUR = 3_600_000;

// A browser's storage that holds `most` characters.
class FakeStorage {
  constructor(most = Infinity) {
    this.most = most;
    this.items = new Map();
  }

  get length() {
    return this.items.size;
  }

  key(index) {
    return [...this.items.keys()][index] ?? null;
  }

  getItem(key) {
    return this.items.get(key) ?? null;
  }

  setItem(key, value) {
    const others = [...this.items].filter(([name]) => name !== key);
    const used = others.reduce((sum, [name, text]) => sum + name.length + text.length, 0);
    if (used + key.length + value.length > this.most) throw new Error('QuotaExceededError');
    this.items.set(key, value);
  }

  removeItem(key) {
    this.items.delete(key);
  }
}

function open(storage, options = {}) {
  const clock = { now: 1_000_000 };
  const troubles = [];
  const store = new Store(storage, { now: () => clock.now, trouble: (what) => troubles.push(what), ...options });
  return { store, clock, troubles };
}

function say(store, conversation, text) {
  store.add(conversation, { role: 'user', text });
  store.add(conversation, { role: 'assistant', text: `answer to ${text}` });
  assert.ok(store.save(conversation));
}

const texts = (conversation) => conversation.messages.map((message) => message.text);

test('what is saved is there when the page is opened again', () => {
  const storage = new FakeStorage();
  const { store } = open(storage);
  const made = store.create();
  made.title = '标题';
  made.conversation = '742';
  say(store, made, '你好');
  const found = open(storage).store.get(made.id);
  assert.deepEqual(JSON.parse(JSON.stringify(found)), JSON.parse(JSON.stringify(made)));
});

test('a conversation without a message is not stored', () => {
  const storage = new FakeStorage();
  open(storage).store.create();
  assert.equal(storage.length, 0);
});

test('session ids are long, random and fit the service', () => {
  const { store } = open(new FakeStorage());
  const sessions = new Set(Array.from({ length: 100 }, () => store.create().session));
  assert.equal(sessions.size, 100);
  for (const session of sessions) assert.match(session, /^web_[0-9a-f]{32}$/);
});

test('rubbish in storage is passed over and left alone', () => {
  for (const raw of ['', 'null', '7', '[]', '{', '{"v":2,"session":"s"}', '{"v":1}', '{"v":1,"session":7}']) {
    const storage = new FakeStorage();
    storage.setItem(`${PREFIX}x`, raw);
    storage.setItem('somebody else', 'x');
    assert.deepEqual(open(storage).store.list(), [], raw);
    assert.equal(storage.getItem(`${PREFIX}x`), raw);
  }
});

test('of a damaged conversation the sound messages are read', () => {
  const raw = JSON.stringify({
    v: 1, session: 's', title: 7, messages: [null, 7, {}, { id: 'a', role: 'system' }, { id: 'b', role: 'user', text: {}, at: 'x' },
      { id: 'c', role: 'assistant', text: 'ok', state: 'failed', failure: 7 }],
  });
  const found = readConversation(raw, 'x');
  assert.deepEqual(found.messages.map((message) => message.id), ['b', 'c']);
  assert.equal(found.messages[1].failure.kind, 'cut');
  assert.equal(found.title, '');
});

test('two tabs that write to one conversation lose nothing', () => {
  const storage = new FakeStorage();
  const first = open(storage);
  const mine = first.store.create();
  say(first.store, mine, 'one');
  const second = open(storage);
  second.clock.now += 10;
  say(second.store, second.store.get(mine.id), 'two');
  first.clock.now += 20;
  say(first.store, mine, 'three');
  const all = ['one', 'answer to one', 'two', 'answer to two', 'three', 'answer to three'];
  assert.deepEqual(texts(mine), all);
  assert.deepEqual(second.store.heard(PREFIX + mine.id), [mine.id]);
  assert.deepEqual(texts(second.store.get(mine.id)), all);
});

test('an answer that grows in one tab is seen in the other, and not overwritten by it', () => {
  const storage = new FakeStorage();
  const first = open(storage);
  const mine = first.store.create();
  const answer = first.store.add(mine, { role: 'assistant', state: 'streaming', alive: 1_000_000, text: 'a' });
  first.store.save(mine);
  const second = open(storage);
  const theirs = second.store.get(mine.id);
  assert.ok(second.store.isRunning(theirs.messages[0]));
  Object.assign(answer, { text: 'abc', rev: 2 });
  first.store.save(mine);
  theirs.title = 'renamed';
  theirs.titled = 5;
  second.store.save(theirs);
  assert.deepEqual(texts(theirs), ['abc']);
  first.store.heard(PREFIX + mine.id);
  assert.equal(mine.title, 'renamed');
  assert.equal(mine.messages[0], answer); // who shows it has it still in hand
});

test('an answer whose tab is dead is not running any more', () => {
  const { store, clock } = open(new FakeStorage());
  const message = store.add(store.create(), { role: 'assistant', state: 'waiting', alive: clock.now });
  assert.ok(store.isRunning(message));
  clock.now += 60_000;
  assert.ok(!store.isRunning(message));
});

test('a clear in one tab wins over what the other still has', () => {
  const storage = new FakeStorage();
  const first = open(storage);
  const mine = first.store.create();
  mine.conversation = '742';
  say(first.store, mine, 'secret');
  const second = open(storage);
  const theirs = second.store.get(mine.id);
  first.clock.now += 100;
  first.store.clear(mine);
  first.store.save(mine);
  second.store.save(theirs);
  assert.deepEqual(texts(theirs), []);
  assert.equal(theirs.conversation, '');
  assert.ok(!storage.getItem(PREFIX + mine.id).includes('secret'));
  say(second.store, theirs, 'new');
  assert.deepEqual(texts(theirs), ['new', 'answer to new']);
});

test('a conversation that another tab has deleted does not come back', () => {
  const storage = new FakeStorage();
  const first = open(storage);
  const mine = first.store.create();
  say(first.store, mine, 'one');
  const second = open(storage);
  second.store.remove(mine.id);
  assert.equal(first.store.save(mine), false);
  assert.equal(first.store.get(mine.id), null);
  assert.equal(storage.length, 0);
});

test('when everything is thrown away, the other tab notices', () => {
  const storage = new FakeStorage();
  const { store } = open(storage);
  say(store, store.create(), 'one');
  storage.items.clear();
  assert.equal(store.heard(null).length, 1);
  assert.deepEqual(store.list(), []);
});

test('without storage everything works until the page is closed', () => {
  const { store, troubles } = open(null);
  const made = store.create();
  say(store, made, 'one');
  assert.deepEqual(troubles, ['blocked']);
  assert.equal(store.get(made.id), made);
  store.remove(made.id);
  assert.deepEqual(store.list(), []);
});

test('full storage: old conversations make room, new ones do not go', () => {
  const storage = new FakeStorage(30_000);
  const { store, clock, troubles } = open(storage);
  const ids = [];
  for (let i = 0; i < 5; i++) {
    const made = store.create();
    say(store, made, 'x'.repeat(5000));
    ids.push(made.id);
    clock.now += 2 * HOUR;
  }
  assert.ok(troubles.includes('full'));
  assert.equal(store.get(ids[0]), null);
  assert.ok(store.get(ids[4]));
  assert.ok(storage.getItem(PREFIX + ids[4]));
});

test('storage that takes nothing at all: the page goes on', () => {
  const { store, troubles } = open(new FakeStorage(10));
  const made = store.create();
  say(store, made, 'one');
  say(store, made, 'two');
  assert.equal(texts(made).length, 4);
  assert.ok(troubles.includes('full'));
});

test('at most so many conversations are kept', () => {
  const storage = new FakeStorage();
  const { store, clock } = open(storage, { limits: { conversations: 3, messages: 10, text: 100, characters: 1000 } });
  for (let i = 0; i < 5; i++) {
    say(store, store.create(), `message ${i}`);
    clock.now += 1;
  }
  assert.equal(storage.length, 3);
  assert.ok(texts(store.list()[0]).includes('message 4'));
});

test('storage gets the newest messages, and the beginning of each; memory has all', () => {
  const { store } = open(new FakeStorage());
  const made = store.create();
  for (let i = 0; i < 20; i++) store.add(made, { role: 'user', text: String(i).repeat(80) });
  const kept = trimmed(made, { messages: 10, text: 50, characters: 300 });
  assert.equal(kept.messages.length, 6);
  assert.ok(kept.messages.every((message) => message.text.length === 50 && message.cut));
  assert.match(kept.messages.at(-1).text, /^1919/);
  assert.equal(made.messages.length, 20);
  assert.ok(!made.messages[0].cut);
});

test('a long answer is not shortened by what storage has of it', () => {
  const storage = new FakeStorage();
  const { store } = open(storage, { limits: { conversations: 3, messages: 10, text: 10, characters: 1000 } });
  const made = store.create();
  say(store, made, 'x'.repeat(50));
  store.heard(PREFIX + made.id);
  store.save(made);
  assert.equal(made.messages[0].text.length, 50);
});

test('no two messages have the same place', () => {
  const { store } = open(new FakeStorage());
  const made = store.create();
  for (let i = 0; i < 5; i++) store.add(made, { role: 'user', text: String(i) });
  assert.equal(new Set(made.messages.map((message) => message.at)).size, 5);
});

test('merging is the same in either order', () => {
  const base = { id: 'x', session: 's', conversation: '', title: 'a', named: false, titled: 1, created: 0, updated: 5, cleared: 0 };
  const one = () => ({ ...base, messages: [{ id: '1', at: 1, rev: 1, text: 'a' }, { id: '2', at: 2, rev: 5, text: 'new' }] });
  const other = () => ({ ...base, title: 'b', titled: 2, updated: 7, messages: [{ id: '3', at: 3, rev: 1, text: 'c' }, { id: '2', at: 2, rev: 4, text: 'old' }] });
  const left = one();
  merge(left, other());
  const right = other();
  merge(right, one());
  assert.deepEqual(left, right);
});
