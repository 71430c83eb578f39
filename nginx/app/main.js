/*
 * main.js - the page: makes its parts and ties them together.
 *
 * Below it:  sidebar, messages, composer, dialogs   what is seen
 *            turns                                  a message and its answer
 *            api, sse                               talking to the service
 *            store, settings                        what the browser keeps
 *            markdown, naming, texts, scroll, announcer, dom
 * Plain modules: what stands here is what the browser runs. No HTML is ever made of a string.
 */
import { Announcer } from './announcer.js';
import { Api, Failure, loadConfig } from './api.js';
import { Composer } from './composer.js';
import { askKey, askName, confirm, openMenu } from './dialogs.js';
import { el } from './dom.js';
import { loadMarkdown, showLine } from './markdown.js';
import { Messages } from './messages.js';
import { nameOf, tidy } from './naming.js';
import { Scroll } from './scroll.js';
import { settings } from './settings.js';
import { Sidebar } from './sidebar.js';
import { Store, browserStorage } from './store.js';
import { textsFor } from './texts.js';
import { Turns } from './turns.js';

const PATIENCE_MS = 500;
const TOLD_MS = 4000;
const LOOK_MS = 5000; // at answers that come in other tabs
const HEALTH_MS = [2000, 4000, 8000, 15_000];

const at = (id) => document.getElementById(id);

class Page {
  #texts;
  #store;
  #api;
  #turns;
  #current = null; // the conversation that is shown; null: one that has no message yet
  #trouble = '';
  #notice = '';
  #awaiting = []; // whom to tell when the service is back
  #told = 0;

