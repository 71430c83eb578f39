/*
 * turns.js - a message and its answer, from sending to the last word. Changes the store; the page is told by `changed`.
 *
 * An answer goes waiting → streaming → done | stopped | failed, and from the last two back to waiting when it is asked
 * again. Each conversation has one turn at a time, and several may have one.
 */
import { Failure } from './api.js';

const SAVE_MS = 1000; // while words come
const ALIVE_MS = 5000;
// The service keeps a session for a day by default. Binding anew is cheap, and does nothing to one that is still there.
const REBIND_MS = 3_600_000;

export class Turns {
  #api;
  #store;
  #user;
  #changed;
  #running = new Map(); // by conversation id

  // changed(conversation, answer): its text or its state has. user(): the user_id.
  constructor({ api, store, user, changed }) {
    this.#api = api;
    this.#store = store;
    this.#user = user;
    this.#changed = changed;
    setInterval(() => this.#stayAlive(), ALIVE_MS);
  }

  isRunning(id) {
    return this.#running.has(id);
  }

  // Whether this message is one that this tab is receiving.
  owns(conversation, answer) {
    return this.#running.get(conversation.id)?.answer === answer;
  }

  get any() {
    return this.#running.size > 0;
  }

  send(conversation, text) {
    const idle = Date.now() - conversation.updated;
    this.#store.add(conversation, { role: 'user', text });
    const answer = this.#store.add(conversation, { role: 'assistant', state: 'waiting', alive: Date.now() });
    return this.#run(conversation, text, answer, idle);
  }

  // The question of this answer, once more.
  retry(conversation, answer) {
    const question = questionOf(conversation, answer);
    if (!question || this.isRunning(conversation.id)) return undefined;
    Object.assign(answer, { state: 'waiting', text: '', failure: undefined, cut: undefined, alive: Date.now(), rev: answer.rev + 1 });
    return this.#run(conversation, question.text, answer, Date.now() - conversation.updated);
  }

  // The question and its answer are as if never sent. Returns the question's text.
  takeBack(conversation, answer) {
    const question = questionOf(conversation, answer);
    const text = question?.text ?? '';
    for (const message of [question, answer]) {
      if (message) Object.assign(message, { state: 'gone', text: '', failure: undefined, rev: message.rev + 1 });
    }
    this.#store.save(conversation);
    return text;
  }

  // Closing the request is all it takes: the service then cancels the chat at Coze.
  stop(id) {
    this.#running.get(id)?.control.abort();
  }

  // The page is being left: what has come is kept, as the end of the requests will not be seen any more.
  leave() {
    for (const turn of this.#running.values()) {
      turn.control.abort();
      this.#finish(turn, 'stopped');
    }
  }

  async #run(conversation, text, answer, idle) {
    const turn = { conversation, answer, control: new AbortController(), saved: Date.now(), over: false };
    const { signal } = turn.control;
    this.#running.set(conversation.id, turn);
    conversation.updated = Date.now();
    this.#store.save(conversation);
    this.#changed(conversation, answer);
    try {
      if (conversation.conversation && idle > REBIND_MS) await this.#rebind(conversation, signal);
      const end = await this.#api.stream(
        { message: text, session_id: conversation.session, user_id: this.#user() },
        { signal, started: () => {}, chunk: (piece) => this.#grow(turn, piece) },
      );
      if (typeof end.full_content === 'string') answer.text = end.full_content;
      if (end.conversation_id && answer.at > conversation.cleared) conversation.conversation = end.conversation_id;
      this.#finish(turn, 'done');
    } catch (error) {
      const failure = error instanceof Failure ? error : new Failure('cut');
      if (failure.kind === 'stopped') this.#finish(turn, 'stopped');
      else this.#finish(turn, 'failed', failure);
    }
  }

  async #rebind(conversation, signal) {
    try {
      await this.#api.bind(conversation.session, conversation.conversation, signal);
    } catch {
      // The message itself will tell, if it does not get through either.
    }
  }

  #grow(turn, piece) {
    const { conversation, answer } = turn;
    if (turn.over) return;
    answer.text += piece;
    answer.state = 'streaming';
    if (Date.now() - turn.saved > SAVE_MS) this.#keep(turn);
    this.#changed(conversation, answer);
  }

  #keep(turn) {
    turn.saved = Date.now();
    turn.answer.alive = turn.saved;
    turn.answer.rev += 1;
    // Deleted in another tab: nobody wants the rest.
    if (!this.#store.save(turn.conversation)) turn.control.abort();
  }

  #stayAlive() {
    for (const turn of this.#running.values()) this.#keep(turn);
  }

  #finish(turn, state, failure) {
    const { conversation, answer } = turn;
    if (turn.over) return;
    turn.over = true;
    this.#running.delete(conversation.id);
    answer.state = state;
    answer.alive = undefined;
    answer.rev += 1;
    if (failure) {
      const { kind, status, detail, request, wait } = failure;
      answer.failure = { kind, status, detail, request, until: wait ? Date.now() + wait * 1000 : 0 };
    }
    conversation.updated = Date.now();
    this.#store.save(conversation);
    this.#changed(conversation, answer);
  }
}

function questionOf(conversation, answer) {
  const before = conversation.messages.slice(0, conversation.messages.indexOf(answer));
  return before.reverse().find((message) => message.role === 'user' && message.state !== 'gone');
}
