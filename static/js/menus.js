// Links that open a menu instead of leading to the page that does the same without scripts.
document.addEventListener('click', (e) => {
  const opener = e.target.closest('[data-opens]');
  if (!opener || e.metaKey || e.ctrlKey || e.shiftKey) return;
  e.preventDefault();
  e.stopImmediatePropagation();
  // The browser has closed an open menu at the press already: then the click must not open it again.
  if (wasOpen !== opener) document.getElementById(opener.dataset.opens).showPopover();
  wasOpen = null;
}, true);
let wasOpen = null;
document.addEventListener('pointerdown', (e) => {
  const opener = e.target.closest('[data-opens]');
  wasOpen = opener && document.getElementById(opener.dataset.opens).matches(':popover-open') ? opener : null;
}, true);
document.addEventListener('toggle', (e) => {
  if (!e.target.matches?.('.menu')) return;
  const opener = document.querySelector(`[data-opens="${e.target.id}"]`);
  opener?.setAttribute('aria-expanded', String(e.newState === 'open'));
  if (e.newState === 'open') setTimeout(() => { if (!e.target.contains(document.activeElement)) e.target.querySelector('input, a, button')?.focus(); }, 60);
}, true);
// Arrow keys walk through a menu.
document.addEventListener('keydown', (e) => {
  const menu = e.target.closest?.('.menu'), step = { ArrowDown: 1, ArrowUp: -1 }[e.key];
  if (!menu || !step) return;
  const all = [...menu.querySelectorAll('input, a, button')].filter((el) => el.offsetParent);
  const at = all.indexOf(document.activeElement);
  e.preventDefault();
  all[(at + step + all.length) % all.length]?.focus();
});
// A search field that narrows the list it names.
document.addEventListener('input', (e) => {
  const list = e.target.dataset?.filter;
  if (!list) return;
  const words = e.target.value.trim().toLowerCase();
  for (const item of document.getElementById(list).children) item.hidden = !item.dataset.filterText.includes(words);
});
// The content of the menu comes after it is open; its first field then takes the focus.
document.addEventListener('htmx:after:swap', (e) => {
  const list = e.detail?.ctx?.target;
  if (list?.id === 'switcher-list') list.querySelector('input, [aria-current], a')?.focus();
  if (list === document.body) for (const menu of document.querySelectorAll('.menu:popover-open')) menu.hidePopover();
});
