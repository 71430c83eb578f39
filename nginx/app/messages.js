/*
 * messages.js - the messages of the conversation that is shown.
 */
import { copyText, el, icon, iconButton } from './dom.js';
import { Answer } from './markdown.js';

const STILL_MS = 8000;
const LONG_MS = 25_000;
const PATIENCE = 6; // drawing takes at most one part in so many of the time
const SPOKEN_MAX = 4000; // characters of plain text at once

const RETRY = ['busy', 'too_fast', 'unavailable', 'service', 'network', 'cut'];
const EDIT = ['too_long', 'refused'];

function time(at, tag) {
  const date = new Date(at);
  const sameDay = date.toDateString() === new Date().toDateString();
  const options = sameDay ? { hour: '2-digit', minute: '2-digit' } : { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit' };
  return el('time', { datetime: date.toISOString() }, date.toLocaleString(tag, options));
}

class Question {
  constructor(message, texts) {
    this.root = el('li', { class: 'message question' },
      el('h2', { class: 'away' }, texts.you),
      el('div', { class: 'bubble', dir: 'auto' }, message.text),
      message.cut && el('p', { class: 'aside' }, texts.shortened));
  }

  update() {}
  close() {}
}

class Reply {
  #page;
  #message;
  #answer;
  #body;
  #after;
  #frame = 0;
  #pause = 0; // no drawing before this time
  #waiting = null; // timers and element while nothing has come
  #countdown = 0;
  #state = '';
  #rev = 0;

  // page: { texts, act, announcer, store }; act has the functions behind the buttons.
  constructor(message, page) {
    this.#page = page;
    this.#message = message;
    this.#body = el('div', { class: 'answer' });
    this.#after = el('div', { class: 'after' });
    this.#answer = new Answer(this.#body, page.texts.markdown);
    this.root = el('li', { class: 'message reply' },
      el('span', { class: 'avatar', 'aria-hidden': 'true' }, icon('mark')),
      el('div', { class: 'content' },
        el('h2', { class: 'away' }, page.texts.bot),
        this.#body,
        this.#after));
    this.update();
  }

  // Call when the message has changed. Many changes are drawn at once.
  update() {
    const running = this.#page.store.isRunning(this.#message);
    if (running && this.#state === this.#message.state && this.#state === 'streaming') this.#drawSoon();
    else this.#draw();
  }

  #drawSoon() {
    if (this.#frame) return;
    const wait = this.#pause - performance.now();
    // A timer where no frames come, as in a tab that is not seen.
    if (wait > 20 || document.hidden) this.#frame = setTimeout(() => this.#draw(), Math.max(wait, 200));
    else this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    clearTimeout(this.#frame);
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const begun = performance.now();
    const message = this.#message;
    const { store, announcer, texts } = this.#page;
    const running = store.isRunning(message);
    const live = this.#state === 'waiting' || this.#state === 'streaming'; // it was seen coming
    const complete = this.#answer.show(message.text, !running);
    if (live) complete.forEach((block) => announcer.say(block.textContent));
    if (live && !running && this.#answer.isPlain) announcer.say(this.#body.textContent.slice(0, SPOKEN_MAX));

    const state = running ? message.state : ['waiting', 'streaming'].includes(message.state) ? 'stopped' : message.state;
    this.root.classList.toggle('streaming', state === 'streaming');
    this.root.setAttribute('aria-busy', String(running));
    if (state !== this.#state || (!running && message.rev !== this.#rev)) {
      this.#state = state;
      this.#rev = message.rev;
      this.#showState(state, live, texts);
    }
    const took = performance.now() - begun;
    this.#pause = begun + took * PATIENCE;
  }

  #showState(state, live, texts) {
    this.#endWaiting();
    clearInterval(this.#countdown);
    this.#after.replaceChildren();
    switch (state) {
      case 'waiting':
        this.#showWaiting(texts);
        break;
      case 'done':
        if (!this.#message.text) this.#after.append(el('p', { class: 'aside' }, texts.emptyAnswer));
        this.#showActions(texts);
        if (live) this.#page.announcer.say(texts.answered);
        break;
      case 'stopped':
        this.#after.append(el('p', { class: 'aside' }, texts.stopped));
        this.#showActions(texts);
        if (live) this.#page.announcer.say(texts.stopped);
        break;
      case 'failed':
        this.#showFailure(texts, live);
        break;
      default:
    }
  }

  #showWaiting(texts) {
    const { owns, announcer } = this.#page;
    const words = el('span', { class: 'waiting-words' });
    const dots = el('span', { class: 'dots', 'aria-hidden': 'true' }, el('i'), el('i'), el('i'));
    this.#after.append(el('p', { class: 'waiting' }, dots, words));
    if (!owns(this.#message)) {
      words.textContent = texts.elsewhere;
      return;
    }
    const say = (text) => {
      words.textContent = text;
      announcer.say(text);
    };
    announcer.say(texts.thinking);
    this.#waiting = [
      setTimeout(say, STILL_MS, texts.stillThinking),
      setTimeout(say, LONG_MS, texts.longThinking),
    ];
  }

  #endWaiting() {
    this.#waiting?.forEach(clearTimeout);
    this.#waiting = null;
  }

  #showActions(texts) {
    const { act } = this.#page;
    const message = this.#message;
    if (message.cut) this.#after.append(el('p', { class: 'aside' }, texts.shortened));
    const again = this.#state === 'stopped';
    this.#after.append(el('div', { class: 'actions' },
      message.text && copyButton(texts, () => message.text, act),
      again && el('button', { type: 'button', class: 'quiet small', on_click: () => act.retry(message) }, icon('retry'), texts.askAgain),
      time(message.at, texts.tag)));
  }

  #showFailure(texts, live) {
    const { act, announcer } = this.#page;
    const message = this.#message;
    const { kind, detail, request, status } = message.failure ?? { kind: 'cut' };
    const [title, advice] = texts.failures[kind] ?? texts.failures.cut;
    const hint = el('p', { class: 'hint' }, advice);
    const buttons = el('div', { class: 'buttons' });
    if (kind === 'key') buttons.append(button(texts.enterKey, 'key', () => act.enterKey(message)));
    if (kind === 'forbidden') buttons.append(button(texts.newConversation, 'plus', () => act.startNew()));
    if (EDIT.includes(kind)) buttons.append(button(texts.edit, 'edit', () => act.edit(message)));
    if (RETRY.includes(kind)) buttons.append(this.#retryButton(texts));
    // What the service says is for those who run it, but for what it says of the message itself.
    const shown = detail && (kind === 'refused' || kind === 'service');
    this.#after.append(el('div', { class: 'failure', 'data-kind': kind },
      el('p', { class: 'title' }, icon('alert'), title),
      hint,
      shown && el('p', { class: 'detail', dir: 'auto' }, detail),
      kind === 'service' && request && el('p', { class: 'detail' }, texts.request(request), status ? ` (${status})` : ''),
      buttons));
    if (live) announcer.say(`${title}。${advice}`);
    if (kind === 'network') act.awaitService(() => {
      if (!hint.isConnected) return;
      hint.textContent = texts.back;
      announcer.say(texts.back);
    });
  }

  // Cannot be pressed before the time that the service has named.
  #retryButton(texts) {
    const message = this.#message;
    const words = el('span', {}, texts.retry);
    const made = el('button', { type: 'button', class: 'primary', on_click: () => act.retry(message) }, icon('retry'), words);
    const { act } = this.#page;
    const tick = () => {
      const left = Math.ceil(((message.failure?.until ?? 0) - Date.now()) / 1000);
      made.disabled = left > 0;
      words.textContent = left > 0 ? texts.retryIn(left) : texts.retry;
      if (left <= 0) clearInterval(this.#countdown);
    };
    this.#countdown = setInterval(tick, 250);
    tick();
    return made;
  }

  close() {
    this.#endWaiting();
    clearInterval(this.#countdown);
    clearTimeout(this.#frame);
    cancelAnimationFrame(this.#frame);
  }
}

function button(label, name, act) {
  return el('button', { type: 'button', class: 'primary', on_click: act }, icon(name), label);
}

function copyButton(texts, read, act) {
  const made = iconButton('copy', texts.copyAnswer, {
    on_click: async () => {
      const copied = await copyText(read());
      if (copied) showTick(made);
      act.tell(copied ? texts.copied : texts.copyFailed);
    },
  });
  return made;
}

function showTick(made) {
  made.replaceChildren(icon('check'));
  setTimeout(() => made.replaceChildren(icon('copy')), 1500);
}

export class Messages {
  #list;
  #page;
  #views = new Map(); // by message id

  constructor(list, page) {
    this.#list = list;
    this.#page = page;
    list.addEventListener('click', (event) => this.#copyCode(event));
  }

  async #copyCode(event) {
    const pressed = event.target.closest('[data-copy]');
    if (!pressed) return;
    const { texts, act } = this.#page;
    const copied = await copyText(pressed.closest('.code').querySelector('code').textContent);
    if (copied) {
      pressed.textContent = texts.copied;
      setTimeout(() => {
        pressed.textContent = texts.markdown.copyCode;
      }, 1500);
    }
    act.tell(copied ? texts.copied : texts.copyFailed);
  }

  // All anew: another conversation, another language.
  reset() {
    this.#views.forEach((view) => view.close());
    this.#views.clear();
    this.#list.replaceChildren();
  }

  // Adds what is new, takes away what is gone, updates the rest.
  show(messages) {
    const shown = messages.filter((message) => message.state !== 'gone');
    const ids = new Set(shown.map((message) => message.id));
    for (const [id, view] of this.#views) {
      if (ids.has(id)) continue;
      view.close();
      view.root.remove();
      this.#views.delete(id);
    }
    let before = null;
    for (const message of shown) {
      let view = this.#views.get(message.id);
      if (view) {
        view.update();
      } else {
        view = message.role === 'user' ? new Question(message, this.#page.texts) : new Reply(message, this.#page);
        this.#views.set(message.id, view);
      }
      const place = before ? before.nextSibling : this.#list.firstChild;
      if (place !== view.root) this.#list.insertBefore(view.root, place);
      before = view.root;
    }
  }

  // One of them has changed.
  update(message) {
    this.#views.get(message.id)?.update();
  }
}