  async start() {
    this.#chooseTexts();
    this.#store = new Store(browserStorage('localStorage'), { trouble: (what) => this.#troubled(what) });
    this.#api = new Api(() => settings.key);
    this.#turns = new Turns({
      api: this.#api, store: this.#store, user: () => settings.user,
      changed: (conversation, answer) => this.#turnChanged(conversation, answer),
    });
    this.#makeParts();
    this.#listen();
    this.#translate();
    const markdown = loadMarkdown();
    loadConfig().then(({ notice }) => {
      this.#notice = notice;
      this.#showNotice();
    });
    // It usually is there at once. On a slow line the page does not wait for it, and is drawn again.
    let late = true;
    markdown.then(() => {
      late = false;
      this.#showNotice();
    });
    await Promise.race([markdown, new Promise((resolve) => setTimeout(resolve, PATIENCE_MS))]);
    this.#show(this.#store.get(settings.current) ?? (settings.current === 'new' ? null : this.#store.list()[0]) ?? null);
    document.body.classList.add('ready');
    this.composer.focus();
    if (late && await markdown) {
      this.messages.reset();
      this.#refresh();
    }
  }

  #chooseTexts() {
    this.#texts = textsFor(settings.language, navigator.languages ?? [navigator.language]);
  }

  // --- parts --------------------------------------------------------------------------------------------------------

  #makeParts() {
    const page = this;
    // The words may change, so everybody asks for them anew.
    const shared = { get texts() { return page.#texts; }, act: this.#actions(), settings, store: this.#store };
    this.announcer = new Announcer(at('spoken'));
    this.composer = new Composer(at('composer'), {
      get texts() { return page.#texts; },
      send: (text) => this.#send(text),
      stop: () => this.#stop(),
      typed: (text) => settings.setDraft(this.#current?.id ?? 'new', text),
      isRunning: () => this.#isRunning,
    });
    this.messages = new Messages(at('messages'), {
      get texts() { return page.#texts; },
      act: shared.act, store: this.#store, announcer: this.announcer,
      owns: (message) => this.#current !== null && this.#turns.owns(this.#current, message),
    });
    this.sidebar = new Sidebar(at('sidebar'), at('main'), {
      get texts() { return page.#texts; }, settings, act: shared.act, hasKey: () => settings.key !== '',
    });
    this.scroll = new Scroll(at('log'), at('content'), (follows) => {
      at('latest').hidden = follows;
    });
  }

  // What the buttons of the parts do.
  #actions() {
    return {
      open: (id) => this.#open(this.#store.get(id)),
      startNew: () => this.#open(null),
      itemsOf: (conversation) => this.#itemsOf(conversation),
      switchLanguage: () => this.#switchLanguage(),
      removeAll: () => this.#removeAll(),
      forgetKey: () => {
        settings.setKey('', false);
        this.#tell(this.#texts.keyForgotten);
      },
      retry: (answer) => this.#retry(answer),
      edit: (answer) => this.#edit(answer),
      enterKey: (answer) => this.#enterKey(answer),
      awaitService: (told) => this.#awaitService(told),
      tell: (words) => this.#tell(words),
    };
  }

  #listen() {
    at('open-list').addEventListener('click', () => this.sidebar.open(at('open-list')));
    at('new').addEventListener('click', () => this.#open(null));
    at('actions').addEventListener('click', () => openMenu(at('actions'), this.#itemsOf(this.#current)));
    at('latest').addEventListener('click', () => {
      this.scroll.toEnd();
      this.composer.focus();
    });
    at('skip').addEventListener('click', (event) => {
      event.preventDefault();
      this.composer.focus({ always: true });
    });
    document.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || event.defaultPrevented || this.composer.isComposing(event)) return;
      if (document.querySelector('dialog[open]') || this.sidebar.isOpen) return;
      this.#stop();
    });
    addEventListener('storage', (event) => {
      if (event.storageArea === browserStorage('localStorage')) this.#heard(event.key);
    });
    addEventListener('pagehide', () => this.#turns.leave());
    addEventListener('online', () => this.#showBanner());
    addEventListener('offline', () => this.#showBanner());
    setInterval(() => {
      const others = this.#current?.messages.filter((message) => ['waiting', 'streaming'].includes(message.state) && !this.#turns.owns(this.#current, message));
      others?.forEach((message) => this.messages.update(message));
    }, LOOK_MS);
  }

  // --- what is shown ------------------------------------------------------------------------------------------------

  get #isRunning() {
    return this.#current !== null && this.#turns.isRunning(this.#current.id);
  }

  #translate() {
    const texts = this.#texts;
    document.documentElement.lang = texts.tag;
    for (const [id, name] of [['skip', 'skip'], ['keys', 'keys'], ['disclaimer', 'disclaimer'], ['greeting', 'greeting'], ['welcome', 'welcome']]) {
      at(id).textContent = texts[name];
    }
    for (const [id, name] of [['open-list', 'openList'], ['new', 'newConversation'], ['actions', 'actions'], ['latest', 'latest']]) {
      at(id).setAttribute('aria-label', texts[name]);
      at(id).title = texts[name];
    }
    at('log').setAttribute('aria-label', texts.log);
    at('starters').setAttribute('aria-label', texts.startersLabel);
    at('starters').replaceChildren(...texts.starters.map((words) => el('li', {},
      el('button', {
        type: 'button',
        on_click: () => {
          this.composer.text = words;
          this.composer.focus({ always: true });
        },
      }, words))));
    this.#showNotice();
    this.#showBanner();
    this.composer.translate();
    this.sidebar.build();
  }

  #switchLanguage() {
    settings.language = this.#texts.tag === 'en' ? 'zh' : 'en';
    this.#chooseTexts();
    this.#translate();
    this.messages.reset();
    this.#refresh();
    at('sidebar').querySelector('.language').focus();
  }

  #open(conversation) {
    this.sidebar.close(false);
    this.#show(conversation);
    this.composer.focus();
  }

  #show(conversation) {
    if (this.#current !== conversation) this.announcer.silence();
    this.#current = conversation;
    settings.current = conversation?.id ?? 'new';
    this.messages.reset();
    this.composer.text = settings.draft(conversation?.id ?? 'new');
    this.#refresh();
    this.scroll.toEnd();
  }

  #refresh() {
    const conversation = this.#current;
    const title = conversation?.title || this.#texts.untitled;
    const messages = conversation?.messages ?? [];
    at('title').textContent = title;
    document.title = conversation?.title ? `${conversation.title} · ${this.#texts.name}` : this.#texts.name;
    at('actions').hidden = conversation === null;
    at('empty').hidden = messages.some((message) => message.state !== 'gone');
    this.messages.show(messages);
    this.#refreshList();
    this.composer.refresh();
  }

  #refreshList() {
    this.sidebar.show(this.#store.list(), this.#current?.id, (conversation) => this.#turns.isRunning(conversation.id));
  }

  #showNotice() {
    at('notice').setAttribute('aria-label', this.#texts.notice);
    at('notice').hidden = this.#notice === '';
    showLine(at('notice-words'), this.#notice, this.#texts.markdown);
  }

  #showBanner() {
    const texts = this.#texts;
    const words = navigator.onLine === false ? texts.offline : this.#trouble ? texts[this.#trouble] : '';
    at('banner').textContent = words;
    at('banner').hidden = words === '';
  }

  #troubled(what) {
    if (this.#trouble === what) return;
    this.#trouble = what;
    this.#showBanner();
  }

  // A word about what has just been done, for a few seconds.
  #tell(words) {
    clearTimeout(this.#told);
    at('told').textContent = words;
    at('told').classList.add('shown');
    this.#told = setTimeout(() => {
      at('told').classList.remove('shown');
      at('told').textContent = '';
    }, TOLD_MS);
  }

  // --- talking ------------------------------------------------------------------------------------------------------

  #send(text) {
    const conversation = this.#current ?? this.#store.create();
    if (!conversation.title) {
      conversation.title = nameOf(text);
      conversation.titled = Date.now();
    }
    if (this.#current === null) {
      settings.setDraft('new', '');
      this.#current = conversation;
      settings.current = conversation.id;
    }
    this.#turns.send(conversation, text);
    this.#refresh();
    this.scroll.toEnd();
  }

  #stop() {
    if (this.#current) this.#turns.stop(this.#current.id);
  }

  #retry(answer) {
    this.#turns.retry(this.#current, answer);
    this.composer.focus();
  }

  #edit(answer) {
    const text = this.#turns.takeBack(this.#current, answer);
    if (this.composer.text.trim() === '') this.composer.text = text;
    this.#refresh();
    this.composer.focus({ always: true });
  }

  async #enterKey(answer) {
    const conversation = this.#current;
    const given = await askKey(this.#texts, settings.key !== '');
    if (!given) return;
    settings.setKey(given.key, given.remember);
    this.#turns.retry(conversation, answer);
    this.composer.focus();
  }

  #turnChanged(conversation, answer) {
    const running = this.#turns.isRunning(conversation.id);
    if (conversation === this.#current) this.messages.update(answer);
    if (answer.state !== 'streaming') {
      this.#refreshList();
      this.composer.refresh();
    }
    if (!running && answer.failure?.kind === 'key' && conversation === this.#current) this.#enterKey(answer);
  }

  // Asks now and then whether the service is there again, and tells once.
  #awaitService(told) {
    this.#awaiting.push(told);
    if (this.#awaiting.length > 1) return;
    let tries = 0;
    const look = async () => {
      if (!document.hidden && await this.#api.healthy()) {
        this.#awaiting.splice(0).forEach((tell) => tell());
      } else {
        setTimeout(look, HEALTH_MS[Math.min(tries++, HEALTH_MS.length - 1)]);
      }
    };
    setTimeout(look, HEALTH_MS[0]);
  }

  // --- conversations ------------------------------------------------------------------------------------------------

  #itemsOf(conversation) {
    const texts = this.#texts;
    return [
      { label: texts.rename, icon: 'edit', act: () => this.#rename(conversation) },
      { label: texts.clear, icon: 'broom', act: () => this.#clear(conversation) },
      { label: texts.remove, icon: 'trash', danger: true, act: () => this.#remove(conversation) },
    ];
  }

  async #rename(conversation) {
    const answer = await askName(this.#texts, conversation.title);
    if (answer === null) return;
    const name = tidy(answer);
    const first = conversation.messages.find((message) => message.role === 'user' && message.text);
    conversation.title = name || (first ? nameOf(first.text) : '');
    conversation.named = name !== '';
    conversation.titled = Date.now();
    this.#store.save(conversation);
    this.#refresh();
  }

  async #clear(conversation) {
    const texts = this.#texts;
    if (!await confirm(texts, texts.clearTitle, texts.clearBody, texts.clear)) return;
    this.#turns.stop(conversation.id);
    if (!await this.#forgetAtService(conversation)) return;
    this.#store.clear(conversation);
    this.#store.save(conversation);
    this.#refresh();
    this.#tell(texts.cleared);
    this.composer.focus();
  }

  // Says so, and is false, when the service did not do it: what is not forgotten there should not look so here.
  async #forgetAtService(conversation) {
    try {
      await this.#api.clear(conversation.session);
      return true;
    } catch (error) {
      const words = error instanceof Failure && error.kind !== 'network' ? this.#texts.failures[error.kind]?.[0] : null;
      this.#tell(words ?? this.#texts.clearFailed);
      return false;
    }
  }

  async #remove(conversation) {
    const texts = this.#texts;
    if (!await confirm(texts, texts.removeTitle(conversation.title || texts.untitled), texts.removeBody, texts.remove)) return;
    this.#drop(conversation);
    this.#tell(texts.removed);
  }

  async #removeAll() {
    const texts = this.#texts;
    if (!await confirm(texts, texts.removeAllTitle, texts.removeAllBody, texts.removeAll)) return;
    for (const conversation of this.#store.list()) this.#drop(conversation);
    this.#tell(texts.removedAll);
  }

  // From this device at once. The service forgets it too, today or when the session expires.
  #drop(conversation) {
    this.#turns.stop(conversation.id);
    this.#store.remove(conversation.id);
    settings.setDraft(conversation.id, '');
    this.#api.clear(conversation.session).catch(() => {});
    if (conversation === this.#current) this.#open(this.#store.list()[0] ?? null);
    else this.#refreshList();
  }

  // Another tab has changed something.
  #heard(key) {
    const changed = this.#store.heard(key);
    if (changed.length === 0) return;
    for (const id of changed) {
      if (!this.#store.get(id)) this.#turns.stop(id);
    }
    if (this.#current && changed.includes(this.#current.id)) {
      if (this.#store.get(this.#current.id)) this.#refresh();
      else this.#show(null);
    } else {
      this.#refreshList();
    }
  }
}

new Page().start();
