/*
 * composer.js - where the visitor writes. Enter sends, but not the Enter that ends the composition of a Chinese word.
 */
import { icon } from './dom.js';

export class Composer {
  #area;
  #button;
  #page;
  #composing = false;

  // page: { texts, send(text), stop(), typed(text), isRunning() }
  constructor(form, page) {
    this.#page = page;
    this.#area = form.querySelector('textarea');
    this.#button = form.querySelector('button');
    this.#area.addEventListener('input', () => {
      this.#fit();
      page.typed(this.#area.value);
      this.refresh();
    });
    this.#area.addEventListener('compositionstart', () => {
      this.#composing = true;
    });
    this.#area.addEventListener('compositionend', () => {
      this.#composing = false;
    });
    this.#area.addEventListener('keydown', (event) => this.#key(event));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (page.isRunning()) page.stop();
      else this.#send();
      this.focus(); // the button is another one now
    });
    addEventListener('resize', () => this.#fit());
    this.translate();
  }

  translate() {
    const { texts } = this.#page;
    this.#area.placeholder = texts.placeholder;
    this.#area.setAttribute('aria-label', texts.messageLabel);
    this.refresh();
  }

  // Some browsers end the composition before the key event of its Enter; that one has the code 229.
  isComposing(event) {
    return this.#composing || event.isComposing || event.keyCode === 229;
  }

  #key(event) {
    if (event.key !== 'Enter' || event.shiftKey || event.ctrlKey || event.altKey || event.metaKey || this.isComposing(event)) return;
    event.preventDefault();
    if (!this.#page.isRunning()) this.#send();
  }

  #send() {
    const text = this.#area.value;
    if (text.trim() === '') return;
    this.text = '';
    this.#page.send(text);
  }

  get text() {
    return this.#area.value;
  }

  set text(value) {
    this.#area.value = value;
    this.#page.typed(value);
    this.#fit();
    this.refresh();
  }

  // A phone's keyboard should come when it is wanted.
  focus({ always = false } = {}) {
    if (always || matchMedia('(hover: hover) and (pointer: fine)').matches) this.#area.focus({ preventScroll: true });
  }

  #fit() {
    this.#area.style.height = 'auto';
    this.#area.style.height = `${this.#area.scrollHeight}px`;
  }

  // The button sends, or stops while an answer comes.
  refresh() {
    const { texts, isRunning } = this.#page;
    const running = isRunning();
    const label = running ? texts.stop : texts.send;
    this.#button.classList.toggle('stop', running);
    this.#button.setAttribute('aria-label', label);
    this.#button.title = label;
    this.#button.disabled = !running && this.#area.value.trim() === '';
    const name = running ? 'stop' : 'send';
    if (this.#button.dataset.icon !== name) {
      this.#button.dataset.icon = name;
      this.#button.replaceChildren(icon(name));
    }
  }
}
