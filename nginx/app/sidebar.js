/*
 * sidebar.js - the list of conversations, and the choices below it. A column on a desktop, a drawer on a phone.
 */
import { el, icon, iconButton } from './dom.js';
import { openMenu } from './dialogs.js';

const NARROW = '(max-width: 51rem)';

export class Sidebar {
  #root;
  #main;
  #page;
  #list;
  #opener = null;
  #narrow = matchMedia(NARROW);

  // page: { texts, settings, act, hasKey }
  constructor(root, main, page) {
    this.#root = root;
    this.#main = main;
    this.#page = page;
    this.#narrow.addEventListener('change', () => this.close(false));
    root.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || !this.isOpen) return;
      event.stopPropagation();
      this.close();
    });
    document.getElementById('shade').addEventListener('click', () => this.close());
    this.build();
  }

  get isOpen() {
    return document.body.classList.contains('drawer');
  }

  // All words anew.
  build() {
    const { texts, act } = this.#page;
    this.#root.setAttribute('aria-label', texts.conversations);
    this.#list = el('ul', { class: 'conversations', role: 'list' });
    this.#root.replaceChildren(
      el('div', { class: 'brand' },
        el('span', { class: 'avatar', 'aria-hidden': 'true' }, icon('mark')),
        el('span', { class: 'name' }, texts.name),
        iconButton('close', texts.closeList, { class: 'icon-button narrow-only', on_click: () => this.close() })),
      el('button', { type: 'button', class: 'new', on_click: () => act.startNew() }, icon('plus'), texts.newConversation),
      this.#list,
      this.#choices());
  }

  #choices() {
    const { texts, settings, act } = this.#page;
    const themes = ['auto', 'light', 'dark'].map((theme) => {
      const radio = el('input', {
        type: 'radio', name: 'theme', value: theme, 'aria-label': texts.themes[theme], title: texts.themes[theme],
        on_change: () => {
          settings.theme = theme;
        },
      });
      radio.checked = settings.theme === theme;
      return el('label', { title: texts.themes[theme] }, radio, icon(theme));
    });
    const more = iconButton('more', texts.settings, {
      'aria-haspopup': 'menu', 'aria-expanded': 'false',
      on_click: () => openMenu(more, [
        ...(this.#page.hasKey() ? [{ label: texts.forgetKey, icon: 'key', act: act.forgetKey }] : []),
        { label: texts.removeAll, icon: 'trash', danger: true, act: act.removeAll },
      ]),
    });
    return el('div', { class: 'choices' },
      el('p', { class: 'aside' }, texts.privacy),
      el('div', { class: 'row' },
        el('fieldset', { class: 'segments' }, el('legend', { class: 'away' }, texts.theme), ...themes),
        el('button', { type: 'button', class: 'quiet small language', lang: texts.tag === 'en' ? 'zh-CN' : 'en', on_click: act.switchLanguage },
          texts.otherLanguage),
        more));
  }

  show(conversations, currentId, isRunning) {
    const { texts, act } = this.#page;
    const focused = document.activeElement?.closest?.('[data-id]')?.dataset;
    const entries = conversations.map((conversation) => {
      const title = conversation.title || texts.untitled;
      const current = conversation.id === currentId;
      const more = iconButton('more', texts.actionsOf(title), {
        class: 'icon-button more', 'aria-haspopup': 'menu', 'aria-expanded': 'false',
        on_click: () => openMenu(more, act.itemsOf(conversation)),
      });
      return el('li', { 'data-id': conversation.id, class: current ? 'current' : null },
        el('button', { type: 'button', class: 'open', 'aria-current': current ? 'true' : null, on_click: () => act.open(conversation.id) },
          el('bdi', {}, title),
          isRunning(conversation) && el('span', { class: 'pulse', role: 'img', 'aria-label': texts.answering, title: texts.answering })),
        more);
    });
    if (entries.length === 0) entries.push(el('li', { class: 'none' }, texts.noConversations));
    this.#list.replaceChildren(...entries);
    if (focused) this.#list.querySelector(`[data-id="${focused.id}"] .open`)?.focus({ preventScroll: true });
  }

  open(opener) {
    if (!this.#narrow.matches) return;
    this.#opener = opener;
    document.body.classList.add('drawer');
    this.#main.inert = true;
    this.#root.querySelector('.new').focus();
  }

  close(refocus = true) {
    if (!this.isOpen) return;
    document.body.classList.remove('drawer');
    this.#main.inert = false;
    if (refocus) this.#opener?.focus();
  }
}
