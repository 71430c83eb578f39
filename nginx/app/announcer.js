/*
 * announcer.js - what a screen reader says of what happens on the page. It is told whole sentences and paragraphs, never
 * single words as they come.
 */
import { el } from './dom.js';

const KEPT = 12;

export class Announcer {
  #root;

  // root: a polite live region.
  constructor(root) {
    this.#root = root;
  }

  say(text) {
    const words = text.trim();
    if (!words) return;
    this.#root.append(el('p', {}, words));
    while (this.#root.childElementCount > KEPT) this.#root.firstChild.remove();
  }

  silence() {
    this.#root.replaceChildren();
  }
}
