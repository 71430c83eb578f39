/*
 * dialogs.js - questions to the visitor, and small menus. The browser's own <dialog> keeps the focus inside and gives it back.
 */
import { el, icon } from './dom.js';

// Resolves to what `read` gives when it is confirmed, and to null when not.
function ask(title, body, { confirm, cancel, danger = false, read = () => true, focus }) {
  return new Promise((resolve) => {
    let answer = null;
    const form = el('form', { method: 'dialog', class: 'card' },
      el('h2', { id: 'dialog-title' }, title),
      ...body,
      el('div', { class: 'buttons' },
        el('button', { type: 'button', class: 'quiet', on_click: () => dialog.close() }, cancel),
        el('button', { type: 'submit', class: danger ? 'danger' : 'primary' }, confirm)));
    const dialog = el('dialog', { 'aria-labelledby': 'dialog-title' }, form);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      answer = read();
      if (answer !== null) dialog.close();
    });
    dialog.addEventListener('click', (event) => {
      if (event.target === dialog) dialog.close(); // beside the card
    });
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
    (focus ?? form.querySelector('.buttons .quiet')).focus();
    focus?.select?.();
  });
}

export function confirm(texts, title, body, action) {
  return ask(title, [el('p', {}, body)], { confirm: action, cancel: texts.cancel, danger: true });
}

export function askName(texts, name) {
  const input = el('input', { id: 'dialog-name', type: 'text', maxlength: '120', dir: 'auto', autocomplete: 'off', enterkeyhint: 'done' });
  input.value = name;
  return ask(texts.rename, [el('label', { for: 'dialog-name' }, texts.renameLabel), input],
    { confirm: texts.save, cancel: texts.cancel, read: () => input.value, focus: input });
}

// Resolves to { key, remember }, or null. A key is printable ASCII: nothing else could be sent in a header.
export function askKey(texts, wrong) {
  const input = el('input', {
    id: 'dialog-key', type: 'password', maxlength: '1024', dir: 'ltr', required: true, spellcheck: 'false', autocapitalize: 'none',
    autocomplete: 'off', 'aria-describedby': 'dialog-key-note',
  });
  const remember = el('input', { id: 'dialog-remember', type: 'checkbox' });
  const note = el('p', { id: 'dialog-key-note', class: 'warning', role: 'alert' }, wrong ? texts.wrongKey : '');
  const read = () => {
    const key = input.value.trim();
    if (/^[\x21-\x7e]+$/.test(key)) return { key, remember: remember.checked };
    note.textContent = texts.wrongKey;
    input.focus();
    return null;
  };
  return ask(texts.keyTitle, [
    el('p', {}, texts.keyBody),
    el('label', { for: 'dialog-key' }, texts.keyLabel), input, note,
    el('label', { class: 'check' }, remember, el('span', {}, texts.keyRemember)),
  ], { confirm: texts.save, cancel: texts.cancel, read, focus: input });
}

let closeOpenMenu = () => {};

// A menu at a button. items: [{ label, icon, danger, act }].
export function openMenu(button, items) {
  const wasOpen = button.getAttribute('aria-expanded') === 'true';
  closeOpenMenu();
  if (wasOpen) return;

  const menu = el('div', { class: 'menu card', role: 'menu', 'aria-label': button.getAttribute('aria-label') });
  const close = (refocus = true) => {
    menu.remove();
    button.setAttribute('aria-expanded', 'false');
    document.removeEventListener('pointerdown', outside, true);
    removeEventListener('resize', leave);
    closeOpenMenu = () => {};
    if (refocus) button.focus({ preventScroll: true });
  };
  const leave = () => close(false);
  const outside = (event) => {
    if (!menu.contains(event.target) && !button.contains(event.target)) close(false);
  };
  for (const item of items) {
    menu.append(el('button', {
      type: 'button', role: 'menuitem', tabindex: '-1', class: item.danger ? 'item dangerous' : 'item',
      on_click: () => {
        close();
        item.act();
      },
    }, icon(item.icon), item.label));
  }
  menu.addEventListener('keydown', (event) => {
    const entries = [...menu.children];
    const at = entries.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1 + entries.length, Home: 0, End: entries.length - 1 }[event.key];
    if (to !== undefined) entries[to % entries.length].focus();
    else if (event.key === 'Escape' || event.key === 'Tab') close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  button.closest('nav, main').append(menu); // a landmark, where a screen reader looks
  const at = button.getBoundingClientRect();
  const below = at.bottom + 6 + menu.offsetHeight < innerHeight;
  menu.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - 6 - menu.offsetHeight)}px`;
  menu.style.left = `${Math.max(8, Math.min(at.right - menu.offsetWidth, innerWidth - menu.offsetWidth - 8))}px`;
  button.setAttribute('aria-expanded', 'true');
  document.addEventListener('pointerdown', outside, true);
  addEventListener('resize', leave);
  closeOpenMenu = leave;
  menu.firstChild.focus();
}
