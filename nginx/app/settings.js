/*
 * settings.js - what the visitor has chosen, kept in the browser where it lets us and in memory where not.
 */
import { browserStorage, randomId } from './store.js';

const PREFIX = 'coze-chat:';

class Kept {
  #storage;
  #memory = new Map();

  constructor(kind) {
    this.#storage = browserStorage(kind);
  }

  get(name) {
    return this.#memory.get(name) ?? this.#storage?.getItem(PREFIX + name) ?? '';
  }

  set(name, value) {
    this.#memory.delete(name);
    try {
      if (value) this.#storage.setItem(PREFIX + name, value);
      else this.#storage.removeItem(PREFIX + name);
    } catch {
      this.#memory.set(name, value);
    }
  }
}

const device = new Kept('localStorage');
const tab = new Kept('sessionStorage');

export const settings = {
  get theme() {
    return ['light', 'dark'].includes(device.get('theme')) ? device.get('theme') : 'auto';
  },
  set theme(value) {
    device.set('theme', value === 'auto' ? '' : value);
    dispatchEvent(new Event('themechange'));
  },

  // '' until one is chosen: then the browser's.
  get language() {
    return device.get('language');
  },
  set language(value) {
    device.set('language', value);
  },

  // Who speaks, to Coze: a bot may remember things of a user, and visitors are not one user.
  get user() {
    if (!device.get('user')) device.set('user', `web_${randomId()}`);
    return device.get('user');
  },

  // An API key is forgotten with the tab, unless the visitor asks for more.
  get key() {
    return tab.get('key') || device.get('key');
  },
  setKey(value, remember) {
    tab.set('key', remember ? '' : value);
    device.set('key', remember ? value : '');
  },

  // Which conversation this tab shows.
  get current() {
    return tab.get('current');
  },
  set current(id) {
    tab.set('current', id);
  },

  // What was typed and not sent yet.
  draft(id) {
    return tab.get(`draft:${id}`);
  },
  setDraft(id, text) {
    tab.set(`draft:${id}`, text);
  },
};
